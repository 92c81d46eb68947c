//! Seeds for what people and PostgreSQL write as text.

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

const DETAILS: &str = r#"{"began":"2026-11-22T00:00:00Z","ended":"2026-11-22T00:01:00Z",
"host":"db1","major":"V17","server_version":170011,"catalog_version":202406281,"from":"primary",
"start":{"timeline":1,"lsn":"0/2000028"},"checkpoint_lsn":"0/2000080",
"stop":{"timeline":1,"lsn":"0/2000180"},"backup_label":"","tablespace_map":"",
"tablespaces":[{"oid":16400,"location":"/srv/fast"}],"pg_wal_link":null,"page_size_bytes":8192,
"wal_segment_size":16777216,"relation_segment_pages":131072,"data_checksums":{"on":{"version":1}},
"chunk_bytes":262144,"method":"full","reference":null,
"damage":[{"path":"base/5/16384","blocks":[7],"count":1}],
"stats":{"files":3,"bytes":4},"saw_backups":["6xqewxseaixixqktgualwwmmx4"]}"#;

const CONFIG: &str = r#"[[repository]]
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
"#;

const POSTMASTER: &str = "4711
/var/lib/postgresql/17/main
1795356187
5432
/var/run/postgresql
localhost
  5432001         3
ready
";

pub(crate) fn write(corpus: &Corpus) {
    let lines: [(&str, &[&str]); 9] = [
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
        ("backup_details", &[DETAILS]),
        ("auto_conf", &["# by ALTER SYSTEM\nport = 5432\nrecovery_target_lsn = '0/3000000'\n"]),
        ("config_file", &[CONFIG]),
        ("postmaster_file", &[POSTMASTER]),
    ];
    for (target, texts) in lines {
        for text in texts {
            corpus.add(target, text.as_bytes());
        }
    }
    corpus.add("pass_file", b"# ours\ndb1:5432:*:me:sec\\:ret\nlocalhost:*:postgres:me:x\n");
}
