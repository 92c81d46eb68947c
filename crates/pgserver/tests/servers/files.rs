//! Files of the server's host over SQL, against the same files on disk.

use pgrecall_pgserver::{ErrorKind, FileType, READ_LEN_MAX_BYTES, Server, ServerError};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::{connect, connect_as, follow_hint};

async fn list(server: &Server, path: &str, batch: u32) -> Vec<(String, FileType, u64)> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let entries = server.list_dir(path, after.as_deref(), batch).await.unwrap();
        assert!(entries.len() <= batch as usize);
        let Some(last) = entries.last() else { return all };
        after = Some(last.name.clone());
        all.extend(
            entries.into_iter().map(|entry| (entry.name, entry.file_type, entry.size_bytes)),
        );
    }
}

#[tokio::test]
async fn a_folder_is_listed_in_batches() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect(&cluster).await;
        let database = cluster.psql("SELECT oid FROM pg_database WHERE datname = 'template0'");
        let path = format!("base/{database}");
        let mut expected: Vec<(String, FileType, u64)> = Vec::new();
        for entry in std::fs::read_dir(cluster.data_dir().join(&path)).unwrap() {
            let entry = entry.unwrap();
            let size = entry.metadata().unwrap().len();
            expected.push((entry.file_name().into_string().unwrap(), FileType::File, size));
        }
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert!(expected.len() > 200);
        for batch in [7, 1000] {
            assert_eq!(list(&server, &path, batch).await, expected);
        }
        let top = list(&server, ".", 1000).await;
        let kind = |name: &str| top.iter().find(|entry| entry.0 == name).unwrap().1;
        assert_eq!((kind("base"), kind("PG_VERSION")), (FileType::Directory, FileType::File));
    }
}

#[tokio::test]
async fn times_are_those_of_the_files() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    let entries = connect(&cluster).await.list_dir("global", None, 1).await.unwrap();
    let found = cluster.data_dir().join("global").join(&entries[0].name).metadata().unwrap();
    let modified = found.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let secs = i64::try_from(modified.as_secs()).unwrap();
    assert_eq!(entries[0].modified.to_unix_micros(), secs * 1_000_000);
}

#[tokio::test]
async fn ranges_of_a_file_are_read() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        cluster.psql("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 50000)");
        let path = cluster.psql("CHECKPOINT; SELECT pg_relation_filepath('t')");
        let server = connect(&cluster).await;
        let whole = std::fs::read(cluster.data_dir().join(&path)).unwrap();
        let mut found = Vec::new();
        loop {
            let piece = server.read_file(&path, found.len() as u64, 1_000_000).await.unwrap();
            if piece.is_empty() {
                break;
            }
            found.extend(piece);
        }
        assert!(found == whole, "{} bytes, {} on disk", found.len(), whole.len());
        let control = server.read_file("global/pg_control", 0, 8192).await.unwrap();
        assert_eq!(control.len(), 8192);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_apart() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect(&cluster).await;
        let error = server.read_file("base/none", 0, 10).await.unwrap_err();
        assert!(matches!(error, ServerError::NoFile { .. }), "{error:?}");
        let error = server.list_dir("none", None, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        for (offset, len) in [(0, READ_LEN_MAX_BYTES + 1), (u64::MAX, 1)] {
            let error = server.read_file("PG_VERSION", offset, len).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        }
        assert!(server.read_file("PG_VERSION", 1000, 10).await.unwrap().is_empty());
        let other = connect_as(&cluster, "backup", "").await;
        let error = other.list_dir("base", None, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        follow_hint(&cluster, &error.hint().unwrap());
        assert!(!other.list_dir("base", None, 10).await.unwrap().is_empty());
        assert!(!other.read_file("/etc/passwd", 0, 10).await.unwrap().is_empty());
    }
}
