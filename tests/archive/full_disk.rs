//! A full disk, on the repository's side and on the data directory's: a clear error, nothing half
//! done, and all is well once there is room.

use std::path::Path;

use pgrecall_testkit::postgres::{Cluster, Scratch, Stop};

use crate::site::{Run, Site, newest_major, own_all, switch};
use crate::small_disk::{SmallDisk, fill, limited};

fn stopped_with_segment(site: &Site) -> (Cluster, String) {
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE noise AS SELECT md5(random()::text) FROM generate_series(1, 60000)");
    let name = switch(&cluster);
    site.wait_archived(&cluster, &name);
    cluster.stop(Stop::Fast);
    (cluster, name)
}

#[test]
fn a_full_disk_under_the_data_directory_stops_recovery() {
    let site = Site::new();
    let (cluster, name) = stopped_with_segment(&site);
    let folder = site.scratch().path().join("small");
    let disk = SmallDisk::mount(&folder, 4);
    if disk.is_none() {
        site.scratch().dir("small");
    }
    let target = folder.join("RECOVERYXLOG");
    let fetch = |target: &Path| {
        let words = ["wal", "fetch", &name, target.to_str().expect("UTF-8")];
        site.pgrecall(cluster.data_dir(), &words)
    };
    let run = match disk {
        Some(_) => Run::of(fetch(&target)),
        None => Run::of(limited(&fetch(&target), 2048)),
    };
    assert!(run.expect_code(126).stderr.contains("cannot write"), "{}", run.stderr);
    let left = std::fs::read_dir(&folder).expect("the folder").count();
    assert_eq!(left, 0, "nothing half written is left");
    drop(disk);
    Run::of(fetch(&site.scratch().path().join("roomy"))).expect_code(0);
}

#[test]
fn a_full_disk_under_the_repository_is_told_and_harms_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("disk");
    let disk = SmallDisk::mount(&folder, 40);
    let site = Site::around(scratch, folder.join("repository"));
    // Bound anew, to be unmounted before the folder around it is removed.
    let disk = disk;
    let (cluster, name) = stopped_with_segment(&site);
    let object = site.object(&name).expect("stored");
    let needed = std::fs::metadata(&object).expect("its size").len();
    assert!(needed > 1 << 20, "a segment that does not shrink to nothing: {needed}");
    std::fs::remove_file(&object).expect("removed");
    let path = format!("pg_wal/{name}");
    let push = || site.pgrecall(cluster.data_dir(), &["wal", "push", &path]);
    let filler = folder.join("filler");
    let run = if disk.is_some() {
        fill(&filler, needed / 2);
        Run::of(push())
    } else {
        Run::of(limited(&push(), 512))
    };
    assert_eq!(run.code, Some(15), "{}", run.stderr);
    let told = run.stderr.contains("disk is full") || run.stderr.contains("larger than");
    assert!(told, "{}", run.stderr);
    assert!(site.object(&name).is_none(), "half an object is none");
    if disk.is_some() {
        std::fs::remove_file(&filler).expect("room again");
    }
    own_all(site.repository());
    Run::of(push()).expect_code(0);
    let words = ["wal", "fetch", &name, "pg_wal/RECOVERYXLOG"];
    site.run(cluster.data_dir(), &words).expect_code(0);
}
