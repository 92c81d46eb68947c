//! One run: a repository is made, processes begin and die, and at the end everything is left
//! alone.

mod history;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::{ClusterStore, cluster_ref};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::manifests;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::Store;
use tokio::task::JoinHandle;

use crate::actors::collect::{Sentences, collect};
use crate::actors::{Command, Context, Habits, HostClock, Keyring, Living, Seen, chain, gc, read};
use crate::chance::Chance;
use crate::database::{self, Database, WalFolder};
use crate::door::Door;
use crate::oracle::{Left, Oracle, Violation};
use crate::planted::Plant;
use crate::request::ProcessId;
use crate::schedule::{Scheduler, Turn, Turns, Weather};
use crate::store::{SimStore, Waits};
use crate::world::{Medium, Shared, Telling};

pub use history::{History, Scene};

/// What is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All chance comes from here.
    pub seed: u64,
    /// What is wrong with the product.
    pub plant: Option<Plant>,
    /// Who chooses.
    pub scheduler: Scheduler,
    /// What the store is.
    pub medium: Medium,
    /// The commands that are run, each as often as it stands here: in a scene exactly so often.
    pub commands: Vec<Command>,
    /// What was before.
    pub history: History,
    /// A part of names on whose requests most faults fall; nothing for what the seed says.
    pub focus: Option<&'static str>,
    /// Whether no other requests fail, and nobody dies.
    pub calm: bool,
    /// How many commands begin.
    pub budget: u32,
    /// How many at once.
    pub at_once: usize,
    /// Whether events are kept as text.
    pub telling: Telling,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// A number that tells two runs apart.
    pub digest: u64,
    /// Events.
    pub events: u64,
    /// The events as text, if they were to be kept.
    pub told: Vec<String>,
}

/// Events after which a run is given up: something goes round and round.
const EVENTS_MAX: u64 = 40_000;

/// Runs it. This must be on a runtime of one thread whose clock stands still while somebody can go
/// on, within a local set.
///
/// # Panics
/// When the repository cannot even be made.
pub async fn run(settings: &Settings, wal: &WalFolder) -> Outcome {
    let mut bench = Bench::new(settings, wal).await;
    bench.prepare().await;
    bench.live().await;
    if bench.violation().is_none() {
        bench.end().await;
    }
    let violation = bench.violation();
    let world = bench.world.lock();
    Outcome { violation, digest: world.digest(), events: world.events, told: world.told() }
}

struct Bench<'a> {
    settings: &'a Settings,
    wal: WalFolder,
    chance: Chance,
    world: Shared,
    database: Database,
    weather: Weather,
    keyring: Keyring,
    living: Living,
    habits: Habits,
    options: OpenOptions,
    clocks: Vec<SignedDuration>,
    seen: Seen,
    began: tokio::time::Instant,
    page: usize,
    next_process: u32,
    running: BTreeMap<ProcessId, (Command, JoinHandle<()>)>,
}

impl<'a> Bench<'a> {
    async fn new(settings: &'a Settings, wal: &WalFolder) -> Self {
        let mut chance = Chance::new(settings.seed);
        let database = Database::new(&mut chance);
        let name = || "main".parse().expect("a valid name");
        let at = cluster_ref(&name(), &name(), database::facts().system_identifier);
        let oracle = Oracle::new(at.clone(), database::size());
        let world = Shared::new(oracle, settings.medium, settings.telling);
        let mut weather = Weather::draw(&mut chance, settings.medium, settings.focus);
        if settings.calm {
            weather = Weather::calm(settings.focus);
        }
        let random = chance.branch().shared();
        let keyring = Keyring::default();
        let file = KeyFile::random(&random);
        keyring.add(file.clone());
        let options = OpenOptions {
            id: None,
            suite: RootSuite::Aes256Gcm,
            fingerprint: None,
            unlock: Unlock::KeyFile(file),
            random,
            cache: None,
            restore_keys: Vec::new(),
        };
        let hour = |chance: &mut Chance| chance.below(20) as i64 - 10;
        let clocks = (0..4).map(|_| SignedDuration::from_hours(hour(&mut chance))).collect();
        let page = [2, 5, 1000][chance.place(3)];
        let mut bench = Self {
            settings,
            wal: wal.clone(),
            chance,
            world,
            database,
            weather,
            keyring,
            living: Arc::default(),
            habits: Habits::default(),
            options,
            clocks,
            seen: Seen::default(),
            began: tokio::time::Instant::now(),
            page,
            next_process: 0,
            running: BTreeMap::new(),
        };
        bench.make_repository().await;
        bench
    }

