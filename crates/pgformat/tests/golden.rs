//! Files that servers of each major wrote, with what their own programs said of them, read without
//! any server.

use std::fs;
use std::path::PathBuf;

use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::segment_digest::visit_segment;
use pgrecall_pgformat::segment_summary::SegmentEnd;
use pgrecall_pgformat::xact::TransactionOutcome;
use pgrecall_pgformat::{Lsn, Major, SegmentName, SegmentSize};

fn folder(major: Major) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pg");
    PathBuf::from(root).join(major.to_string())
}

/// The segment's name and all its bytes, the zero pages at its end put back.
fn segment(major: Major) -> (SegmentName, SegmentSize, Vec<u8>) {
    let size = SegmentSize::from_bytes(1 << 20).unwrap();
    let mut entries = fs::read_dir(folder(major)).unwrap().map(|entry| entry.unwrap().path());
    let path = entries.find(|path| path.extension().is_some_and(|end| end == "head"));
    let path = path.expect("a segment");
    let name = path.file_stem().unwrap().to_str().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(1 << 20, 0);
    (SegmentName::parse(name, size).unwrap(), size, bytes)
}

#[test]
fn every_major_has_its_folder_and_no_other_is_there() {
    let root = folder(Major::V17);
    let mut names: Vec<String> = fs::read_dir(root.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    assert_eq!(names, Major::ALL.map(|major| major.to_string()));
}

#[test]
fn control_files() {
    for major in Major::ALL {
        let control = ControlFile::decode(&fs::read(folder(major).join("pg_control")).unwrap());
        let control = control.unwrap();
        assert_eq!(control.major, major);
        let text = fs::read_to_string(folder(major).join("pg_controldata.txt")).unwrap();
        for (name, value) in [
            ("Database system identifier", control.system_identifier.to_string()),
            ("Database cluster state", control.state.name().to_owned()),
            ("Latest checkpoint's REDO location", control.checkpoint.redo.text_of(major)),
            ("Bytes per WAL segment", control.wal_segment_size.bytes().to_string()),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(line.rsplit(": ").next().unwrap().trim(), value, "{major}: {name}");
        }
    }
}

#[test]
fn segments() {
    for major in Major::ALL {
        let (name, size, bytes) = segment(major);
        let text = fs::read_to_string(folder(major).join("pg_waldump.txt")).unwrap();
        let expected: Vec<Lsn> = text
            .lines()
            .map(|line| line.split("lsn: ").nth(1).unwrap().split(',').next().unwrap())
            .map(|lsn| lsn.parse().unwrap())
            .collect();
        let mut lsns = Vec::new();
        let mut prepared = Vec::new();
        let summary = visit_segment(name, size, &bytes, &mut |visited| {
            lsns.push(visited.record.lsn);
            if let Some(Event::Transaction(end)) = visited.event
                && end.outcome == TransactionOutcome::CommitPrepared
            {
                prepared.push(end.xid);
            }
        });
        assert_eq!(lsns, expected, "{major}");
        assert!(matches!(summary.end, SegmentEnd::Switch { .. }), "{major}: {:?}", summary.end);
        let count = |kind: &str| text.lines().filter(|line| line.contains(kind)).count() as u64;
        assert_eq!(summary.transactions.commits, count("desc: COMMIT"), "{major}");
        assert_eq!(summary.transactions.aborts, count("desc: ABORT"), "{major}");
        assert_eq!(summary.checkpoints.items.len() as u64, count("desc: CHECKPOINT_ONLINE"));
        assert_eq!(summary.restore_points.items[0].name, "fixture");
        let line = text.lines().find(|line| line.contains("COMMIT_PREPARED ")).unwrap();
        let xid = line.split("COMMIT_PREPARED ").nth(1).unwrap().split(':').next().unwrap();
        assert_eq!(prepared, [xid.parse::<u32>().unwrap()]);
    }
}
