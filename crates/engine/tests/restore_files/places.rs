//! Places outside of the data directory: only where somebody said.

use std::cell::Cell;
use std::path::Path;

use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::layout::Locations;
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_repo::format::table::EntryKind;
use tempfile::TempDir;

use crate::shop::{Maker, SYSTEM, Shop, control, entry, options, run, session, simple_backup};

#[tokio::test]
async fn tablespaces_and_pg_wal_go_where_the_user_says() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let links = |pg_wal: &str| {
        vec![
            entry("pg_tblspc/16384", 0o777, EntryKind::Link(b"/mnt/fast".to_vec())),
            entry("pg_tblspc/16384/PG_17_202406281", 0o700, EntryKind::Directory),
            entry("pg_wal", 0o777, EntryKind::Link(pg_wal.as_bytes().to_vec())),
        ]
    };
    let manifest = simple_backup(&cluster, links("/mnt/wal")).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let hints = error.hints().join(" ");
    assert!(hints.contains("--tablespace-map /mnt/fast=NEW"), "{hints}");
    assert!(hints.contains("--waldir"), "{hints}");
    assert!(!options.dir.exists(), "nothing was written");
    let (space, wal) = (scratch.path().join("space"), scratch.path().join("wal"));
    options.places.tablespaces = vec![("/mnt/fast".into(), options.dir.join("inside"))];
    options.places.waldir = Some(wal.clone());
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "a tablespace within the data directory");
    options.places.tablespaces = vec![("/mnt/fast".into(), space.clone())];
    std::fs::create_dir(&space).unwrap();
    std::fs::write(space.join("precious"), b"another server's").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    std::fs::remove_file(space.join("precious")).unwrap();
    run(&cluster, &manifest, &options).await.unwrap();
    let link = |path: &str| std::fs::read_link(options.dir.join(path)).unwrap();
    assert_eq!(link("pg_tblspc/16384"), space);
    assert_eq!(link("pg_wal"), wal);
    assert!(space.join("PG_17_202406281").is_dir() && wal.join("archive_status").is_dir());
    let map = std::fs::read_to_string(options.dir.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("16384 {}\n", space.display()));
    // And once more over it, with another cluster's folder in the tablespace (as pg_upgrade leaves
    // them), and WAL behind the link.
    options.existing = Existing::Delta;
    std::fs::create_dir(space.join("PG_15_202209061")).unwrap();
    std::fs::write(space.join("PG_15_202209061/1"), b"another cluster's").unwrap();
    std::fs::write(space.join("PG_17_202406281/stale"), b"ours").unwrap();
    std::fs::write(wal.join("000000010000000000000009"), b"the last commits").unwrap();
    let done = run(&cluster, &manifest, &options).await.unwrap();
    assert_eq!(link("pg_tblspc/16384"), space);
    assert!(space.join("PG_15_202209061/1").exists());
    assert!(!space.join("PG_17_202406281/stale").exists());
    let old = done.old_wal.unwrap().at;
    assert_eq!(std::fs::read(old.join("000000010000000000000009")).unwrap(), b"the last commits");
    assert_eq!(link("pg_wal"), wal);
    assert!(wal.join("archive_status").is_dir());
}

