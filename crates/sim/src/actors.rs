//! What processes do: each is one run of a command, made of the product's own steps.

pub mod backup;
pub mod collect;
pub mod expire;
pub mod gc;
pub mod hold;
pub mod keys;
pub mod read;
pub mod wal;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrecall_engine::clock::{Clock, TimeSource};
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::collection::dead::Sightings;
use pgrecall_repo::keys::KeyFile;
use pgrecall_repo::repository::OpenOptions;

use crate::chance::Chance;
use crate::database::{Database, WalFolder};
use crate::door::{Door, Phase};
use crate::planted::Plant;
use crate::request::ProcessId;
use crate::store::SimStore;
use crate::world::Shared;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// `pgrecall backup` on the primary.
    Backup,
    /// `pgrecall backup` on a standby.
    StandbyBackup,
    /// `pgrecall expire`.
    Expire,
    /// `pgrecall hold add`, or `remove`.
    Hold,
    /// A collection, made of the product's steps, some of them needlessly, wrongly or not at all.
    Collect,
    /// `pgrecall gc`.
    Gc,
    /// `pgrecall wal push`, segment after segment.
    Archive,
    /// `pgrecall verify --read-data`.
    Verify,
    /// A restore, without a directory.
    Restore,
    /// `pgrecall key rotate`.
    Rotate,
    /// `pgrecall key add`, then `remove`.
    ChangeKeys,
}

/// What a process has.
#[derive(Debug)]
pub struct Context {
    /// Its number.
    pub process: ProcessId,
    /// The world, to tell what it was told.
    pub world: Shared,
    /// Its connection.
    pub store: Arc<SimStore>,
    /// The cluster by that connection.
    pub cluster: ClusterStore,
    /// What opens the repository.
    pub options: OpenOptions,
    /// The database.
    pub database: Database,
    /// Where segments' files are.
    pub wal: WalFolder,
    /// Its host's clock.
    pub clock: Clock,
    /// The choices that it makes.
    pub chance: Chance,
    /// What is wrong with it.
    pub plant: Option<Plant>,
    /// The door that does wrong.
    pub door: Option<Arc<Door>>,
    /// Key files that people have.
    pub keyring: Keyring,
    /// Who lives: what a collection would find out by asking hosts.
    pub living: Living,
    /// What it does more or less often than others.
    pub habits: Habits,
    /// When backups under way were first seen. All hosts share it, and have clocks of their own:
    /// so it is for a host whose clock is set now and then.
    pub sightings: Seen,
}

/// The file of backups under way that collections keep.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<std::sync::Mutex<Sightings>>);

impl Seen {
    /// What is in it.
    #[must_use]
    pub fn read(&self) -> Sightings {
        self.0.lock().map(|seen| seen.clone()).unwrap_or_default()
    }

    /// Writes it.
    pub fn write(&self, sightings: Sightings) {
        if let Ok(mut seen) = self.0.lock() {
            *seen = sightings;
        }
    }
}

/// How often, in a thousand, a process does what it need not do: what has to meet something rare
/// should not be rare itself.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// A collection takes a living backup for dead.
    pub ends_living: u64,
    /// It sweeps the rounds that are open before it does anything else.
    pub sweeps_first: u64,
    /// It sweeps all rounds once it has retired packs, and not its own alone.
    pub sweeps_all: u64,
    /// It looks for dead backups on no list.
    pub ends_unlisted: u64,
    /// It merges the index.
    pub merges: u64,
    /// It takes tombstones into the log, and tidies that.
    pub tidies: u64,
    /// It retires half of the packs, needed or not.
    pub retires_half: u64,
    /// An expiry keeps one backup alone.
    pub keeps_one: u64,
    /// A hold is taken off, where there is one.
    pub releases: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            ends_living: 100,
            sweeps_first: 900,
            sweeps_all: 500,
            ends_unlisted: 500,
            merges: 400,
            tidies: 300,
            retires_half: 0,
            keeps_one: 0,
            releases: 400,
        }
    }
}

/// The processes that are alive, with the backups that they take.
pub type Living = Arc<std::sync::Mutex<std::collections::BTreeMap<String, ProcessId>>>;

/// The key files that people have.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Arc<std::sync::Mutex<Vec<KeyFile>>>);

impl Keyring {
    /// Somebody has another one.
    pub fn add(&self, file: KeyFile) {
        if let Ok(mut files) = self.0.lock() {
            files.push(file);
        }
    }

    /// All of them.
    #[must_use]
    pub fn files(&self) -> Vec<KeyFile> {
        self.0.lock().map(|files| files.clone()).unwrap_or_default()
    }
}

impl Context {
    /// A collection enters another part.
    pub fn enter(&self, phase: Phase) {
        if let Some(door) = &self.door {
            door.enter(phase);
        }
    }

    /// Writes an event down.
    pub fn tell(&self, line: &str) {
        self.world.lock().tell(&format!("{} {line}", self.process));
    }

    /// Runs a command to its end, and tells how it went.
    pub async fn run(mut self, command: Command) {
        self.tell(&format!("begins: {command:?}"));
        let ended = match command {
            Command::Backup => backup::run(&mut self, backup::From::Primary).await,
            Command::StandbyBackup => backup::run(&mut self, backup::From::Standby).await,
            Command::Expire => expire::run(&mut self).await,
            Command::Hold => hold::run(&mut self).await,
            Command::Collect => collect::run(&mut self).await,
            Command::Gc => gc::run(&mut self).await,
            Command::Archive => wal::run(&mut self).await,
            Command::Verify => read::verify(&mut self).await,
            Command::Restore => read::restore(&mut self).await,
            Command::Rotate => keys::rotate(&mut self).await,
            Command::ChangeKeys => keys::change(&mut self).await,
        };
        match ended {
            Ok(said) => self.tell(&format!("ends: {said}")),
            Err(error) => self.tell(&format!("ends: {error}")),
        }
    }
}

/// How a command ended: words for the trace.
pub type Ended = Result<String, String>;

/// An error, and what caused it.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A host's clock: it stands where it stands, and goes at the same speed as the others.
#[derive(Debug)]
pub struct HostClock {
    began: tokio::time::Instant,
    ahead: SignedDuration,
}

impl HostClock {
    /// A clock that is so far ahead.
    #[must_use]
    pub const fn new(began: tokio::time::Instant, ahead: SignedDuration) -> Self {
        Self { began, ahead }
    }
}

/// 2026-01-01T00:00:00Z.
const BEGINNING_SECS: i64 = 1_767_225_600;

impl TimeSource for HostClock {
    fn now(&self) -> Timestamp {
        let beginning = Timestamp::from_second(BEGINNING_SECS).unwrap_or_default();
        let passed = SignedDuration::try_from(self.began.elapsed()).unwrap_or_default();
        beginning.saturating_add(passed + self.ahead).unwrap_or(beginning)
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
