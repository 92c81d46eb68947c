//! Room on a disk that is quite full: what docs/retention.md prescribes for it is done, with nothing
//! left and with a megabyte.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use pgrecall_testkit::postgres::{Cluster, Scratch};

use crate::ground::{back_up, objects, try_backup};
use crate::site::{Run, Site, newest_major, switch};
use crate::small_disk::{SmallDisk, fill, limited};

const MEGABYTE: u64 = 1 << 20;

const ROWS: &str = "SELECT count(*), min(step), max(step) FROM steps";

/// A repository on a disk of its own, and how much is left there. Without a disk of its own files
/// that are larger than that cannot be written.
struct Ground {
    /// Before the site: it is unmounted before the folder around it is removed.
    disk: Option<SmallDisk>,
    site: Site,
    filler: PathBuf,
    left: u64,
}

impl Ground {
    fn new() -> Self {
        let scratch = Scratch::new();
        let folder = scratch.path().join("disk");
        let disk = SmallDisk::mount(&folder, 160);
        let site = Site::around(scratch, folder.join("repository"));
        Self { disk, site, filler: folder.join("filler"), left: u64::MAX }
    }

    fn leave(&mut self, bytes: u64) {
        self.left = bytes;
        if self.disk.is_some() {
            fill(&self.filler, bytes);
        }
    }

    /// There is room again.
    fn free(&mut self) {
        self.left = u64::MAX;
        if self.disk.is_some() {
            std::fs::remove_file(&self.filler).expect("the filler");
        }
    }

    fn run(&self, cluster: &Cluster, words: &[&str]) -> Run {
        let pgdata = cluster.data_dir().to_string_lossy().into_owned();
        let words = [words, &["--pgdata", &pgdata]].concat();
        let command = self.site.pgrecall(Path::new("/"), &words);
        if self.disk.is_some() || self.left == u64::MAX {
            return Run::of(command);
        }
        Run::of(limited(&command, u32::try_from(self.left / 1024).expect("a small limit")))
    }

    /// There is no room, which is told, and every object is as it was.
    #[track_caller]
    fn no_room(&self, cluster: &Cluster, words: &[&str]) {
        let before = contents(&self.site);
        let run = self.run(cluster, words);
        assert_eq!(run.code, Some(15), "{words:?}: {}", run.stderr);
        let told = run.stderr.contains("the disk is full") || run.stderr.contains("larger than");
        assert!(told, "{words:?}: {}", run.stderr);
        let hinted = run.stderr.contains("Make room") || run.stderr.contains("ulimit -f");
        assert!(hinted, "{words:?}: {}", run.stderr);
        assert!(contents(&self.site) == before, "{words:?} has changed what is stored");
        assert!(objects(&self.site, ".tmp").is_empty(), "{words:?} has left half an object");
    }
}

/// Every file of the repository by its name, with a hash of what is in it.
fn contents(site: &Site) -> BTreeMap<PathBuf, u64> {
    let hashed = |path: PathBuf| {
        let mut hasher = DefaultHasher::new();
        std::fs::read(&path).expect("an object").hash(&mut hasher);
        (path, hasher.finish())
    };
    ["domains", "clusters", "keys"]
        .iter()
        .flat_map(|part| objects(site, part))
        .map(hashed)
        .collect()
}

fn bytes(site: &Site, below: &str) -> u64 {
    objects(site, below).iter().map(|path| path.metadata().expect("an object").len()).sum()
}

/// Some megabytes that do not compress, in the table and in the WAL, in place of those of before.
fn change(cluster: &Cluster, step: u32) {
    cluster.psql(&format!(
        "BEGIN; INSERT INTO steps VALUES ({step}); DROP TABLE IF EXISTS bulk;
         CREATE TABLE bulk WITH (autovacuum_enabled = off) AS
           SELECT sha512(('{step}:' || i)::bytea) AS v FROM generate_series(1, 100000) i; COMMIT"
    ));
}

fn with_backups(site: &Site) -> Cluster {
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE steps (step int)");
    // It stays, beside what goes, in the first backup's pack.
    cluster.psql(
        "CREATE TABLE kept AS SELECT sha512(i::text::bytea) AS v FROM generate_series(1, 20000) i",
    );
    for step in 1..=3 {
        change(&cluster, step);
        // One thread puts what stays and what goes into one pack.
        try_backup(site, &cluster, &["--fast-checkpoint", "--threads", "1"]).expect_code(0);
    }
    site.wait_archived(&cluster, &switch(&cluster));
    cluster
}

/// What only reads goes on, where nothing can be written too, and the rows come back.
fn all_is_read(ground: &Ground, cluster: &Cluster, last: u32) {
    for words in [&["list"][..], &["plan"], &["verify", "--read-data"]] {
        ground.run(cluster, words).expect_code(0);
    }
    let dir = ground.site.scratch().path().join(format!("copy-{last}"));
    let words = ["restore", dir.to_str().expect("UTF-8"), "--as", "copy", "--to-latest"];
    ground.site.run(Path::new("/"), &words).expect_code(0);
    let copy = Cluster::adopt(newest_major(), &dir);
    copy.start();
    copy.wait_until_recovered();
    assert_eq!(copy.psql(ROWS), format!("{last}|1|{last}"));
}

/// WAL is kept by the server while there is no room; gives the segment that waits.
fn archiving_waits(ground: &Ground, cluster: &Cluster, step: u32) -> String {
    change(cluster, step);
    let name = switch(cluster);
    if ground.disk.is_some() {
        cluster.wait_until("the archiver is told", || cluster.log().contains("the disk is full"));
        assert!(ground.site.object(&name).is_none(), "{name} is not stored");
    }
    name
}

#[test]
fn a_megabyte_on_a_full_disk_is_enough_to_expire_and_collect_and_without_it_nothing_is_lost() {
    let mut ground = Ground::new();
    let cluster = with_backups(&ground.site);
    let expire = ["expire", "--keep-last", "1"];

    ground.leave(0);
    ground.no_room(&cluster, &expire);
    ground.run(&cluster, &["gc"]).expect_code(0);
    all_is_read(&ground, &cluster, 3);
    let waiting = archiving_waits(&ground, &cluster, 4);

    ground.leave(MEGABYTE);
    let (packs, wal) = (bytes(&ground.site, "packs"), bytes(&ground.site, "wal"));
    ground.run(&cluster, &expire).expect_code(0);
    assert_eq!(objects(&ground.site, "backups").len(), 1);
    assert!(bytes(&ground.site, "wal") + 10 * MEGABYTE < wal, "WAL is gone at once");
    // The archiver looks again when there is more for it.
    switch(&cluster);
    ground.site.wait_archived(&cluster, &waiting);

    ground.leave(0);
    ground.no_room(&cluster, &["gc"]);
    ground.no_room(&cluster, &["gc", "--rewrite-below", "0"]);
    ground.leave(MEGABYTE);
    // It has more than that to copy.
    ground.no_room(&cluster, &["gc"]);
    ground.run(&cluster, &["gc", "--rewrite-below", "0"]).expect_code(0);
    ground.run(&cluster, &["gc", "--rewrite-max", "512KiB"]).expect_code(0);
    let left = bytes(&ground.site, "packs");
    assert!(left + 5 * MEGABYTE < packs, "{left} of {packs} bytes of packs are left");

    // What has become free is all there is for it.
    cluster.psql("INSERT INTO steps VALUES (5)");
    back_up(&ground.site, &cluster);
    ground.free();
    ground.run(&cluster, &["gc"]).expect_code(0);
    ground.site.wait_archived(&cluster, &switch(&cluster));
    all_is_read(&ground, &cluster, 5);
}
