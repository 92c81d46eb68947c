//! The commit log against PostgreSQL itself: a copy by `pg_basebackup`, WAL archived by `cp`,
//! recovery to every kind of target. What the log expects must be what PostgreSQL brings back,
//! and a row more, less or other must be noticed.

use std::path::Path;

use pgrecall_testkit::cluster_check;
use pgrecall_testkit::commit_log::{
    Attempt, CommitLog, Inclusion, Moment, Outcome, RowId, TABLE, Target, sql_timestamp,
};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Scratch, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

/// A primary with an archive and a base backup, and the log of what was written after it.
struct Scene {
    archive: Scratch,
    primary: Cluster,
    backups: Scratch,
    log: CommitLog,
    /// Where the server was when the backup had ended: a target lies beyond.
    backed_up: Moment,
}

impl Scene {
    fn new(major: u32) -> Self {
        let archive = Scratch::new();
        let command = format!("cp %p {}/%f", archive.path().display());
        let options = ClusterOptions::new(major).wal_segment_size_mib(1).archive_command(&command);
        let primary = Cluster::create(options);
        let backups = Scratch::new();
        let workload = Workload::start(&primary, &WorkloadOptions::new(4));
        workload.wait_commits(50);
        primary.base_backup(&backups.path().join("base"), &[]);
        let backed_up = workload.mark(&primary);
        workload.wait_commits(200);
        workload.restore_point(&primary, "half way");
        workload.wait_commits(200);
        let log = workload.finish(&primary);
        let closed = primary.psql("SELECT pg_walfile_name(pg_switch_wal())");
        primary.wait_until("all is archived", || archive.path().join(&closed).exists());
        Self { archive, primary, backups, log, backed_up }
    }

    /// Restores to what `settings` say and promotes.
    fn restore(&self, name: &str, settings: &[(&str, String)]) -> Cluster {
        let data_dir = self.backups.path().join(name);
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([self.backups.path().join("base"), data_dir.clone()])
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        recover(self.primary.major(), &data_dir, self.archive.path(), settings)
    }
}

fn recover(major: u32, dir: &Path, archive: &Path, settings: &[(&str, String)]) -> Cluster {
    let cluster = Cluster::adopt(major, dir);
    cluster.append_to("recovery.signal", "");
    cluster.override_setting("archive_mode", "off");
    cluster.override_setting("restore_command", &format!("cp {}/%f %p", archive.display()));
    cluster.override_setting("recovery_target_action", "promote");
    for (name, value) in settings {
        cluster.override_setting(name, value);
    }
    cluster.start();
    cluster.wait_until_recovered();
    cluster
}

fn recovery_settings(target: &Target) -> Vec<(&'static str, String)> {
    let (name, value, inclusion) = match target {
        Target::Time(time, i) => ("recovery_target_time", sql_timestamp(*time), *i),
        Target::Lsn(lsn, i) => ("recovery_target_lsn", lsn.to_string(), *i),
        Target::Xid(xid, i) => ("recovery_target_xid", xid.to_string(), *i),
        Target::Name(name) => ("recovery_target_name", name.clone(), Inclusion::Inclusive),
        Target::Latest => return Vec::new(),
        Target::Before(_) => panic!("no setting of PostgreSQL's"),
    };
    let inclusive = if inclusion == Inclusion::Inclusive { "on" } else { "off" };
    vec![(name, value), ("recovery_target_inclusive", inclusive.to_owned())]
}

fn targets(scene: &Scene) -> Vec<Target> {
    use Inclusion::{Exclusive, Inclusive};
    let mut commits = scene.log.commits();
    commits.retain(|attempt| attempt.record.unwrap().start > scene.backed_up.lsn);
    let chosen: &Attempt = commits[commits.len() * 3 / 5];
    let record = chosen.record.unwrap();
    let xid = chosen.xid.unwrap();
    let Outcome::Acknowledged { after: Some(after), .. } = chosen.outcome else {
        panic!("{chosen:?}")
    };
    vec![
        Target::Time(record.time, Inclusive),
        Target::Time(record.time, Exclusive),
        Target::Lsn(record.start, Inclusive),
        Target::Lsn(record.start, Exclusive),
        // The end of the commit record, or a little later: the next record is replayed as well.
        Target::Lsn(after.lsn, Inclusive),
        Target::Xid(xid, Inclusive),
        Target::Xid(xid, Exclusive),
        Target::Name("half way".to_owned()),
        Target::Latest,
    ]
}

#[test]
fn recovery_to_each_kind_of_target_gives_what_the_log_expects() {
    for major in majors() {
        let scene = Scene::new(major);
        scene.log.assert_equals(&scene.primary, &Target::Latest);
        for (number, target) in targets(&scene).iter().enumerate() {
            let settings = recovery_settings(target);
            let restored = scene.restore(&format!("restored{number}"), &settings);
            scene.log.assert_equals(&restored, target);
            let expected = scene.log.expected_at(target);
            assert!(expected.undetermined.is_empty());
            assert!(expected.must_have.len() > 50 && !expected.must_not_have.is_empty());
        }
    }
}

#[test]
fn another_target_than_the_one_reached_is_noticed() {
    let scene = Scene::new(majors()[0]);
    let targets = targets(&scene);
    let restored = scene.restore("restored", &recovery_settings(&targets[5]));
    scene.log.assert_equals(&restored, &targets[5]);
    for other in [&targets[6], &targets[7], &targets[8]] {
        assert!(scene.log.compare(&restored, other).is_err(), "{other:?}");
    }
}

