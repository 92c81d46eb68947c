//! A repository in memory, what is under way in it, and everything that can be done to it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pgrecall_engine::backup::Host;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::collection::carry_out::carry_out;
use pgrecall_engine::collection::dead::{DeadRule, Sightings};
use pgrecall_engine::collection::plan::{CollectPlan, CollectRequest, plan};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_engine::progress::Progress;
use pgrecall_repo::RepoError;
use pgrecall_repo::backup::BackupSession;
use pgrecall_repo::expired::{self, ExpiredLog, Held};
use pgrecall_repo::format::document::{Expired, Hold};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::gc::{self, Live};
use pgrecall_repo::id::{BackupId, ChunkId, PackId};
use pgrecall_repo::index;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::random::{Random, SharedRandom};
use pgrecall_repo::repair::{self, RepairPlan};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::{SealedStore, Stored};
use pgrecall_store::{Key, Put};

use crate::chunked_backups::{at, begin, finish, plain, put};
use crate::model::Model;
use crate::repositories::InMemory;

/// A backup under way.
struct Open {
    session: BackupSession,
    ids: Vec<ChunkId>,
    numbers: Vec<u32>,
}

/// Who is taken for dead by a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sentence {
    /// Those whose processes are gone.
    Right,
    /// All that are under way.
    Everybody,
}

/// The repository.
pub(crate) struct Ground {
    made: InMemory,
    domain: Name,
    sealed: SealedStore,
    pub(crate) model: Model,
    open: Vec<Open>,
    /// Backups under way that a collection has ended: they cannot commit.
    ended: BTreeSet<BackupId>,
    /// Those that nobody can end any more but a collection.
    vanished: BTreeSet<BackupId>,
    expiry: Option<(ExpiredLog, BackupId)>,
    collection: Option<(CollectPlan, CollectRequest, BTreeSet<BackupId>)>,
    /// Index objects that were damaged.
    damaged: BTreeSet<Key>,
}

/// Bytes as good as random, and the same in each run (SplitMix64).
struct Counted(Mutex<u64>);

impl Random for Counted {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for part in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..part.len()]);
        }
    }
}

/// Backups under way at once.
const OPEN_MAX: usize = 3;

impl Ground {
    pub(crate) async fn new() -> Self {
        // The same names and keys each time: what was found can be run again.
        let made = InMemory::create_with(SharedRandom::new(Counted(Mutex::new(0)))).await;
        let domain = at().domain;
        let sealed = made.repository.domain(&domain).await.expect("a new domain");
        Self {
            made,
            domain,
            sealed,
            model: Model::default(),
            open: Vec::new(),
            ended: BTreeSet::new(),
            vanished: BTreeSet::new(),
            expiry: None,
            collection: None,
            damaged: BTreeSet::new(),
        }
    }

    pub(crate) async fn check(&self) {
        self.model.check(&self.sealed).await;
    }

    pub(crate) async fn begin(&mut self) {
        if self.open.len() < OPEN_MAX {
            let session = begin(&self.sealed).await;
            self.open.push(Open { session, ids: Vec::new(), numbers: Vec::new() });
        }
    }

    fn choose(&self, choice: u8) -> Option<usize> {
        (!self.open.is_empty()).then(|| usize::from(choice) % self.open.len())
    }

    /// A backup stores more chunks.
    pub(crate) async fn store(&mut self, choice: u8, numbers: std::ops::Range<u32>) {
        let Some(place) = self.choose(choice) else { return };
        let open = &mut self.open[place];
        let plains: Vec<_> = numbers.clone().map(plain).collect();
        open.ids.extend(put(&open.session, Kind::DataPack, &plains).await);
        open.numbers.extend(numbers);
    }

    /// A backup comes to its end. One that nobody has taken for dead commits.
    pub(crate) async fn commit(&mut self, choice: u8) {
        let Some(place) = self.choose(choice) else { return };
        if self.open[place].ids.is_empty() {
            self.store(choice, 0..1).await;
        }
        let Open { session, ids, numbers } = self.open.swap_remove(place);
        let committed = finish(&session, &ids).await;
        if self.ended.contains(&session.id()) {
            assert!(committed.is_err(), "a backup that was ended commits");
            session.abandon().await.expect("it gives up");
            // Its intent stays where its manifest was sent.
            self.vanished.insert(session.id());
            return;
        }
        match committed {
            Ok(id) => {
                self.model.backups.insert(id, numbers);
            }
            // What is sealed by keys that are newer than the backup it cannot read.
            Err(RepoError::Unsettled { .. })
                if session.sealed().keys().epoch() < self.sealed.keys().epoch() =>
            {
                self.vanished.insert(session.id());
                self.model.backups.insert(session.id(), numbers);
            }
            Err(error) => panic!("the backup does not commit: {error}"),
        }
    }

