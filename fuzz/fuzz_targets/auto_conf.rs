//! `postgresql.auto.conf`, out of which the settings of an earlier recovery are taken, and
//! `postgresql.conf`, which a restore fits to its new place.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::restore::recovery_settings::{auto_conf, taken_in, without_missing_includes};

fuzz_target!(|bytes: &[u8]| {
    let lines = [("restore_command", "/usr/bin/pgrecall wal fetch %f %p".to_owned())];
    let once = auto_conf(bytes, &lines);
    assert!(once.ends_with(b"restore_command = '/usr/bin/pgrecall wal fetch %f %p'\n"));
    assert_eq!(auto_conf(&once, &lines), once);
    let nowhere = Path::new("/nonexistent/new");
    if let Some(fitted) = taken_in(bytes, nowhere, &[b"pg_hba.conf".to_vec()]) {
        assert!(fitted.starts_with(bytes));
    }
    if let Some((fitted, missing)) = without_missing_includes(bytes, nowhere) {
        assert!(!missing.is_empty() && fitted.len() > bytes.len());
        assert_eq!(without_missing_includes(&fitted, nowhere), None);
    }
});
