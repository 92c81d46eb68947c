//! libpq's password file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgserver::{ConnectOptions, Host, PassFile};

fuzz_target!(|text: &str| {
    let file = PassFile::new(text.to_owned());
    for host in [Host::Tcp("db1".to_owned()), Host::Socket("/tmp".into())] {
        let _ = file.password_for(&ConnectOptions::new(host, 5432, "me"));
    }
});
