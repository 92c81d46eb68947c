//! What belongs to a base backup, and the files that PostgreSQL writes about one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use pgrecall_pgformat::backup_manifest::{
    FileChecksum, ManifestFile, ManifestHasher, ManifestWriter,
};
use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::data_directory::{EntryKind, InitFork, Judgement, judge};
use pgrecall_pgformat::label::{BackupFrom, BackupHistory, BackupLabel};
use pgrecall_pgformat::relation::RelationFileName;
use pgrecall_pgformat::segment::ArchiveNameKind;
use pgrecall_pgformat::{ArchiveName, Major, SegmentSize, tablespace_map};
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;

/// Every path below `root` that the judgement keeps.
fn kept(root: &Path, major: Major) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let names: Vec<String> = fs::read_dir(root.join(&folder))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        for name in &names {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let is_folder = root.join(&path).is_dir();
            let kind = if is_folder { EntryKind::Directory } else { EntryKind::File };
            let init_fork = match RelationFileName::parse(name) {
                Some(file) if names.contains(&format!("{}_init", file.relation)) => {
                    InitFork::Present
                }
                _ => InitFork::Absent,
            };
            match judge(&path, kind, major, init_fork) {
                Judgement::Keep if is_folder => {
                    folders.push(path.clone());
                    paths.insert(path);
                }
                Judgement::Keep => {
                    paths.insert(path);
                }
                Judgement::EmptyDirectory { within } => {
                    paths.extend(within.iter().map(|inner| format!("{path}/{inner}")));
                    paths.insert(path);
                }
                Judgement::LeaveOut(_) => {}
            }
        }
    }
    paths
}

fn all_paths(root: &Path, folder: &str, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if root.join(&path).is_dir() {
            all_paths(root, &path, paths);
        }
        paths.insert(path);
    }
}

struct Hasher(Sha256);

