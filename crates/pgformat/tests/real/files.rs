//! `pg_control` and data pages, as PostgreSQL's own programs read them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pgrecall_pgformat::control::{BackupEnd, ControlFile, DataChecksums, FullPageWrites};
use pgrecall_pgformat::page_check::{PageChecksums, Verdict, check_page};
use pgrecall_pgformat::relation::RelationFileName;
use pgrecall_pgformat::{ErrorKind, FormatError, Lsn, Major};

use crate::cluster::Cluster;

pub(crate) fn control_file(major: Major) {
    let cluster = Cluster::new(major, &["--wal-segsize=4"], "wal_level = logical");
    compare_control(&cluster);
    cluster.start();
    cluster.sql("create table t(a int); checkpoint;");
    compare_control(&cluster);
    cluster.kill();
    compare_control(&cluster);
    let signal = cluster.data().join("standby.signal");
    fs::write(&signal, "").expect("standby.signal");
    cluster.own(&signal);
    cluster.start();
    cluster.stop("fast");
    let control = compare_control(&cluster);
    assert!(control.min_recovery_lsn.is_some(), "a standby has a minimum recovery point");
    // 19 keeps beside it what initdb chose.
    let data = cluster.data();
    cluster.run("pg_checksums", &["--disable", "-N", "-D", data.to_str().expect("UTF-8")]);
    assert_eq!(compare_control(&cluster).data_checksums, DataChecksums::Off);

    let path = cluster.data().join("global/pg_control");
    let good = fs::read(path).expect("pg_control");
    for offset in (0..288).step_by(7) {
        let mut bad = good.clone();
        bad[offset] ^= 4;
        let error = ControlFile::decode(&bad).expect_err("damage passed");
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
    }
    let mut bad = good;
    bad[100] ^= 1;
    assert!(matches!(ControlFile::decode(&bad), Err(FormatError::Checksum { .. })));
}

fn compare_control(cluster: &Cluster) -> ControlFile {
    let bytes = fs::read(cluster.data().join("global/pg_control")).expect("pg_control");
    let control = ControlFile::decode(&bytes).expect("pg_control");
    let data = cluster.data();
    let text = cluster.run("pg_controldata", &[data.to_str().expect("UTF-8")]);
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let lsn = |lsn: Option<Lsn>| lsn.unwrap_or(Lsn(0)).text_of(cluster.major);
    let checkpoint = &control.checkpoint;
    let (epoch, next) = (checkpoint.next_full_xid >> 32, checkpoint.next_full_xid & 0xFFFF_FFFF);
    let settings = &control.standby_settings;
    let checksums = match control.data_checksums {
        DataChecksums::Off => 0,
        DataChecksums::On { version } => version,
    };
    for (name, value) in [
        ("pg_control version number", control.control_version.to_string()),
        ("Catalog version number", control.catalog_version.to_string()),
        ("Database system identifier", control.system_identifier.to_string()),
        ("Database cluster state", control.state.name().to_owned()),
        ("Latest checkpoint location", lsn(Some(control.checkpoint_lsn))),
        ("Latest checkpoint's REDO location", lsn(Some(checkpoint.redo))),
        ("Latest checkpoint's TimeLineID", checkpoint.timeline.0.to_string()),
        ("Latest checkpoint's PrevTimeLineID", checkpoint.previous_timeline.0.to_string()),
        (
            "Latest checkpoint's full_page_writes",
            on_off(checkpoint.full_page_writes == FullPageWrites::On),
        ),
        ("Latest checkpoint's NextXID", format!("{epoch}:{next}")),
        ("Latest checkpoint's NextOID", checkpoint.next_oid.to_string()),
        ("Latest checkpoint's oldestXID", checkpoint.oldest_xid.to_string()),
        ("Latest checkpoint's oldestActiveXID", checkpoint.oldest_active_xid.to_string()),
        ("Minimum recovery ending location", lsn(control.min_recovery_lsn)),
        ("Min recovery ending loc's timeline", control.min_recovery_timeline.to_string()),
        ("Backup start location", lsn(control.backup_start_lsn)),
        ("Backup end location", lsn(control.backup_end_lsn)),
        (
            "End-of-backup record required",
            if control.backup_end == BackupEnd::Required { "yes" } else { "no" }.to_owned(),
        ),
        ("wal_level setting", control.wal_level.name().to_owned()),
        ("max_connections setting", settings.max_connections.to_string()),
        ("max_worker_processes setting", settings.max_worker_processes.to_string()),
        ("max_wal_senders setting", settings.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", settings.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", settings.max_locks_per_transaction.to_string()),
        ("Database block size", control.page_size_bytes.to_string()),
        ("Blocks per segment of large relation", control.relation_segment_pages.to_string()),
        ("WAL block size", control.wal_page_size_bytes.to_string()),
        ("Bytes per WAL segment", control.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", checksums.to_string()),
    ] {
        assert_eq!(fields.get(name), Some(&value.as_str()), "{name}");
    }
    assert_eq!(control.major, cluster.major);
    control
}

/// The relation files that `pg_checksums` looks at.
fn relation_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        if path.is_dir() {
            relation_files(&path, files);
        } else if RelationFileName::parse(name).is_some() {
            files.push(path);
        }
    }
}

/// Pages read, and those that are bad.
fn check_all(cluster: &Cluster) -> (u64, u64) {
    let mut files = Vec::new();
    relation_files(&cluster.data().join("base"), &mut files);
    relation_files(&cluster.data().join("global"), &mut files);
    let (mut pages, mut bad) = (0, 0);
    for path in files {
        let bytes = fs::read(&path).expect("a relation file");
        for (page, block) in bytes.chunks(8192).zip(0_u32..) {
            pages += 1;
            let verdict = check_page(page, block, Lsn::MAX, PageChecksums::On);
            bad += u64::from(verdict.is_bad());
            let plausible = check_page(page, block, Lsn::MAX, PageChecksums::Off);
            if verdict == Verdict::Sound {
                assert_eq!(plausible, Verdict::Sound, "{} block {block}", path.display());
            }
        }
    }
    (pages, bad)
}

/// `pg_checksums --check`: blocks scanned, bad ones.
fn oracle(cluster: &Cluster) -> (u64, u64) {
    let data = cluster.data();
    let output = cluster.try_run("pg_checksums", &["--check", "-D", data.to_str().expect("UTF-8")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.expect("a line of pg_checksums").parse().expect("a number")
    };
    (number("Blocks scanned"), number("Bad checksums"))
}

pub(crate) fn pages(major: Major) {
    let cluster = Cluster::new(major, &[], "");
    cluster.start();
    cluster.sql(crate::workload::TABLES);
    let table = cluster.sql("select pg_relation_filepath('t')");
    cluster.stop("fast");
    assert_eq!(check_all(&cluster), oracle(&cluster));
    let path = cluster.data().join(table);
    let mut bytes = fs::read(&path).expect("a table");
    bytes[8192 + 4000] ^= 1;
    bytes[3 * 8192 + 20] ^= 0x80;
    fs::write(&path, &bytes).expect("a table");
    let found = check_all(&cluster);
    assert_eq!(found, oracle(&cluster));
    assert_eq!(found.1, 2, "both damaged pages are found");
}