    async fn make_repository(&mut self) {
        let note = KeyNote { label: "first".into(), now: "2026-01-01T00:00:00Z".into() };
        let store = self.direct();
        let made = Repository::create(store, self.options.clone(), &note).await;
        let Ok(Created::New(repository)) = made else { panic!("no repository: {made:?}") };
        self.options.id = Some(repository.root().id);
        let name = || "main".parse().expect("a valid name");
        ClusterStore::register(&repository, &name(), &name(), database::facts())
            .await
            .expect("a new repository takes a cluster");
        let second = KeyFile::random(&self.chance.branch().shared());
        repository
            .add_key(&Unlock::KeyFile(second.clone()), &note)
            .await
            .expect("a new repository takes a key");
        self.keyring.add(second);
        self.refresh_keys().await;
    }

    /// A connection on which nothing waits or fails.
    fn direct(&self) -> Arc<dyn Store> {
        Arc::new(SimStore::new(self.world.clone(), ProcessId(0), Waits::No, 1000))
    }

    fn violation(&self) -> Option<Violation> {
        self.world.lock().oracle.violation().cloned()
    }

    /// The repository, opened with any of the keys that people have.
    async fn open(&mut self) -> Option<(Repository, Unlock)> {
        let mut files = self.keyring.files();
        while !files.is_empty() {
            let file = files.swap_remove(self.chance.place(files.len()));
            let unlock = Unlock::KeyFile(file);
            let options = OpenOptions { unlock: unlock.clone(), ..self.options.clone() };
            if let Ok(repository) = Repository::open(self.direct(), options).await {
                return Some((repository, unlock));
            }
        }
        self.world.lock().oracle.violated("keys", "no key opens the repository".into());
        None
    }

    /// The oracle gets the keys that there are now.
    async fn refresh_keys(&mut self) {
        let Some((repository, _)) = self.open().await else { return };
        let name = "main".parse().expect("a valid name");
        if let Ok(sealed) = repository.existing_domain(&name).await {
            let own = repository.sealed().keys().clone();
            self.world.lock().oracle.give_keys(sealed.keys().clone(), own);
        }
    }

    /// A process that has not begun.
    async fn context(&mut self, command: Command, waits: Waits) -> Option<Context> {
        self.next_process += 1;
        let process = ProcessId(self.next_process);
        let (repository, unlock) = self.open().await?;
        let name = "main".parse().expect("a valid name");
        let keys = repository.existing_domain(&name).await.ok()?.keys().clone();
        let random = self.chance.branch().shared();
        let plant = self.settings.plant.filter(|_| matches!(waits, Waits::Yes | Waits::Loses(_)));
        let at = cluster_ref(&name, &name, database::facts().system_identifier);
        let door = plant.map(|plant| Door::new(plant, command, at.clone(), keys.clone()));
        let store = SimStore::new(self.world.clone(), process, waits, self.page);
        let store = Arc::new(match &door {
            Some(door) => store.with_door(door.clone()),
            None => store,
        });
        let sealed = SealedStore::new(store.clone(), keys, random.clone());
        let ahead = self.clocks[self.chance.place(self.clocks.len())];
        Some(Context {
            process,
            world: self.world.clone(),
            store,
            cluster: ClusterStore { sealed, at, facts: database::facts() },
            options: OpenOptions { unlock, random, ..self.options.clone() },
            database: self.database.clone(),
            wal: self.wal.clone(),
            clock: Clock::new(HostClock::new(self.began, ahead)),
            chance: self.chance.branch(),
            plant,
            door,
            keyring: self.keyring.clone(),
            living: self.living.clone(),
            habits: self.habits,
            sightings: self.seen.clone(),
        })
    }

    /// Runs a command to its end, while nobody else does anything.
    async fn alone(&mut self, command: Command) {
        self.until(command, Waits::No).await;
    }

    async fn until(&mut self, command: Command, waits: Waits) {
        if let Some(context) = self.context(command, waits).await {
            let process = context.process;
            context.run(command).await;
            self.bury(process);
        }
    }

    fn write(&mut self) {
        self.database.lock().write(&mut self.chance);
    }

