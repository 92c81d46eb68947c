//! Names in a store, and the ids, numbers and clusters that are read out of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::id::{BackupId, ChunkId, IndexId};
use pgrecall_repo::names::{self, Name};
use pgrecall_store::{Key, Prefix};

fuzz_target!(|text: &str| {
    let _ = text.parse::<Name>();
    let _ = text.parse::<BackupId>().map(|id| assert_eq!(id.to_string(), text));
    let _ = text.parse::<ChunkId>().map(|id| assert_eq!(id.to_string(), text));
    let _ = Prefix::parse(text);
    let Ok(key) = Key::parse(text) else { return };
    let domain: Name = "main".parse().expect("a name");
    let _ = names::id_of::<IndexId>(&key);
    for log in [names::key_log(), names::expired(&domain), names::domain_keys(&domain)] {
        if let Some(number) = log.number(&key) {
            assert_eq!(log.entry(number), key);
        }
    }
    if let Some((kind, id)) = names::pack_of(&domain, &key) {
        assert_eq!(names::pack(&domain, kind, id), key);
    }
    if let Some((at, id)) = names::manifest_of(&domain, &key) {
        assert_eq!(names::manifest(&at, id), key);
        let _ = (names::intent(&at, id), names::cluster_prefix(&at, ""));
    }
});
