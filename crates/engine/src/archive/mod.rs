//! WAL into the repository and out of it: what `archive_command` and `restore_command` call.