#[tokio::test]
async fn original_places_are_made_and_never_written_over() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let original = scratch.path().join("etc/postgresql/17/main/pg_hba.conf");
    let wal = scratch.path().join("mnt/wal");
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let pieces = maker.small_pieces(b"local all all trust\n");
    let control = maker.small(&control(SYSTEM));
    let version = maker.small(b"17\n");
    let bytes = |path: &Path| path.to_string_lossy().into_owned().into_bytes();
    let entries = vec![
        entry("PG_VERSION", 0o600, version),
        entry("global", 0o700, EntryKind::Directory),
        entry("global/pg_control", 0o600, control),
        entry("pg_hba.conf", 0o640, EntryKind::Outside(bytes(&original), pieces)),
        entry("pg_wal", 0o777, EntryKind::Link(bytes(&wal))),
        entry("pg_wal/archive_status", 0o700, EntryKind::Directory),
    ];
    let manifest = maker.finish(entries).await;
    let mut options = options(&scratch.path().join("data"));
    options.places.locations = Locations::Original;
    std::fs::create_dir_all(original.parent().unwrap()).unwrap();
    std::fs::write(&original, b"a live server's").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().contains("pg_hba.conf"), "{error}");
    assert_eq!(std::fs::read(&original).unwrap(), b"a live server's");
    std::fs::remove_dir_all(scratch.path().join("etc")).unwrap();
    run(&cluster, &manifest, &options).await.unwrap();
    assert_eq!(std::fs::read(&original).unwrap(), b"local all all trust\n");
    assert_eq!(std::fs::read_link(options.dir.join("pg_wal")).unwrap(), wal);
    assert!(wal.join("archive_status").is_dir());
}

#[tokio::test]
async fn a_link_in_the_way_is_refused_while_all_is_as_it_was() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let mut options = options(&dir);
    run(&cluster, &manifest, &options).await.unwrap();
    let elsewhere = scratch.path().join("elsewhere");
    std::fs::rename(dir.join("base/1"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.join("base/1")).unwrap();
    options.existing = Existing::Delta;
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(dir.join("global/pg_control").exists() && !dir.join(MARKER).exists());
}

#[tokio::test]
async fn files_from_outside_come_in_unless_the_original_places_are_asked_for() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let original = scratch.path().join("etc/pg_hba.conf");
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let pieces = maker.small_pieces(b"local all all trust\n");
    let bytes = original.to_string_lossy().into_owned().into_bytes();
    let control = maker.small(&control(SYSTEM));
    let conf = format!("data_directory = '/old'\nhba_file = '{}'\n", original.display());
    let conf = maker.small_pieces(conf.as_bytes());
    let version = maker.small(b"17\n");
    let entries = vec![
        entry("PG_VERSION", 0o600, version),
        entry("global", 0o700, EntryKind::Directory),
        entry("global/pg_control", 0o600, control),
        entry("pg_hba.conf", 0o640, EntryKind::Outside(bytes, pieces)),
        entry("postgresql.conf", 0o644, EntryKind::Outside(b"/etc/postgresql.conf".to_vec(), conf)),
    ];
    let manifest = maker.finish(entries).await;
    let options = options(&scratch.path().join("data"));
    run(&cluster, &manifest, &options).await.unwrap();
    assert!(!original.exists());
    let hba = std::fs::read(options.dir.join("pg_hba.conf")).unwrap();
    assert_eq!(hba, b"local all all trust\n");
    let conf = std::fs::read_to_string(options.dir.join("postgresql.conf")).unwrap();
    let dir = options.dir.display();
    let end = format!("data_directory = '{dir}'\nhba_file = '{dir}/pg_hba.conf'\n");
    assert!(conf.ends_with(&end), "{conf}");
}

#[tokio::test]
async fn folders_of_nothing_but_files_that_go_back_to_where_they_were_stay_away() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let etc = scratch.path().join("etc");
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let mut outside = |name: &str| {
        let pieces = maker.small_pieces(b"work_mem = '7MB'\n");
        let original = etc.join(name).to_string_lossy().into_owned().into_bytes();
        entry(name, 0o640, EntryKind::Outside(original, pieces))
    };
    let mut entries =
        ["conf.d/10.conf", "conf.d/more/20.conf", "mixed/a.conf"].map(&mut outside).to_vec();
    for folder in ["conf.d", "conf.d/more", "empty", "global", "mixed"] {
        entries.push(entry(folder, 0o700, EntryKind::Directory));
    }
    entries.push(entry("PG_VERSION", 0o600, maker.small(b"17\n")));
    entries.push(entry("global/pg_control", 0o600, maker.small(&control(SYSTEM))));
    entries.push(entry("mixed/b", 0o600, maker.small(b"b")));
    entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let manifest = maker.finish(entries).await;
    let mut options = options(&scratch.path().join("data"));
    options.places.locations = Locations::Original;
    run(&cluster, &manifest, &options).await.unwrap();
    assert!(etc.join("conf.d/more/20.conf").is_file());
    assert!(!options.dir.join("conf.d").exists(), "nothing of it lay there");
    assert!(options.dir.join("empty").is_dir(), "that one did");
    assert!(options.dir.join("mixed/b").is_file() && etc.join("mixed/a.conf").is_file());
}