    pub(crate) async fn abandon(&mut self, choice: u8) {
        let Some(place) = self.choose(choice) else { return };
        let open = self.open.swap_remove(place);
        open.session.abandon().await.expect("the backup gives up");
    }

    /// Its process dies.
    pub(crate) fn vanish(&mut self, choice: u8) {
        let Some(place) = self.choose(choice) else { return };
        self.vanished.insert(self.open.swap_remove(place).session.id());
    }

    /// Chooses a backup that may expire, by the log as it is now.
    pub(crate) async fn plan_expiry(&mut self, choice: u8) {
        let log = ExpiredLog::read(&self.sealed, &self.domain).await.expect("the log is read");
        let Some(victim) = self.model.any(choice) else { return };
        if !log.entry().held.iter().any(|hold| hold.backup == victim) {
            self.expiry = Some((log, victim));
        }
    }

    /// Writes into the log what was planned; it is refused where the log has changed since.
    pub(crate) async fn expire(&mut self) {
        let Some((log, victim)) = self.expiry.take() else { return };
        let more = Expired { backups: vec![victim], ..Expired::default() };
        let stored = log.append(&self.sealed, &self.domain, more).await.expect("the log is put");
        if stored == Stored::Mine {
            assert!(!self.model.held.contains(&victim), "a backup expires that is held");
            self.model.backups.remove(&victim);
            self.model.gone.push(victim);
        }
        expired::remove_manifests(&self.sealed, &self.domain).await.expect("manifests go");
    }

    pub(crate) async fn hold(&mut self, choice: u8) {
        let (reason, by) = ("audit".to_owned(), "somebody".to_owned());
        let hold = |backup| Hold { backup, reason, until: None, by };
        if let Some(gone) = self.model.gone.last().filter(|_| choice % 8 == 7) {
            let said = expired::hold(&self.sealed, &self.domain, &hold(*gone)).await;
            assert_eq!(said.expect("it is said"), Held::Expired);
        } else if let Some(backup) = self.model.any(choice) {
            let said = expired::hold(&self.sealed, &self.domain, &hold(backup)).await;
            assert_eq!(said.expect("it is said"), Held::Held);
            self.model.held.insert(backup);
        }
    }

    pub(crate) async fn release(&mut self, choice: u8) {
        let Some(backup) = self.model.any(choice) else { return };
        expired::release(&self.sealed, &self.domain, backup).await.expect("the hold goes");
        self.model.held.remove(&backup);
    }

    /// The product's plan of a collection.
    pub(crate) async fn plan_collection(&mut self, sentence: Sentence) {
        let mut dead = self.vanished.clone();
        if sentence == Sentence::Everybody {
            dead.extend(self.open.iter().map(|open| open.session.id()));
        }
        let row = |id: &BackupId| format!("\"{id}\":\"2026-01-01T00:00:00Z\"");
        let rows: Vec<String> = dead.iter().map(row).collect();
        let mut request = CollectRequest {
            policy: Policy { rewrite_below_percent: 99, ..Policy::default() },
            dead: DeadRule {
                // Not the host of the backups: only how long it has known them counts.
                host: Host { name: "backups".into(), process: 1 },
                after: Some(Duration::from_secs(86_400)),
                clock: Clock::system(),
            },
            sightings: Sightings::decode(format!("{{{}}}", rows.join(",")).as_bytes()),
            progress: Progress::silent(),
            cancel: Cancel::new(),
        };
        let plan = plan(&self.sealed, &self.domain, &mut request).await.expect("a plan is made");
        self.collection = Some((plan, request, dead));
    }

    /// Carries the plan out, whatever has happened since.
    pub(crate) async fn collect(&mut self) {
        let Some((plan, request, dead)) = self.collection.take() else { return };
        carry_out(&self.sealed, plan, &request).await.expect("the plan is carried out");
        let open = self.open.iter().map(|open| open.session.id());
        self.ended.extend(open.filter(|id| dead.contains(id)));
    }

