//! What the engine keeps in a manifest about PostgreSQL, as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::details::BackupDetails;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::id::BackupId;

fuzz_target!(|bytes: &[u8]| {
    let Ok(details) = serde_json::from_slice(bytes) else { return };
    let manifest = Manifest {
        backup: BackupId::from_bytes([1; 16]),
        cluster: "main".into(),
        lineage: "7".into(),
        tables: vec![],
        entries: 0,
        bytes: 0,
        details,
    };
    let Ok(read) = BackupDetails::of(&manifest) else { return };
    let again = Manifest { details: read.to_value(), ..manifest };
    assert_eq!(BackupDetails::of(&again).expect("what is written reads"), read);
});
