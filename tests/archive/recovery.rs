//! Recovery by `restore_command`: to the last row, stopped while the repository is away, and never
//! ended early.

use pgrecall_testkit::postgres::{Cluster, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::site::{Site, switch};

/// A primary that has archived rows after a copy was made of it.
struct Case {
    // Dropped in this order: servers before the folder that they run in.
    copy: Cluster,
    primary: Cluster,
    site: Site,
    rows: String,
}

const COUNT: &str = "SELECT count(*), sum(n) FROM kept";

impl Case {
    fn new(major: u32) -> Self {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE kept (n int)");
        let copy = site.copy_of(&primary, "copy", "recovery.signal");
        let mut last = String::new();
        for n in 1..=3 {
            primary.psql(&format!("INSERT INTO kept VALUES ({n})"));
            last = switch(&primary);
        }
        site.wait_archived(&primary, &last);
        let rows = primary.psql(COUNT);
        Self { copy, primary, site, rows }
    }

    fn expect_recovered(&self) {
        self.copy.start();
        self.copy.wait_until_recovered();
        assert_eq!(self.copy.psql(COUNT), self.rows);
        assert_eq!(self.copy.psql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    }

    /// The server must end by itself, with nothing decided.
    fn expect_stopped(&self, said: &str) {
        let before = self.copy.log().len();
        self.copy.spawn();
        let status = self.copy.wait_exit();
        let log = self.copy.log().split_off(before);
        assert!(!status.success(), "{log}");
        assert!(log.contains(said), "no {said:?} in:\n{log}");
        assert!(!log.contains("archive recovery complete"), "{log}");
        assert!(!log.contains("selected new timeline"), "{log}");
        assert!(self.copy.data_dir().join("recovery.signal").exists());
    }
}

#[test]
fn a_copy_recovers_every_row_of_a_workload() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        let workload = Workload::start(&primary, &WorkloadOptions::new(2));
        workload.wait_commits(50);
        let copy = site.copy_of(&primary, "copy", "recovery.signal");
        workload.wait_commits(100);
        switch(&primary);
        workload.wait_commits(100);
        let log = workload.finish(&primary);
        let last = switch(&primary);
        site.wait_archived(&primary, &last);
        copy.start();
        copy.wait_until_recovered();
        let dump =
            format!("SELECT t::text FROM {} t ORDER BY 1", pgrecall_testkit::commit_log::TABLE);
        assert_eq!(copy.psql(&dump), primary.psql(&dump));
        assert!(log.acknowledged() >= 250);
    }
}

#[test]
fn recovery_stops_while_the_repository_is_away_and_resumes() {
    for major in majors() {
        let case = Case::new(major);
        case.site.cut_off();
        case.expect_stopped("the directory does not exist");
        case.site.bring_back();
        case.site.unmount();
        case.expect_stopped("no repository");
        case.site.bring_back();
        case.expect_recovered();
        assert_eq!(case.primary.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
    }
}

#[test]
fn recovery_stops_at_a_damaged_object_and_resumes_when_it_is_mended() {
    for major in majors() {
        let case = Case::new(major);
        case.primary.stop(Stop::Fast);
        let last = case.primary.data_dir().join("pg_wal");
        let mut names: Vec<String> = std::fs::read_dir(last)
            .expect("pg_wal")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.len() == 24 && case.site.object(name).is_some())
            .collect();
        names.sort();
        let object = case.site.object(&names[names.len() - 2]).expect("stored");
        let whole = std::fs::read(&object).expect("the object");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
            std::fs::write(&object, damaged).expect("damage");
            case.expect_stopped("is damaged");
        }
        std::fs::write(&object, whole).expect("mended");
        case.expect_recovered();
    }
}

#[test]
fn recovery_stops_when_the_program_itself_breaks() {
    for major in majors() {
        let case = Case::new(major);
        let good = case.site.restore_command();
        let config = case.site.config();
        let breaks = [
            (format!("PGRECALL_TEST_PANIC=late {good}"), "planted by"),
            (good.replace("wal fetch", "wal fecth"), "wrong command line"),
            (good.replace("wal fetch", "--no-such-flag wal fetch"), "wrong command line"),
            (good.replace(config.to_str().expect("UTF-8"), "/no/such/file"), "/no/such/file"),
            (good.replace("wal fetch", "--cluster other wal fetch"), "other"),
        ];
        for (command, said) in &breaks {
            case.copy.append_to("postgresql.conf", &format!("restore_command = '{command}'\n"));
            case.expect_stopped(said);
        }
        case.copy.append_to("postgresql.conf", &format!("restore_command = '{good}'\n"));
        case.expect_recovered();
    }
}
