//! The configuration file, and the input as the value of every setting. The program has no library,
//! so its own modules are compiled in here.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../crates/cli/src/failure.rs"]
mod failure;
#[path = "../../crates/cli/src/config/file.rs"]
mod file;
#[path = "../../crates/cli/src/hint.rs"]
mod hint;
#[path = "../../crates/cli/src/config/secret.rs"]
mod secret;
#[path = "../../crates/cli/src/config/table.rs"]
mod table;
#[path = "../../crates/cli/src/config/value.rs"]
mod value;

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for setting in table::TABLE {
        let _ = file::check(setting, text).map(|value| value.show());
    }
    let Ok(file) = file::ConfigFile::parse(text, Path::new("x.toml")) else { return };
    for entry in file.globals.iter().chain(file.clusters.iter().flatten()) {
        assert!(entry.line >= 1);
        let _ = entry.value.show();
    }
});