    fn bury(&mut self, process: ProcessId) {
        if let Ok(mut living) = self.living.lock() {
            living.retain(|_, owner| *owner != process);
        }
    }

    async fn begin(&mut self, command: Command) {
        if let Some(context) = self.context(command, Waits::Yes).await {
            let process = context.process;
            let task = tokio::task::spawn_local(context.run(command));
            self.running.insert(process, (command, task));
        }
    }

    fn crash(&mut self, process: ProcessId) {
        if let Some((command, task)) = self.running.remove(&process) {
            self.world.lock().tell(&format!("{process} dies ({command:?})"));
            task.abort();
            self.bury(process);
        }
    }

    /// The part in which things go wrong.
    async fn live(&mut self) {
        let mut turns = Turns::new(self.settings.scheduler, &mut self.chance);
        let mut begun = 0;
        loop {
            settle().await;
            self.reap();
            if self.violation().is_some() || self.world.lock().events > EVENTS_MAX {
                break;
            }
            if begun >= self.settings.budget && self.running.is_empty() {
                break;
            }
            let more = self.change_something(&mut turns, begun).await;
            if more > 0 && matches!(self.settings.history, History::Scene(_)) {
                // What is on its way is no faster than those that have just begun.
                settle().await;
            }
            begun += more;
            self.turn(&mut turns).await;
        }
        let left: Vec<ProcessId> = self.running.keys().copied().collect();
        left.into_iter().for_each(|process| self.crash(process));
        settle().await;
    }

    fn reap(&mut self) {
        let ended = self.running.iter().filter(|(_, (_, task))| task.is_finished());
        let ended: Vec<ProcessId> = ended.map(|(process, _)| *process).collect();
        for process in ended {
            if let Some((command, task)) = self.running.remove(&process) {
                self.died_of_a_panic(process, command, task);
            }
            self.bury(process);
        }
    }

    fn died_of_a_panic(&self, process: ProcessId, command: Command, task: JoinHandle<()>) {
        let ended = futures::FutureExt::now_or_never(task);
        if let Some(Err(error)) = ended
            && error.is_panic()
        {
            let what = format!("{process} ({command:?}) panicked");
            self.world.lock().oracle.violated("panic", what);
        }
    }

    /// What is no request: commands begin, processes die or stand still, clients write. Gives how
    /// many commands of the budget have begun.
    async fn change_something(&mut self, turns: &mut Turns, begun: u32) -> u32 {
        let archiving = self.running.values().any(|(command, _)| *command == Command::Archive);
        let to_archive = self.database.lock().to_archive().is_some();
        if to_archive && self.settings.history != History::Any {
            // Nobody waits for WAL: that would take turns that are no accident.
            self.alone(Command::Archive).await;
        } else if to_archive && !archiving && self.chance.happens(200) {
            self.begin(Command::Archive).await;
        }
        let priority = self.settings.scheduler != Scheduler::Random;
        let mut more = 0;
        // Where priorities decide, all begin at once.
        while begun + more < self.settings.budget
            && self.running.len() < self.settings.at_once
            && (priority || self.running.is_empty() || self.chance.happens(100))
        {
            let commands = &self.settings.commands;
            let number = match self.settings.history {
                History::Scene(_) => (begun + more) as usize % commands.len(),
                History::Any | History::Ripe => self.chance.place(commands.len()),
            };
            let command = commands[number];
            self.begin(command).await;
            more += 1;
            if !priority {
                break;
            }
        }
        if self.chance.happens(60) {
            self.write();
        }
        let process = self.running.keys().nth(self.chance.place(self.running.len())).copied();
        if let Some(process) = process {
            if self.chance.happens(self.weather.crash) {
                self.crash(process);
                settle().await;
            } else if self.chance.happens(self.weather.pause) {
                turns.pause(process, 20 + self.chance.below(400));
            }
        }
        if self.settings.medium == Medium::Directory && self.chance.happens(4) {
            self.lose_power().await;
        }
        if self.chance.happens(4) {
            let minutes = 1 + self.chance.below(300);
            tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
        }
        more
    }

    async fn lose_power(&mut self) {
        let all: Vec<ProcessId> = self.running.keys().copied().collect();
        all.into_iter().for_each(|process| self.crash(process));
        settle().await;
        self.world.lock().lose_power();
    }

