//! A full disk, on the repository's side and on the data directory's: a clear error, nothing half
//! done, and all is well once there is room.
//!
//! Root mounts a small file system; others limit the size of the files that the program may write.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, Scratch, ServerUser, Stop, as_server_user};

use crate::site::{Run, Site, newest_major, own_all, switch};

/// A file system of a few MiB, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size_mib: u32) -> Self {
        std::fs::create_dir_all(at).expect("the mount point");
        let size = format!("size={size_mib}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status()
            .expect("mount runs");
        assert!(status.success(), "root can mount a tmpfs");
        ServerUser::current().own(at);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The same command with files limited to so many KiB, and the signal for that ignored.
fn limited(command: &Command, kib: u32) -> Command {
    let mut shell = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    as_server_user(shell)
}

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
    let disk = is_root().then(|| SmallDisk::mount(&folder, 4));
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
    let disk = is_root().then(|| SmallDisk::mount(&folder, 40));
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

/// Leaves about so many bytes on the disk.
fn fill(path: &Path, leave_bytes: u64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("a filler");
    let block = vec![7_u8; 64 << 10];
    while file.write_all(&block).is_ok() {}
    drop(file);
    let size = std::fs::metadata(path).expect("its size").len();
    let file = std::fs::File::options().write(true).open(path).expect("the filler");
    file.set_len(size - leave_bytes.min(size)).expect("shorter");
}
