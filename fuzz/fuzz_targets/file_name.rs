//! Names that PostgreSQL gives: of WAL files, of relation files, and of what a backup leaves out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::data_directory::{EntryKind, InitFork, judge};
use pgrecall_pgformat::relation::{RelationFile, RelationFileName};
use pgrecall_pgformat::{ArchiveName, Lsn, Major, SegmentSize};

fuzz_target!(|text: &str| {
    for mebibytes in [1_u64, 16, 1024] {
        let Ok(size) = SegmentSize::from_bytes(mebibytes << 20) else { continue };
        if let Ok(name) = ArchiveName::parse(text, size) {
            assert_eq!(name.file_name(size), text);
            assert!(ArchiveName::kind_of(text).is_some());
        }
    }
    let _ = text.parse::<Lsn>().map(|lsn| assert_eq!(lsn.to_string().parse(), Ok(lsn)));
    let _ = RelationFile::parse(text);
    let _ = RelationFileName::parse(text);
    for kind in [EntryKind::File, EntryKind::Directory] {
        let _ = judge(text, kind, Major::V17, InitFork::Present);
    }
});