    async fn turn(&mut self, turns: &mut Turns) {
        let turn = turns.next(&mut self.world.lock(), &mut self.chance);
        match turn {
            Turn::Parked(place) => {
                let mut world = self.world.lock();
                let fate = match world.parked().get(place) {
                    Some(parked) => self.weather.fate(&mut self.chance, &parked.request),
                    None => return,
                };
                world.happen(place, fate);
            }
            Turn::Late(place) => self.world.lock().deliver(place),
            Turn::Lost(place) => self.world.lock().lose(place),
            Turn::Nobody => {
                turns.wake();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        if self.world.lock().oracle.wants_keys() {
            self.refresh_keys().await;
        }
    }

    /// Everything is left alone: what is on its way arrives or is lost, two collections or three of
    /// the command's, a backup.
    async fn end(&mut self) {
        while !self.world.lock().late().is_empty() {
            let mut world = self.world.lock();
            let place = self.chance.place(world.late().len());
            match self.chance.happens(700) {
                true => world.deliver(place),
                false => world.lose(place),
            }
        }
        if self.violation().is_some() {
            return;
        }
        self.refresh_keys().await;
        if let Ok(mut living) = self.living.lock() {
            living.clear();
        }
        match self.chance.happens(500) {
            true => self.collect_by_command().await,
            false => {
                for _ in 0..2 {
                    self.collect_rightly().await;
                }
                self.check_garbage(Left::Nothing);
            }
        }
        let before = self.world.lock().oracle.valid().len();
        self.backup_alone(Command::Backup).await;
        if self.world.lock().oracle.valid().len() != before + 1 {
            self.violated("L2", "a backup that was left alone did not commit".into());
        }
        self.restore_all().await;
    }

    fn violated(&self, property: &'static str, what: String) {
        self.world.lock().oracle.violated(property, what);
    }

    async fn collect_rightly(&mut self) {
        let Some(mut context) = self.context(Command::Collect, Waits::No).await else { return };
        if let Err(error) = collect(&mut context, Sentences::Right).await {
            self.violated("L1", format!("a collection that was left alone: {}", chain(&error)));
        }
    }

    /// By a host that has seen nothing yet: once to see who is under way, so that they have been
    /// seen for long; then twice.
    async fn collect_by_command(&mut self) {
        let Some(mut context) = self.context(Command::Gc, Waits::No).await else { return };
        context.sightings = Seen::default();
        for _ in 0..3 {
            let long = Duration::from_secs(60);
            if let Err(error) = gc::collect(&context, Policy::default(), long).await {
                self.violated("L1", format!("`gc` that was left alone: {}", chain(&error)));
            }
            tokio::time::sleep(2 * long).await;
        }
        self.check_garbage(Left::StaleEntries);
    }

    /// L1 and L3.
    fn check_garbage(&self, left: Left) {
        let (garbage, debris) = {
            let world = self.world.lock();
            let is_debris =
                |key: &str| ["/intents/", "/retired/"].iter().any(|part| key.contains(part));
            let debris = world.objects().keys().map(|key| key.as_str().to_owned());
            (world.oracle.garbage(left), debris.filter(|key| is_debris(key)).collect::<Vec<_>>())
        };
        if let Some(first) = garbage.first() {
            self.violated("L1", format!("{} left, such as: {first}", garbage.len()));
        }
        if let Some(first) = debris.first() {
            self.violated("L3", format!("{} left, such as {first}", debris.len()));
        }
    }

    async fn restore_all(&mut self) {
        let Some(context) = self.context(Command::Restore, Waits::No).await else { return };
        let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
        let mut truths = self.world.lock().oracle.valid();
        let listed = match manifests::list(sealed, domain).await {
            Ok(listed) => listed,
            Err(error) => return self.violated("S1", chain(&error)),
        };
        for backup in listed.valid {
            let id = backup.manifest.backup;
            let truth = truths.remove(&id).map(|truth| truth.files);
            match read::files_of(sealed, domain, &backup.manifest).await {
                Ok(files) if Some(&files) == truth.as_ref() => {}
                Ok(_) => self.violated("S1", format!("backup {id} restores to other bytes")),
                Err(error) => self.violated("S1", format!("backup {id}: {}", chain(&error))),
            }
        }
        if let Some(id) = truths.keys().next() {
            self.violated("S2", format!("backup {id} is valid and not listed"));
        }
    }
}

/// Until nobody can go on without an answer: the clock moves only then.
fn settle() -> impl Future<Output = ()> {
    tokio::time::sleep(Duration::from_millis(1))
}
