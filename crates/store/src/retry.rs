//! When to send again: backoff with full jitter, a number of attempts, and a budget of time.
