//! Planning a recovery and carrying the plan out.