#[test]
fn a_row_more_less_or_other_is_noticed() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    let workload = Workload::start(&cluster, &WorkloadOptions::new(2));
    workload.wait_commits(30);
    let log = workload.finish(&cluster);
    log.assert_equals(&cluster, &Target::Latest);
    let some: RowId = *log.expected_at(&Target::Latest).must_have.keys().next().unwrap();
    for (damage, kind) in [
        (format!("DELETE FROM {TABLE} WHERE id = {some}"), "missing: 1 rows"),
        (format!("UPDATE {TABLE} SET version = version + 1 WHERE id = {some}"), "different: 1"),
        (format!("UPDATE {TABLE} SET payload = 'x' WHERE id = {some}"), "Damaged"),
        (format!("INSERT INTO {TABLE} VALUES (-1, 0, 1, 0, '')"), "unexpected: 1 rows"),
    ] {
        let table = TABLE;
        cluster.psql(&format!("CREATE TABLE kept AS TABLE {table}; {damage}"));
        let difference = log.compare(&cluster, &Target::Latest).unwrap_err().to_string();
        assert!(difference.contains(kind), "{damage}: {difference}");
        cluster.psql(&format!("TRUNCATE {table}; INSERT INTO {table} TABLE kept; DROP TABLE kept"));
        log.assert_equals(&cluster, &Target::Latest);
    }
}

#[test]
fn commits_in_flight_at_a_crash_are_settled_by_the_wal() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let workload = Workload::start(&cluster, &WorkloadOptions::new(6));
        for how in [Stop::Kill, Stop::Immediate] {
            workload.wait_commits(100);
            cluster.stop(how);
            cluster.start();
        }
        workload.wait_commits(50);
        let log = workload.finish(&cluster);
        assert!(log.expected_at(&Target::Latest).undetermined.is_empty());
        log.assert_equals(&cluster, &Target::Latest);
    }
}

#[test]
fn a_branch_goes_on_on_its_own_timeline() {
    for major in majors() {
        let scene = Scene::new(major);
        let target = &targets(&scene)[0];
        let restored = scene.restore("restored", &recovery_settings(target));
        let branch = scene.log.branch_at(target);
        let workload = Workload::go_on_from(&restored, &branch, &WorkloadOptions::new(3));
        workload.wait_commits(100);
        workload.pause();
        let quiet = workload.mark(&restored);
        let acknowledged = workload.acknowledged();
        workload.go_on();
        workload.wait_commits(20);
        let branch = workload.finish(&restored);
        branch.assert_equals(&restored, &Target::Latest);
        let at_pause = branch.expected_at(&Target::Before(quiet.lsn));
        let until = |a: &&&Attempt| a.record.unwrap().start < quiet.lsn;
        assert_eq!(branch.commits().iter().filter(until).count() as u64, acknowledged);
        assert_eq!(at_pause, branch.expected_at(&Target::Time(quiet.time, Inclusion::Inclusive)));
        assert!(scene.log.compare(&restored, &Target::Latest).is_err());
    }
}

#[test]
fn checkers_pass_a_sound_cluster_and_see_damage() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let workload = Workload::start(&cluster, &WorkloadOptions::new(2));
        workload.wait_commits(100);
        workload.finish(&cluster);
        cluster.psql("VACUUM (FREEZE)");
        cluster_check::assert_sound(&cluster);

        let copy = cluster.scratch().path().join("backup");
        cluster.base_backup(&copy, &[]);
        cluster_check::verify_backup(cluster.home(), &copy, &[]).unwrap();
        let heap = cluster.psql(&format!("SELECT pg_relation_filepath('{TABLE}')"));
        let index = cluster.psql(&format!("SELECT pg_relation_filepath('{TABLE}_pkey')"));
        flip_a_byte(&copy.join(&heap));
        let failure = cluster_check::verify_backup(cluster.home(), &copy, &[]).unwrap_err();
        assert!(failure.findings.contains(&heap), "{failure}");

        cluster.stop(Stop::Fast);
        cluster_check::checksums(cluster.home(), cluster.data_dir()).unwrap();
        flip_a_byte(&cluster.data_dir().join(&heap));
        let failure = cluster_check::checksums(cluster.home(), cluster.data_dir()).unwrap_err();
        assert!(failure.findings.contains(&heap), "{failure}");
        flip_a_byte(&cluster.data_dir().join(&heap));

        stale_files_are_seen(&cluster, &[&format!("{heap}_vm"), &index]);
    }
}

/// Puts files back as they were before an update of the table that they belong to.
fn stale_files_are_seen(cluster: &Cluster, files: &[&str]) {
    let paths = files.iter().map(|file| cluster.data_dir().join(file));
    let old: Vec<_> = paths.map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    cluster.start();
    cluster.psql(&format!("UPDATE {TABLE} SET client = client + 1"));
    cluster_check::assert_sound(cluster);
    cluster.stop(Stop::Fast);
    for (bytes, path) in old {
        std::fs::write(path, bytes).unwrap();
    }
    cluster.start();
    let failure = cluster_check::amcheck(cluster).unwrap_err();
    assert!(failure.findings.contains("_pkey"), "{failure}");
    let failure = cluster_check::visibility(cluster).unwrap_err();
    assert!(failure.findings.contains("all-visible"), "{failure}");
    assert!(failure.findings.contains("all-frozen"), "{failure}");
}

fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8000] ^= 0xFF;
    std::fs::write(path, bytes).unwrap();
}
