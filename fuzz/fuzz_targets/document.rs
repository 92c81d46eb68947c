//! A small document of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::cluster::ClusterFacts;
use pgrecall_engine::details::BackupDetails;
use pgrecall_repo::format::document::{
    Damage, Document, DomainKeysDocument, Expired, Identity, Intent, KeyLog, Manifest, Resolution,
    RetireVerdict, Retired, RetiredIntents, Shredded, Start, StoreRecord, Tombstone,
};
use pgrecall_repo::format::header::Suite;
use pgrecall_repo::keys::Keys;

/// What is read is written and read again.
fn read<T: Document>(bytes: &[u8]) -> Option<T> {
    let document = T::decode(bytes).ok()?;
    T::decode(&document.encode()).expect("what is written reads");
    Some(document)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(manifest) = read::<Manifest>(bytes) {
        let _ = BackupDetails::of(&manifest);
    }
    if let Some(keys) = read::<DomainKeysDocument>(bytes) {
        let name = "main".parse().expect("a name");
        let _ = Keys::of_domain(Suite::Aes256Gcm, &name, &[keys], &[]);
    }
    read::<Tombstone>(bytes);
    read::<Intent>(bytes);
    read::<Start>(bytes);
    if let Some(identity) = read::<Identity>(bytes) {
        let _ = serde_json::from_value::<ClusterFacts>(identity.details);
    }
    read::<KeyLog>(bytes);
    read::<Damage>(bytes);
    read::<StoreRecord>(bytes);
    read::<Resolution>(bytes);
    read::<Expired>(bytes);
    read::<Retired>(bytes);
    read::<RetiredIntents>(bytes);
    read::<RetireVerdict>(bytes);
    read::<Shredded>(bytes);
});
