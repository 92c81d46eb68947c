//! `backup_label` and backup history files; what was read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::Major;
use pgrecall_pgformat::label::{BackupHistory, BackupLabel};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(label) = BackupLabel::parse(bytes) {
        let text = label.compose(Major::V19);
        assert_eq!(BackupLabel::parse(text.as_bytes()).as_ref(), Ok(&label));
    }
    if let Ok(history) = BackupHistory::parse(bytes) {
        let text = history.compose(Major::V19);
        assert_eq!(BackupHistory::parse(text.as_bytes()).as_ref(), Ok(&history));
    }
});