/// The table's own decoder refuses `..` and absolute paths; a link is the third way out.
#[tokio::test]
async fn nothing_is_written_through_a_link_out_of_the_directory() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = outside.to_string_lossy().into_owned().into_bytes();
    let mut link_only = vec![entry("base/9", 0o777, EntryKind::Link(target))];
    let manifest = simple_backup(&cluster, link_only.clone()).await;
    let options_of = |name: &str, locations| {
        let mut options = options(&scratch.path().join(name));
        options.places.locations = locations;
        options
    };
    let refused = run(&cluster, &manifest, &options_of("a", Locations::AsTold)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let file = maker.small(b"evil");
    link_only.push(entry("base", 0o700, EntryKind::Directory));
    link_only.push(entry("base/9/passwd", 0o600, file));
    let manifest = maker.finish(link_only).await;
    for locations in [Locations::AsTold, Locations::Original] {
        let refused = run(&cluster, &manifest, &options_of("b", locations)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

/// Whoever has the keys can write any file table.
#[tokio::test]
async fn paths_in_a_file_table_that_lead_out_are_refused_before_anything_is_written() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let absolute = format!("{}/evil", scratch.path().display());
    // A sound path, what is stored of it, and what stands there instead.
    let long = "a".repeat(absolute.len());
    let cases = [
        ("aa/evil", "aa/evil", "../evil"),
        (&long, &long, &absolute),
        ("base/1/aa/aa/aa/evil", "/aa/aa/aa/evil", "/../../../evil"),
        // Together with what it shares with the path before, `base/.-`.
        ("base/.x/zz/evil", "x/zz/evil", "./../evil"),
    ];
    for (path, stored, hostile) in cases {
        assert_eq!(stored.len(), hostile.len());
        let session = session(&cluster).await;
        let mut maker = Maker::new(&session);
        let mut entries = vec![
            entry("PG_VERSION", 0o600, maker.small(b"17\n")),
            entry("global", 0o700, EntryKind::Directory),
            entry("global/pg_control", 0o600, maker.small(&control(SYSTEM))),
            entry(path, 0o600, maker.small(b"evil")),
        ];
        for sound in ["base", "base/.-", "base/1"] {
            entries.push(entry(sound, 0o700, EntryKind::Directory));
        }
        let changed = Cell::new(0);
        let spoil = |mut plain: Vec<u8>| {
            let mut places = plain.windows(stored.len());
            if let Some(at) = places.position(|place| place == stored.as_bytes()) {
                plain[at..at + stored.len()].copy_from_slice(hostile.as_bytes());
                changed.set(changed.get() + 1);
            }
            plain
        };
        let manifest = maker.finish_with(entries, spoil).await;
        assert_eq!(changed.get(), 1, "{hostile}");
        for locations in [Locations::AsTold, Locations::Original] {
            let mut options = options(&scratch.path().join("data"));
            options.places.locations = locations;
            let error = run(&cluster, &manifest, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{hostile}: {error}");
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let told = format!("{error}: {cause:?}");
            assert!(told.contains("a path in the file table"), "{hostile}: {told}");
            let written: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
            assert!(written.is_empty(), "{hostile}: {written:?}");
        }
    }
}
