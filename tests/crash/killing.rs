//! Killing, looking, and going on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pgrecall_testkit::commit_log::Target;
use pgrecall_testkit::postgres::Cluster;
use pgrecall_testkit::workload::{Workload, WorkloadOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fresh::Restored;
use crate::ground::{json, objects, output};
use crate::site::{Run, Site, newest_major, switch};
use crate::staged::{self, Ended, Stage, Staged};
use crate::victim::{Dice, Victim, process_with};

const KILLS: u64 = 20;

/// A server keeps all WAL of its life for the oracle: after so many kills a new one begins.
const KILLS_OF_A_SERVER: u64 = 40;

/// So many kills are of every kind of command.
const KILLS_OF_ALL: u64 = 300;

/// As long as nobody knows how long a command takes it is killed within this, which is enough for a
/// restore: the shorter ones are let live once, and told apart.
const UNKNOWN: Duration = Duration::from_secs(2);

/// Kills after which everything is read.
const KILLS_UNTIL_READ: u64 = 7;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

#[expect(clippy::print_stderr, reason = "how far it is, and what to give to see it again")]
fn tell(line: &str) {
    eprintln!("{line}");
}

#[test]
fn nothing_that_was_acknowledged_is_lost_whatever_is_killed() {
    let seed = number("PGRECALL_TEST_KILL_SEED").unwrap_or(1);
    let mut left = number("PGRECALL_TEST_KILLS").unwrap_or(KILLS);
    let mut killed: HashMap<Victim, u64> = HashMap::new();
    for server in 0.. {
        if left == 0 {
            break;
        }
        let kills = left.min(KILLS_OF_A_SERVER);
        tell(&format!("server {server}, seed {}, {kills} kills", seed + server));
        let mut scene = Scene::new(Dice::new(seed + server));
        while scene.killed.values().sum::<u64>() < kills {
            scene.strike();
        }
        for (victim, times) in scene.end() {
            *killed.entry(victim).or_default() += times;
        }
        left -= kills;
    }
    tell(&format!("killed: {killed:?}"));
    let all = number("PGRECALL_TEST_KILLS").is_some_and(|kills| kills >= KILLS_OF_ALL);
    assert!(!all || killed.len() == Victim::KINDS, "some were never killed: {killed:?}");
}

/// A server under load, a repository, and what is known of them.
struct Scene {
    dice: Dice,
    site: Site,
    primary: Cluster,
    workload: Workload,
    /// How long each command took when it was let live.
    took: HashMap<Victim, Duration>,
    killed: HashMap<Victim, u64>,
    /// Commands so far, for names of files.
    strikes: u64,
    /// A segment that was archived a moment ago.
    segment: String,
}

impl Scene {
    fn new(dice: Dice) -> Self {
        let site = Site::new();
        let primary = site.primary(newest_major());
        let workload = Workload::start(&primary, &WorkloadOptions::new(2));
        workload.wait_commits(20);
        let segment = switch(&primary);
        site.wait_archived(&primary, &segment);
        let mut scene = Self {
            dice,
            site,
            primary,
            workload,
            took: HashMap::new(),
            killed: HashMap::new(),
            strikes: 0,
            segment,
        };
        output(&scene.site, &scene.primary, &["backup", "--fast-checkpoint"]);
        // A table of which the next backups copy some: there is something to interrupt.
        scene.primary.psql("CREATE TABLE bulk AS SELECT i, sha512(i::text::bytea) AS v FROM generate_series(1, 100000) i");
        scene.strike_with(Victim::Backup, None);
        scene
    }

    /// Kills one command, or finds it done, and looks at what there is.
    fn strike(&mut self) {
        let victim = Victim::draw(&mut self.dice);
        let longest = self.took.get(&victim).copied().unwrap_or(UNKNOWN);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let moment = Duration::from_micros(self.dice.below(micros * 11 / 10));
        if victim == Victim::Backup {
            let from = self.dice.below(100_000);
            let change = format!("UPDATE bulk SET v = sha512(v) WHERE i % 50 = 0 AND i > {from}");
            self.primary.psql(&change);
        }
        self.strike_with(victim, Some(moment));
        let killed: u64 = self.killed.values().sum();
        if self.strikes.is_multiple_of(KILLS_UNTIL_READ) {
            tell(&format!("{killed} killed: reading everything"));
            output(&self.site, &self.primary, &["verify", "--read-data"]);
        }
    }

    fn strike_with(&mut self, victim: Victim, moment: Option<Duration>) {
        self.strikes += 1;
        let before = self.backups();
        if self.end_of(victim, moment) == End::Killed {
            *self.killed.entry(victim).or_default() += 1;
        }
        let after = self.backups();
        let mut wanted = before.as_slice();
        if victim.expires() {
            wanted = wanted.get(before.len().saturating_sub(2)..).unwrap_or_default();
        }
        for id in wanted {
            assert!(after.contains(id), "{id} is gone after {victim:?} ({moment:?})");
        }
        let quarantine = self.site.repository().join("quarantine");
        assert!(!quarantine.exists(), "something was damaged after {victim:?} ({moment:?})");
    }

    /// The backups that are listed, the oldest first.
    fn backups(&self) -> Vec<String> {
        let listed = json(&self.site, &self.primary, &["list"]);
        let rows = listed["clusters"][0]["backups"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| text(&row["id"])).collect()
    }

    fn end_of(&mut self, victim: Victim, moment: Option<Duration>) -> End {
        if victim == Victim::Push {
            return self.kill_push();
        }
        if victim == Victim::Repair {
            // Something to mend.
            let lost = objects(&self.site, "index").into_iter().next();
            lost.into_iter().for_each(|lost| std::fs::remove_file(lost).expect("it goes"));
        }
        if victim == Victim::Fetch {
            // Earlier ones may have expired.
            self.segment = switch(&self.primary);
            self.site.wait_archived(&self.primary, &self.segment);
        }
        let prepared = self.prepared(victim);
        let words: Vec<&str> = prepared.words.iter().map(String::as_str).collect();
        let site = prepared.stage.site(&self.site);
        let mut command = site.pgrecall(Path::new("/"), &words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let child = command.spawn().expect("pgrecall runs");
        let end = killed_after(child, began, moment);
        if let End::Over(run, took) = &end {
            let longest = self.took.entry(victim).or_default();
            *longest = (*took).max(*longest);
            assert!(
                run.code.is_some_and(|code| prepared.ends_with.contains(&code)),
                "{victim:?}: {:?}: {}",
                run.code,
                run.stderr
            );
        }
        self.look_at(victim, prepared, &end);
        end
    }

    /// The words of a command, and what it is to work on.
    fn prepared(&self, victim: Victim) -> Prepared {
        let place = self.site.scratch().path().join(format!("{victim:?}-{}", self.strikes));
        let data = self.primary.data_dir().to_string_lossy().into_owned();
        let to = place.to_string_lossy().into_owned();
        let on_cluster = |words: &[&str]| {
            let cluster = ["--pgdata", data.as_str()];
            Prepared::of([words, &cluster].concat(), place.clone())
        };
        match victim {
            Victim::Backup => on_cluster(&["backup", "--fast-checkpoint"]),
            Victim::Push => unreachable!("the archiver runs it"),
            Victim::Fetch => on_cluster(&["wal", "fetch", &self.segment, &to]),
            Victim::Expire => on_cluster(&["expire", "--keep-last", "2"]),
            Victim::Gc => on_cluster(&["gc"]),
            Victim::Repair => on_cluster(&["repair", "--yes"]),
            Victim::Verify => on_cluster(&["verify", "--read-data"]),
            Victim::Restore | Victim::RestoreAgain => {
                on_cluster(&["restore", &to, "--as", "copy", "--to-immediate"])
            }
            Victim::Delta => Prepared::on(staged::delta(&self.site, &self.primary, &place), place),
            Victim::Salvage => Prepared::on(staged::salvage(&self.primary, &place), place),
            Victim::Resolve => {
                Prepared::on(staged::resolve(&self.site, &self.primary, &place), place)
            }
            Victim::EndDead => Prepared::on(staged::end_dead(&self.site, &self.primary), place),
            Victim::GiveUp => Prepared::on(staged::give_up(&self.site, &self.primary), place),
            Victim::Shred => {
                let name = format!("shred-{}", self.strikes);
                Prepared::on(staged::shred(&self.site, &self.primary, &name), place)
            }
            Victim::Check => on_cluster(&["check"]),
            Victim::Read => on_cluster(&["plan", "--to-latest"]),
            Victim::Rotate => on_cluster(&["key", "rotate", "--yes"]),
            Victim::AddKey => on_cluster(&["key", "add", "--new-key-file", &to]),
            Victim::RemoveKey => self.removed_key(&on_cluster),
            Victim::Hold => on_cluster(&["hold", "add", "latest", "--reason", "a test"]),
            Victim::Release => {
                let held = json(&self.site, &self.primary, &["hold", "list"]);
                let id = held["holds"][0]["backup"].as_str().unwrap_or("none").to_owned();
                on_cluster(&["hold", "remove", &id]).or(&[10])
            }
            Victim::Init => {
                let config = place.with_extension("toml");
                let (url, config) = (format!("file://{to}"), config.to_string_lossy().into_owned());
                let words = [
                    "init",
                    "--repo",
                    &url,
                    "--cluster",
                    "other",
                    "--pgdata",
                    &data,
                    "--config",
                    &config,
                ];
                Prepared::of(words.to_vec(), place)
            }
        }
    }

    /// A key is added and given, to be removed.
    fn removed_key(&self, on_cluster: &dyn Fn(&[&str]) -> Prepared) -> Prepared {
        let path = self.site.scratch().path().join(format!("removed-{}", self.strikes));
        let path = path.to_string_lossy().into_owned();
        let added = json(&self.site, &self.primary, &["key", "add", "--new-key-file", &path]);
        on_cluster(&["key", "remove", &text(&added["id"]), "--yes"])
    }

    /// What a command that was killed has left outside of the repository.
    fn look_at(&self, victim: Victim, prepared: Prepared, end: &End) {
        let words: Vec<&str> = prepared.words.iter().map(String::as_str).collect();
        let there = prepared.place.exists();
        match victim {
            Victim::Fetch if there => {
                let wal = self.primary.data_dir().join("pg_wal").join(&self.segment);
                let (whole, found) = (std::fs::read(wal), std::fs::read(&prepared.place));
                let same = whole.expect("the segment") == found.expect("what was fetched");
                assert!(same, "{} is not what was archived", self.segment);
            }
            Victim::RestoreAgain if *end == End::Killed => {
                self.site.run(Path::new("/"), &words).expect_code(0);
                let words = ["--pgdata", &prepared.place.to_string_lossy(), "verify"];
                self.site.run(Path::new("/"), &words[2..]).expect_code(0);
                let server = Cluster::adopt(self.primary.major(), &prepared.place);
                server.start();
                server.wait_until_paused();
            }
            // Whoever begins again has to get to the end.
            Victim::Init | Victim::Repair if *end == End::Killed => {
                self.site.run(Path::new("/"), &words).expect_code(0);
            }
            _ => {}
        }
        let ended = if *end == End::Killed { Ended::Killed } else { Ended::ByItself };
        prepared.stage.look(&self.site, &self.primary, &words, ended);
        if there && prepared.place.is_dir() {
            std::fs::remove_dir_all(&prepared.place).expect("it goes");
        }
    }

    /// Kills the archiver's push of a segment: the server tries again by itself.
    fn kill_push(&mut self) -> End {
        let config = self.site.config().to_string_lossy().into_owned();
        let segment = switch(&self.primary);
        let until = Instant::now() + Duration::from_secs(2);
        let moment = Duration::from_micros(self.dice.below(60_000));
        while Instant::now() < until {
            if let Some(pid) = process_with(&["push", &config]) {
                std::thread::sleep(moment);
                let dead =
                    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
                self.site.wait_archived(&self.primary, &segment);
                return if dead { End::Killed } else { End::Missed };
            }
        }
        End::Missed
    }

    /// The clients stop; what they were told is restored, and nothing is left of the dead.
    fn end(self) -> HashMap<Victim, u64> {
        let Self { site, primary, workload, killed, .. } = self;
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        output(&site, &primary, &["backup", "--fast-checkpoint"]);
        for _ in 0..2 {
            output(&site, &primary, &["gc"]);
        }
        assert_eq!(objects(&site, "intents"), Vec::<PathBuf>::new(), "nobody is alive");
        assert_eq!(objects(&site, "retired"), Vec::<PathBuf>::new(), "rounds have ended");
        let rest = json(&site, &primary, &["gc", "--dry-run"]);
        assert_eq!(rest["unused"]["packs"], 0, "{rest}");
        output(&site, &primary, &["verify", "--read-data"]);
        let oldest = text(&json(&site, &primary, &["list"])["clusters"][0]["backups"][0]["id"]);
        for backup in [oldest.as_str(), "latest"] {
            let flags = ["--to-latest", "--backup", backup];
            let copy = Restored::started(&site, primary.major(), backup, &flags);
            copy.wait_until_recovered();
            log.assert_equals(&copy, &Target::Latest);
        }
        killed
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A command that is about to run.
struct Prepared {
    words: Vec<String>,
    /// What it writes to, where it writes outside of the repository.
    place: PathBuf,
    /// How it may end when it is let live.
    ends_with: Vec<i32>,
    /// What was made for it.
    stage: Stage,
}

impl Prepared {
    fn of(words: Vec<&str>, place: PathBuf) -> Self {
        let words = words.into_iter().map(str::to_owned).collect();
        Self::on((words, Stage::Bare), place)
    }

    fn on((words, stage): Staged, place: PathBuf) -> Self {
        Self { words, place, ends_with: vec![0], stage }
    }

    fn or(mut self, codes: &[i32]) -> Self {
        self.ends_with.extend(codes);
        self
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Killed,
    /// And how long that took.
    Over(Run, Duration),
    /// It was not to be seen.
    Missed,
}

/// Kills a process at a moment after it began, unless it has ended by then.
fn killed_after(mut child: Child, began: Instant, moment: Option<Duration>) -> End {
    while child.try_wait().expect("a child").is_none() {
        if moment.is_some_and(|moment| began.elapsed() >= moment) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = began.elapsed();
    let output = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        None => End::Killed,
        code => End::Over(Run { code, stderr }, took),
    }
}
