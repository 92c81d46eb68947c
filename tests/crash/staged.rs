//! What a command works on that needs more than a repository under load: other content of a segment,
//! a backup that stands still, a copy of the repository in which lists of files are lost, a domain
//! of its own, half of an older restore. The others meet nothing of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgrecall_testkit::postgres::Cluster;
use rustix::process::Signal;
use serde_json::Value;

use crate::ground::{Running, json, objects, output};
use crate::site::{Run, Site, switch, wait_for};

/// What was made for one command.
pub(crate) enum Stage {
    /// Nothing: it works on what is there.
    Bare,
    /// A directory that the newest backup is restored to.
    Directory(PathBuf),
    /// A segment of which there is another content.
    Segment(String),
    /// A backup whose process stands still.
    Backup(Running, String),
    /// A copy of the repository, and the backup that is given up there.
    Copy(Site, String),
    /// A domain that has keys of two epochs, and whose configuration knows no other.
    Domain(Site, String),
}

/// The words of a command, and what it works on.
pub(crate) type Staged = (Vec<String>, Stage);

fn words(cluster: &Cluster, words: &[&str]) -> Vec<String> {
    let data = cluster.data_dir().to_string_lossy().into_owned();
    [words, &["--pgdata", &data]].concat().into_iter().map(str::to_owned).collect()
}

fn run(site: &Site, cluster: &Cluster, some: &[&str]) -> Run {
    let words = words(cluster, some);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    site.run(Path::new("/"), &words)
}

fn archived(site: &Site, cluster: &Cluster) -> String {
    let name = switch(cluster);
    site.wait_archived(cluster, &name);
    name
}