    /// Retires packs, needed or not.
    pub(crate) async fn retire(&self, choice: u8) {
        let packs = self.packs().await;
        let chosen: Vec<PackId> =
            packs.into_iter().skip(usize::from(choice % 5)).step_by(2).map(|(_, id)| id).collect();
        if !chosen.is_empty() {
            gc::retire(&self.sealed, &self.domain, chosen).await.expect("packs are retired");
        }
    }

    async fn packs(&self) -> Vec<(Kind, PackId)> {
        let listed = self.sealed.list(&names::packs(&self.domain)).await.expect("packs are listed");
        listed.iter().filter_map(|object| names::pack_of(&self.domain, &object.key)).collect()
    }

    pub(crate) async fn merge(&self) {
        let usage = gc::usage(&self.sealed, &self.domain, &Live::default()).await;
        let index = usage.expect("the index is read").index;
        let all: Vec<_> = index.iter().collect();
        gc::merge_index(&self.sealed, &self.domain, &all).await.expect("the index is merged");
    }

    pub(crate) async fn rotate(&mut self, rotation: Rotation) {
        let rotated = self.made.repository.rotate(&self.domain, rotation, None).await;
        rotated.expect("the keys are rotated");
        self.sealed = self.made.repository.existing_domain(&self.domain).await.expect("it opens");
    }

    pub(crate) async fn open_again(&mut self) {
        let opened = Repository::open(self.made.store.clone(), self.made.options.clone()).await;
        self.made.repository = opened.expect("the repository opens");
        self.sealed = self.made.repository.existing_domain(&self.domain).await.expect("it opens");
    }

    /// An index object is lost, or a bit of it turns over.
    pub(crate) async fn spoil_index(&mut self, choice: u8) {
        let listed = self.sealed.list(&names::indexes(&self.domain)).await.expect("a listing");
        let sound: Vec<&Key> = listed
            .iter()
            .map(|object| &object.key)
            .filter(|key| !self.damaged.contains(*key))
            .collect();
        let Some(name) = sound.get(usize::from(choice / 2) % sound.len().max(1)) else { return };
        let store = self.sealed.store();
        let bytes = store.get(name, u64::MAX).await.expect("it is read");
        store.delete(name).await.expect("it goes");
        if choice.is_multiple_of(2) {
            return;
        }
        let mut other = bytes.to_vec();
        let back = other.len() / 2;
        other[back + usize::from(choice) % back] ^= 4;
        assert!(matches!(store.put_if_absent(name, other.into()).await, Put::Created));
        self.damaged.insert((*name).clone());
    }

    /// Moves nothing but what was damaged, and leaves no pack that is not in the index. The first
    /// may prove the keys by which the second knows that something is damaged.
    pub(crate) async fn repair(&mut self) {
        for _ in 0..2 {
            let plan = self.look().await;
            let moved = plan.quarantined.iter().map(|object| &object.name);
            let left = plan.left.iter().map(|left| &left.name);
            for name in moved.chain(left) {
                assert!(self.damaged.contains(name), "{name} is taken for damaged");
            }
            let done = repair::carry_out(&self.sealed, &self.domain, &plan).await;
            done.expect("it is repaired");
        }
        let again = self.look().await;
        assert!(again.is_empty(), "{again:?}");
    }

    async fn look(&self) -> RepairPlan {
        repair::look(&self.sealed, &self.domain).await.expect("it is looked at")
    }

    /// Everybody is gone: a repair and two collections leave what is needed, and nothing else.
    pub(crate) async fn end(&mut self) {
        while !self.open.is_empty() {
            self.vanish(0);
        }
        self.repair().await;
        self.check().await;
        for _ in 0..2 {
            self.plan_collection(Sentence::Right).await;
            self.collect().await;
            self.check().await;
        }
        let live = gc::live_chunks(&self.sealed, &self.domain).await.expect("liveness is read");
        for (kind, id) in self.packs().await {
            let pack = index::read_directory(&self.sealed, &self.domain, kind, id).await;
            let needed = pack.expect("a directory").entries.iter().any(|e| live.has(&e.chunk));
            assert!(needed, "nobody needs pack {id}");
        }
        for below in [names::all_intents(&self.domain), names::retired(&self.domain)] {
            let left = self.sealed.list(&below).await.expect("a listing");
            assert!(left.is_empty(), "{left:?}");
        }
    }
}
