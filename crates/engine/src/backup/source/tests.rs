//! Listings of made-up data directories.

use std::os::unix::fs::symlink;

use super::*;

fn control() -> ControlFile {
    let bytes = include_bytes!("../../../../../tests/fixtures/pg/17/pg_control");
    ControlFile::decode(bytes).unwrap()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn list(root: &Path, outside: Vec<OutsideFile>) -> Listing {
    LocalSource::new(root, &control(), outside).list().unwrap()
}

fn kind_of<'a>(listing: &'a Listing, path: &str) -> Option<&'a SourceKind> {
    let found = listing.entries.iter().find(|entry| entry.path == path.as_bytes());
    found.map(|entry| &entry.kind)
}

#[test]
fn a_linked_pg_wal_is_kept_as_a_link_with_its_folders() {
    let place = tempfile::tempdir().unwrap();
    let (root, wal) = (place.path().join("data"), place.path().join("wal"));
    write(&root.join("PG_VERSION"), "17\n");
    write(&wal.join("000000010000000000000001"), "x");
    symlink(&wal, root.join("pg_wal")).unwrap();
    let listing = list(&root, vec![]);
    let target = wal.as_os_str().as_bytes().to_vec();
    assert_eq!(kind_of(&listing, "pg_wal"), Some(&SourceKind::Link { target }));
    assert_eq!(kind_of(&listing, "pg_wal/archive_status"), Some(&SourceKind::Directory));
    assert_eq!(kind_of(&listing, "pg_wal/000000010000000000000001"), None);
}

#[test]
fn a_tablespace_that_does_not_resolve_is_missed() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("data");
    let control = control();
    let within = format!("PG_17_{}", control.catalog_version);
    write(&place.path().join("one").join(&within).join("5/16390"), "x");
    // Another cluster's directory in the same place.
    write(&place.path().join("one/PG_17_1/5/16390"), "x");
    write(&root.join("pg_tblspc/16402").join(&within).join("5/16391"), "in place");
    symlink(place.path().join("one"), root.join("pg_tblspc/16400")).unwrap();
    symlink(place.path().join("gone"), root.join("pg_tblspc/16401")).unwrap();
    let listing = list(&root, vec![]);
    assert!(kind_of(&listing, &format!("pg_tblspc/16400/{within}/5/16390")).is_some());
    assert!(kind_of(&listing, "pg_tblspc/16400/PG_17_1").is_none());
    let lacking = listing.lacking_tablespaces(&[16400, 16401, 16402, 16403], &within);
    assert_eq!(lacking, vec![16401, 16403]);
}

#[test]
fn files_outside_are_kept_and_a_stale_namesake_steps_aside() {
    let place = tempfile::tempdir().unwrap();
    let (root, etc) = (place.path().join("data"), place.path().join("etc"));
    write(&root.join("postgresql.conf"), "stale");
    write(&etc.join("postgresql.conf"), "in force");
    write(&etc.join("conf.d/10.conf"), "included");
    let outside = ["postgresql.conf", "conf.d/10.conf", "pg_hba.conf"]
        .map(|name| OutsideFile { original: etc.join(name), within: name.into() });
    let source = LocalSource::new(&root, &control(), outside.to_vec());
    let listing = source.list().unwrap();
    let read = |path: &str| {
        let entry = listing.entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap();
        let file = source.open(entry).unwrap().unwrap();
        let mut buffer = vec![0; 100];
        let len = file.read_at(&mut buffer, 0).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    assert_eq!(read("postgresql.conf"), "in force");
    assert_eq!(read("postgresql.conf.not-in-force"), "stale");
    assert_eq!(read("conf.d/10.conf"), "included");
    assert_eq!(kind_of(&listing, "conf.d"), Some(&SourceKind::Directory));
    assert!(kind_of(&listing, "pg_hba.conf").is_none());
    assert_eq!(listing.notes.len(), 2, "{:?}", listing.notes);
}
