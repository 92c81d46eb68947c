//! `postgresql.auto.conf`, out of which the settings of an earlier recovery are taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::restore::recovery_settings::auto_conf;

fuzz_target!(|bytes: &[u8]| {
    let lines = [("restore_command", "/usr/bin/pgrecall wal fetch %f %p".to_owned())];
    let once = auto_conf(bytes, &lines);
    assert!(once.ends_with(b"restore_command = '/usr/bin/pgrecall wal fetch %f %p'\n"));
    assert_eq!(auto_conf(&once, &lines), once);
});
