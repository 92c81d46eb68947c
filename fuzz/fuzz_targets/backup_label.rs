//! `backup_label` and backup history files; what was read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::label::{BackupHistory, BackupLabel};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(label) = BackupLabel::parse(bytes) {
        assert_eq!(BackupLabel::parse(label.compose().as_bytes()).as_ref(), Ok(&label));
    }
    if let Ok(history) = BackupHistory::parse(bytes) {
        assert_eq!(BackupHistory::parse(history.compose().as_bytes()).as_ref(), Ok(&history));
    }
});
