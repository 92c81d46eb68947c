//! Seeds for what people and PostgreSQL write as text.

use pgrecall_engine::details::{
    BackupDetails, BackupStats, DamagedFile, Method, Position, Tablespace, TakenFrom,
};
use pgrecall_engine::restore::target_dir::Marker;
use pgrecall_pgformat::control::DataChecksums;
use pgrecall_pgformat::{Lsn, Major, SegmentSize, TimelineId};
use pgrecall_repo::id::BackupId;

use crate::corpus::Corpus;

const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 14:03:07 UTC
LABEL: nightly
START TIMELINE: 1
";

const HISTORY: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
STOP WAL LOCATION: 0/2000158 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-11-22 14:03:07 UTC
LABEL: nightly
START TIMELINE: 1
STOP TIME: 2026-11-22 14:04:07 UTC
STOP TIMELINE: 1
";

/// A whole configuration, short ones (the fewer bytes around a value, the sooner it is changed),
/// and bare values.
const CONFIGS: [&str; 10] = [
    r#"[[repository]]
url = "s3://bucket/prefix"
[repository.s3]
region = "eu-central-1"

[[cluster]]
name = "main"
pgdata = "/var/lib/postgresql/17/main"

[backup]
compression_level = 3
threads = 2

[wal]
push_timeout = "30s"
"#,
    "[[repository]]\nurl = \"s3://b\"\n",
    "[[repository]]\nurl = \"file:///b\"\ncache_dir = \"/c\"\n",
    "[[repository]]\nurl = \"s3://b\"\ns3.path_style = \"auto\"\n",
    "[[cluster]]\nname = \"a\"\n[[cluster]]\nname = \"b\"\npgdata = \"/p\"\n",
    "[wal]\nfetch_timeout = \"1min\"\n",
    "[backup]\nthreads = 2\n",
    "s3://bucket",
    "512KiB",
    "1min",
];

const POSTMASTER: &str = "4711
/var/lib/postgresql/17/main
1795356187
5432
/var/run/postgresql
localhost
  5432001         3
ready
";

/// What the engine keeps in a manifest.
fn details() -> BackupDetails {
    let position = Position { timeline: TimelineId(1), lsn: Lsn(0x0200_0028) };
    BackupDetails {
        began: "2026-11-22T00:00:00Z".into(),
        ended: "2026-11-22T00:01:00Z".parse().expect("a time"),
        host: "db1".into(),
        major: Major::V17,
        server_version: 170_011,
        catalog_version: 202_406_281,
        from: TakenFrom::Primary,
        start: position,
        checkpoint_lsn: Lsn(0x0200_0080),
        stop: Position { lsn: Lsn(0x0200_0180), ..position },
        backup_label: String::new(),
        tablespace_map: String::new(),
        tablespaces: vec![Tablespace { oid: 16400, location: "/srv/fast".into() }],
        pg_wal_link: Some("/wal".into()),
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
        relation_segment_pages: 131_072,
        data_checksums: DataChecksums::On { version: 1 },
        chunk_bytes: 256 << 10,
        method: Method::Full,
        reference: None,
        damage: vec![DamagedFile { path: "base/5/16384".into(), blocks: vec![7], count: 1 }],
        stats: BackupStats::default(),
        saw_backups: vec![],
    }
}

pub(crate) fn write(corpus: &Corpus) {
    corpus.add("backup_details", details().to_value().to_string().as_bytes());
    let lines: [(&str, &[&str]); 8] = [
        ("backup_label", &[LABEL, HISTORY]),
        ("tablespace_map", &["16400 /srv/fast\n16401 /srv/with\\\nbreak\n"]),
        ("timeline_history", &["1\t0/3000000\tno recovery target\n\n2\t1/5000000\tbefore x\n"]),
        ("backup_manifest", &["\x01base/5/16384\n\x02global/pg_control\n\x00a\"b"]),
        (
            "file_name",
            &[
                "00000002.history",
                "000000010000000000000002.partial",
                "000000010000000000000002.00000028.backup",
                "base/5/16384_fsm.1",
                "pg_tblspc/16400/PG_17_202406281/5/t3_16385",
                "global/pg_internal.init",
            ],
        ),
        ("auto_conf", &["# by ALTER SYSTEM\nport = 5432\nrecovery_target_lsn = '0/3000000'\n"]),
        ("config_file", &CONFIGS),
        ("postmaster_file", &[POSTMASTER]),
    ];
    for (target, texts) in lines {
        for text in texts {
            corpus.add(target, text.as_bytes());
        }
    }
    let backup = BackupId::from_bytes([1; 16]);
    let began = "2026-11-22T00:00:00Z";
    let marker = Marker { system_identifier: 7, backup, began: began.into(), over_files: true };
    corpus.add("local_state", &marker.encode());
    let wal = "{\"version\":1,\"store\":\"file:///r\",\"file\":\"000000010000000000000003\",\"size\":16777216}";
    let seen = format!(
        "{{\"version\":1,\"store\":\"file:///r\",\"backup\":\"{backup}\",\"ended\":\"{began}\",\"wal\":{wal},\"epoch\":0,\"log\":2}}"
    );
    corpus.add("local_state", wal.as_bytes());
    corpus.add("local_state", seen.as_bytes());
    corpus.add("local_state", format!("{{\"{backup}\":\"{began}\"}}").as_bytes());
    corpus.add("pass_file", b"# ours\ndb1:5432:*:me:sec\\:ret\nlocalhost:*:postgres:me:x\n");
}
