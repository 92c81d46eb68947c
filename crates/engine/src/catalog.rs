//! What the repository holds: backups, WAL, timelines, and how far back and forward one can go.