fn backups(site: &Site, cluster: &Cluster) -> Vec<String> {
    let listed = json(site, cluster, &["list"]);
    let rows = listed["clusters"][0]["backups"].as_array().expect("backups").clone();
    rows.iter().map(|row| text(&row["id"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The stored content of a segment is to hold, and another one is known, which is at `place`.
pub(crate) fn resolve(site: &Site, cluster: &Cluster, place: &Path) -> Staged {
    let name = archived(site, cluster);
    let mut other = std::fs::read(in_pg_wal(cluster, &name)).expect("the segment");
    let at = other.len() - 100;
    other[at] ^= 1;
    let folder = place.file_name().expect("a name").to_string_lossy().into_owned();
    site.scratch().dir(&folder);
    let file = site.scratch().file(&format!("{folder}/{name}"), &other);
    let file = file.to_str().expect("UTF-8");
    let known = json(site, cluster, &["wal", "resolve", &name, "--file", file]);
    let contents = known["contents"].as_array().expect("contents");
    let [true, false] = [0, 1].map(|nth| contents[nth]["served"] == true) else {
        panic!("the stored one is served: {known}");
    };
    let keep = text(&contents[0]["digest"]);
    let settle = ["wal", "resolve", &name, "--file", file, "--keep", &keep];
    let settle = [&settle[..], &["--reason", "a test", "--yes"]].concat();
    (words(cluster, &settle), Stage::Segment(name))
}

fn in_pg_wal(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.data_dir().join("pg_wal").join(name)
}

/// A backup that has begun and stands still is to be ended.
pub(crate) fn end_dead(site: &Site, cluster: &Cluster) -> Staged {
    let before = objects(site, "intents");
    let begun = || {
        let mut all = objects(site, "intents").into_iter();
        all.find(|path| path.extension().is_some() && !before.contains(path))
    };
    let running = Running::begin(site, cluster, &["--fast-checkpoint"]);
    wait_for("a backup has begun", || begun().is_some());
    running.signal(Signal::STOP);
    let start = begun().expect("its start");
    let id = start.file_stem().expect("a name").to_string_lossy().into_owned();
    (words(cluster, &["backup", "--end-dead", &id, "--yes"]), Stage::Backup(running, id))
}

/// In a copy of the repository all lists of files are lost, and the oldest backup is to go.
pub(crate) fn give_up(site: &Site, cluster: &Cluster) -> Staged {
    let copy = site.over_copy(|to| copy_objects(site.repository(), to));
    for pack in objects(&copy, "meta") {
        std::fs::remove_file(pack).expect("a pack goes");
    }
    let id = backups(&copy, cluster).into_iter().next().expect("a backup");
    let freed = run(&copy, cluster, &["hold", "remove", &id]);
    assert!([Some(0), Some(10)].contains(&freed.code), "{}", freed.stderr);
    (words(cluster, &["repair", "--give-up", &id, "--yes"]), Stage::Copy(copy, id))
}

/// Objects are whole under their names; what a push is writing at this moment has none yet.
fn copy_objects(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if name == ".tmp" {
            continue;
        }
        match path.is_dir() {
            true => copy_objects(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).expect("a copy")),
        }
    }
}

/// A domain with a segment in it is to be shredded.
pub(crate) fn shred(site: &Site, cluster: &Cluster, name: &str) -> Staged {
    let segment = in_pg_wal(cluster, &archived(site, cluster)).to_string_lossy().into_owned();
    let own = under_another_name(site, name);
    output(&own, cluster, &["wal", "push", &segment]);
    output(&own, cluster, &["key", "rotate", "--yes"]);
    assert_eq!(keys(site, name).len(), 2, "{:?}", keys(site, name));
    (words(cluster, &["key", "shred", name, "--yes"]), Stage::Domain(own, name.to_owned()))
}

/// The same repository, by a configuration that knows the cluster under this name.
fn under_another_name(site: &Site, name: &str) -> Site {
    let own = site.over_copy(|to| std::fs::create_dir(to).expect("a folder"));
    let config = std::fs::read_to_string(own.config()).expect("the configuration");
    let [from, to] = [&own, site].map(|site| site.repository().display().to_string());
    let config = config.replace(&from, &to).replace("\"main\"", &format!("\"{name}\""));
    own.scratch().file("pgrecall.toml", config.as_bytes());
    own
}

/// The names of a domain's keys, and of the mark that they were deleted.
fn keys(site: &Site, domain: &str) -> Vec<String> {
    let folder = site.repository().join("domains").join(domain).join("keys");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn restore<'a>(to: &'a str, how: &[&'a str]) -> Vec<&'a str> {
    [&["restore", to, "--as", "copy", "--to-immediate"], how].concat()
}

/// Over what the oldest backup has brought the newest is restored.
pub(crate) fn delta(site: &Site, cluster: &Cluster, place: &Path) -> Staged {
    let to = place.to_str().expect("UTF-8");
    let oldest = backups(site, cluster).into_iter().next().expect("a backup");
    output(site, cluster, &restore(to, &["--backup", &oldest]));
    let delta = restore(to, &["--delta", "--yes"]);
    (words(cluster, &delta), Stage::Directory(place.to_owned()))
}

/// Nothing is lost, so that all is to come back.
pub(crate) fn salvage(cluster: &Cluster, place: &Path) -> Staged {
    let salvage = restore(place.to_str().expect("UTF-8"), &["--salvage"]);
    (words(cluster, &salvage), Stage::Directory(place.to_owned()))
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            found.insert(path.strip_prefix(folder).expect("below it").to_owned(), bytes);
        }
    }
    found
}

/// What was restored there is what comes of the same backup in an empty directory.
fn assert_as_fresh(site: &Site, cluster: &Cluster, place: &Path) {
    let fresh = place.with_extension("fresh");
    output(site, cluster, &restore(fresh.to_str().expect("UTF-8"), &[]));
    for folder in ["base", "global", "pg_xact"] {
        let [there, wanted] = [place, &fresh].map(|dir| files(&dir.join(folder)));
        assert!(there.keys().eq(wanted.keys()), "{:?} for {:?}", there.keys(), wanted.keys());
        let other: Vec<_> = wanted.iter().filter(|(name, bytes)| there[*name] != **bytes).collect();
        let names: Vec<_> = other.iter().map(|(name, _)| name).collect();
        assert!(names.is_empty(), "{folder}: {names:?} are not those of the backup");
    }
    std::fs::remove_dir_all(fresh).expect("it goes");
}

/// Whether a command was killed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Killed,
    ByItself,
}

impl Stage {
    /// Where the command works.
    pub(crate) fn site<'a>(&'a self, own: &'a Site) -> &'a Site {
        match self {
            Self::Copy(other, _) | Self::Domain(other, _) => other,
            _ => own,
        }
    }

    /// What holds after the command, also in the middle of it, and that the same words get it to
    /// its end.
    pub(crate) fn look(self, site: &Site, cluster: &Cluster, again: &[&str], ended: Ended) {
        let run_again = |site: &Site, codes: &[i32]| {
            if ended == Ended::Killed {
                let run = site.run(Path::new("/"), again);
                assert!(run.code.is_some_and(|code| codes.contains(&code)), "{run:?}");
            }
        };
        match self {
            Self::Bare => {}
            Self::Directory(place) => {
                run_again(site, &[0]);
                assert_as_fresh(site, cluster, &place);
            }
            Self::Segment(name) => {
                serves_its_own(site, cluster, &name);
                run_again(site, &[0]);
                serves_its_own(site, cluster, &name);
                let known = json(site, cluster, &["wal", "resolve", &name]);
                assert_eq!(known["contents"].as_array().map(Vec::len), Some(2), "{known}");
                assert!(known["settled"].is_object(), "{known}");
            }
            Self::Backup(running, id) => {
                // It may be ended by now.
                run_again(site, &[0, 10]);
                running.signal(Signal::CONT);
                let backup = running.end();
                assert_ne!(backup.code, Some(0), "it was ended: {}", backup.stderr);
                assert!(!backups(site, cluster).contains(&id), "{id} was ended");
                let left: Vec<PathBuf> = objects(site, "intents");
                assert!(!left.iter().any(|path| path.ends_with(&id)), "{left:?}");
            }
            Self::Copy(copy, id) => {
                let others: Vec<String> =
                    backups(site, cluster).into_iter().filter(|other| *other != id).collect();
                assert_given_up_or_there(&copy, cluster, &id, &others);
                run_again(&copy, &[0, 10]);
                assert_given_up_or_there(&copy, cluster, &id, &others);
                assert!(!backups(&copy, cluster).contains(&id), "{id} is given up");
            }
            Self::Domain(own, name) => {
                let left = keys(site, &name);
                let begun = left.iter().any(|key| key == "shredded");
                assert!(begun || left.len() == 2, "keys are gone and nobody says why: {left:?}");
                run_again(&own, &[0]);
                assert_eq!(keys(site, &name), ["shredded"]);
                let refused = run(&own, cluster, &["plan"]);
                assert!(refused.stderr.contains("were deleted (key shred)"), "{refused:?}");
            }
        }
    }
}

/// Recovery gets what this server has archived.
fn serves_its_own(site: &Site, cluster: &Cluster, name: &str) {
    let to = site.scratch().path().join(format!("{name}.fetched"));
    output(site, cluster, &["wal", "fetch", name, to.to_str().expect("UTF-8")]);
    let (served, own) = (std::fs::read(&to), std::fs::read(in_pg_wal(cluster, name)));
    assert!(served.expect("fetched") == own.expect("the segment"), "{name} is another one");
    std::fs::remove_file(to).expect("it goes");
}

/// Nothing is thrown away: what is not listed any more lies in quarantine, and the others stay.
fn assert_given_up_or_there(site: &Site, cluster: &Cluster, id: &str, others: &[String]) {
    let listed = backups(site, cluster);
    assert!(others.iter().all(|other| listed.contains(other)), "{others:?} of {listed:?}");
    let kept = objects(site, "quarantine").iter().any(|path| path.ends_with(id));
    assert!(kept || listed.iter().any(|backup| backup == id), "{id} is nowhere");
}