impl ManifestHasher for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        Digest::update(&mut self.0, bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

pub(crate) fn same_files(major: Major) {
    let cluster = Cluster::new(major, &[], "");
    cluster.start();
    cluster.sql(
        "create unlogged table u(a int primary key, b text); insert into u values (1, 'x');
         create table t(a int); insert into t select generate_series(1, 5000); vacuum t;
         checkpoint;",
    );
    // A session with a temporary table that goes on while the backup runs.
    let folder = cluster.folder().to_str().expect("UTF-8").to_owned();
    let mut session = cluster
        .command("psql")
        .args(["-X", "-q", "-h", &folder, "-U", "postgres", "-d", "postgres", "-c"])
        .arg("create temp table tt(a int)")
        .args(["-c", "insert into tt values (1)", "-c", "select pg_sleep(60)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql runs");
    while cluster.sql("select count(*) from pg_class where relname = 'tt'") != "1" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for name in ["backup_label.old", "postgresql.auto.conf.tmp", "base/pgsql_tmp", "note.txt"] {
        let path = cluster.data().join(name);
        if name == "base/pgsql_tmp" {
            let _ = fs::create_dir(&path);
        } else {
            fs::write(&path, "x").expect("a file");
        }
        cluster.own(&path);
    }
    let target = cluster.folder().join("copy");
    let target_text = target.to_str().expect("UTF-8");
    cluster.run(
        "pg_basebackup",
        &["-h", &folder, "-U", "postgres", "-D", target_text, "-X", "none", "-c", "fast"],
    );
    let expected_from_server = kept(&cluster.data(), major);
    session.kill().expect("psql ends");
    session.wait().expect("psql ends");
    assert!(expected_from_server.iter().any(|path| path.ends_with("note.txt")));
    let mut copied = BTreeSet::new();
    all_paths(&target, "", &mut copied);
    // The backup adds these itself; PostgreSQL keeps the last, which nobody reads.
    for own in ["backup_label", "backup_manifest", "backup_label.old"] {
        assert!(copied.remove(own), "{own}");
    }
    assert_eq!(expected_from_server, copied);
    verify_manifest(&cluster, &target, &copied, major);
}

/// `pg_verifybackup` accepts a manifest of ours for that copy, and refuses it when a file differs.
fn verify_manifest(cluster: &Cluster, target: &Path, paths: &BTreeSet<String>, major: Major) {
    let control = fs::read(target.join("global/pg_control")).expect("pg_control");
    let control = ControlFile::decode(&control).expect("pg_control");
    let mut writer =
        ManifestWriter::new(String::new(), Hasher(Sha256::new()), major, control.system_identifier)
            .expect("a String takes all");
    let more = ["backup_label".to_owned(), "backup_label.old".to_owned()];
    for (index, path) in paths.iter().chain(&more).enumerate() {
        let Ok(bytes) = fs::read(target.join(path)) else {
            continue;
        };
        let checksum = match index % 3 {
            0 => FileChecksum::None,
            1 => FileChecksum::Crc32c(crc32c::crc32c(&bytes)),
            _ => FileChecksum::Sha256(Sha256::digest(&bytes).into()),
        };
        writer
            .add_file(&ManifestFile {
                path: path.as_bytes(),
                size_bytes: bytes.len() as u64,
                modified_unix_secs: 1_795_356_187,
                checksum,
            })
            .expect("a String takes all");
    }
    let text = writer.finish(&[]).expect("a String takes all");
    fs::write(target.join("backup_manifest"), text).expect("a manifest");
    let target_text = target.to_str().expect("UTF-8");
    cluster.run("pg_verifybackup", &["-n", target_text]);
    fs::write(target.join("note.txt"), "longer").expect("a file");
    let output = cluster.try_run("pg_verifybackup", &["-n", target_text]);
    assert!(!output.status.success(), "a changed file passed");
}

pub(crate) fn labels(major: Major) {
    let cluster = Cluster::new(major, &[], "archive_mode = on\narchive_command = 'false'");
    let place = cluster.folder().join("table space\\");
    fs::create_dir(&place).expect("a folder");
    cluster.own(&place);
    cluster.start();
    cluster.sql(&format!("create tablespace ts location '{}'", place.display()));
    let oid: u32 =
        cluster.sql("select oid from pg_tablespace where spcname = 'ts'").parse().expect("an OID");
    let (start, stop) = if major >= Major::V15 {
        ("pg_backup_start('a: label', true)", "pg_backup_stop(false)")
    } else {
        ("pg_start_backup('a: label', true, false)", "pg_stop_backup(false, false)")
    };
    // Hex keeps line ends and spaces as they are.
    let rows = cluster.sql(&format!(
        "select {start};
         select encode(convert_to(labelfile, 'UTF8'), 'hex'),
                encode(convert_to(spcmapfile, 'UTF8'), 'hex'), lsn from {stop};"
    ));
    let mut lines = rows.lines();
    let start_lsn = lines.next().expect("a start");
    let fields: Vec<&str> = lines.next().expect("a row").split('|').collect();
    let [label_text, map, stop_lsn] = fields[..] else {
        panic!("three fields: {rows}");
    };
    let unhex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hex");
    let label_bytes = unhex(label_text);
    let label = BackupLabel::parse(&label_bytes).expect("a label");
    assert_eq!(label.compose(major).as_bytes(), label_bytes);
    assert_eq!(label.start_lsn.text_of(major), start_lsn);
    assert_eq!((label.label.as_str(), label.from), ("a: label", BackupFrom::Primary));
    let map = unhex(map);
    let links = tablespace_map::parse(&map).expect("a map");
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].oid, oid);
    assert_eq!(links[0].path, place.to_str().expect("UTF-8").as_bytes());
    // The server writes it without the last line end before 15.
    assert_eq!(tablespace_map::compose(&links).trim_ascii_end(), map.trim_ascii_end());
    cluster.stop("fast");

    let wal = cluster.data().join("pg_wal");
    let name = fs::read_dir(&wal)
        .expect("pg_wal")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .find(|name| ArchiveName::kind_of(name) == Some(ArchiveNameKind::BackupHistory))
        .expect("a backup history file");
    let parsed = ArchiveName::parse(&name, SegmentSize::DEFAULT).expect("a name");
    assert_eq!(parsed.file_name(SegmentSize::DEFAULT), name);
    let bytes = fs::read(wal.join(&name)).expect("a backup history file");
    let history = BackupHistory::parse(&bytes).expect("a backup history file");
    assert_eq!(history.compose(major).as_bytes(), bytes);
    assert_eq!(history.label.start_lsn, label.start_lsn);
    assert_eq!(history.stop_lsn.text_of(major), stop_lsn);
}
