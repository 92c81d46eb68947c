//! Taking a backup.
