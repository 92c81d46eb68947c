//! Expiry over a repository in memory: what the plan says is what goes, whatever fails when, and
//! whatever happens beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::catalog;
use pgrecall_engine::clock::{Clock, TimeSource};
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_engine::error::{EngineError, ErrorKind};
use pgrecall_engine::progress::Progress;
use pgrecall_engine::retention::expire::{Done, carry_out};
use pgrecall_engine::retention::plan::{ExpirePlan, ExpireRequest, plan};
use pgrecall_engine::retention::rules::{KeepRules, Reason};
use pgrecall_engine::retention::wal::WalCut;
use pgrecall_engine::retention::{floor, hold};
use pgrecall_pgformat::TimelineId;
use pgrecall_pgformat::control::{ControlFile, DataChecksums};
use pgrecall_repo::backup::{BackupSession, report_damage};
use pgrecall_repo::damaged_wal::{Say, WalNotes};
use pgrecall_repo::format::document::{DamagedChunk, DamagedWal, Hold, Manifest, TableChunk};
use pgrecall_repo::id::{BackupId, ChunkId, PackId};
use pgrecall_repo::names;
use pgrecall_repo::repair::{carry_out as repair, look};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Put, Store};
use pgrecall_testkit::repositories::{self, InMemory};
use pgrecall_testkit::stores::{Calls, FailNth, Hooked, Lasting, Meanwhile};

/// The clock stands still at the end of November.
struct Noon;

impl TimeSource for Noon {
    fn now(&self) -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

struct Bench {
    store: Arc<dyn Store>,
    repository: Repository,
    cluster: ClusterStore,
}

impl Bench {
    /// A cluster with segments 1 to 20 of a mebibyte each.
    async fn new() -> Self {
        let InMemory { store, repository, .. } = InMemory::create().await;
        let cluster = register(&repository, 7).await;
        let bench = Self { store, repository, cluster };
        for number in 1..=20 {
            bench.put(&segment(number)).await;
        }
        bench
    }

    async fn put(&self, path: &str) {
        let name = names::cluster_object(&self.cluster.at, path).unwrap();
        let put = self.store.put_if_absent(&name, vec![7; 100].into()).await;
        assert!(matches!(put, Put::Created), "{put:?}");
    }

    /// The segments that are stored.
    async fn segments(&self) -> Vec<u64> {
        let below = names::cluster_prefix(&self.cluster.at, "wal").unwrap();
        let listed = self.cluster.sealed.list(&below).await.unwrap();
        let number = |key: &Key| u64::from_str_radix(&key.file_name()[16..24], 16).unwrap();
        listed.iter().map(|object| number(&object.key)).collect()
    }

    async fn backups(&self) -> Vec<BackupId> {
        let (known, _) = catalog::backups(&self.cluster).await.unwrap();
        known.iter().map(|backup| backup.manifest.backup).collect()
    }

    /// The cluster over a store whose calls of some kind fail from one on.
    fn failing(&self, nth: u64) -> (ClusterStore, Arc<Hooked<FailNth>>) {
        let failing = FailNth::over(
            self.store.clone(),
            Calls::all(),
            nth,
            Lasting::ForEver,
            pgrecall_store::ErrorKind::Denied,
        );
        let sealed = &self.cluster.sealed;
        let sealed =
            SealedStore::new(failing.clone(), sealed.keys().clone(), sealed.random().clone());
        (ClusterStore { sealed, ..self.cluster.clone() }, failing)
    }
}

async fn register(repository: &Repository, system: u64) -> ClusterStore {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pg/17/pg_control");
    let mut facts =
        ClusterFacts::of(&ControlFile::decode(&std::fs::read(folder).unwrap()).unwrap());
    facts.system_identifier = system;
    let (domain, name) = ("main".parse().unwrap(), "main".parse().unwrap());
    ClusterStore::register(repository, &domain, &name, facts).await.unwrap()
}

fn segment(number: u64) -> String {
    format!("wal/1MiB/00000001/00000000/0000000100000000{number:08X}")
}

/// A backup that starts in segment `number` and is consistent there.
async fn backup(cluster: &ClusterStore, number: u64, ended: &str) -> BackupId {
    let session = begin(cluster).await;
    session.commit(&manifest(cluster, &session, number, ended)).await.unwrap();
    session.id()
}

/// One whose list of files is not stored.
async fn broken_backup(cluster: &ClusterStore, number: u64, ended: &str) -> BackupId {
    let session = begin(cluster).await;
    let lost = TableChunk {
        first: "PG_VERSION".into(),
        entries: 1,
        id: ChunkId::from_bytes([9; 32]),
        plain_len: 100,
    };
    let mut manifest = manifest(cluster, &session, number, ended);
    (manifest.tables, manifest.entries) = (vec![lost], 1);
    session.commit(&manifest).await.unwrap();
    session.id()
}

fn manifest(cluster: &ClusterStore, session: &BackupSession, number: u64, ended: &str) -> Manifest {
    Manifest {
        backup: session.id(),
        cluster: cluster.at.cluster.to_string(),
        lineage: cluster.at.lineage.clone(),
        tables: vec![],
        entries: 0,
        bytes: 1000,
        details: serde_json::json!({
            "began": ended, "ended": ended, "host": "db1",
            "major": cluster.facts.major, "server_version": 170011, "catalog_version": 202406281,
            "from": "primary",
            "start": {"timeline": TimelineId(1), "lsn": format!("0/{number:X}00028")},
            "checkpoint_lsn": format!("0/{number:X}00060"),
            "stop": {"timeline": TimelineId(1), "lsn": format!("0/{number:X}00130")},
            "backup_label": "", "tablespace_map": "", "tablespaces": [], "pg_wal_link": null,
            "page_size_bytes": 8192, "wal_segment_size": cluster.facts.wal_segment_size,
            "relation_segment_pages": 131072, "data_checksums": DataChecksums::Off,
            "chunk_bytes": 262144, "method": "full", "reference": null, "damage": [],
            "stats": {}, "saw_backups": [],
        }),
    }
}

async fn begin(cluster: &ClusterStore) -> BackupSession {
    repositories::begin(&cluster.sealed, &cluster.at).await
}

/// Backups in segments 3, 8, 12 and 16, the first in October.
async fn four(bench: &Bench) -> [BackupId; 4] {
    let cluster = &bench.cluster;
    [
        backup(cluster, 3, "2026-10-15T02:00:00Z").await,
        backup(cluster, 8, "2026-11-10T02:00:00Z").await,
        backup(cluster, 12, "2026-11-20T02:00:00Z").await,
        backup(cluster, 16, "2026-11-29T02:00:00Z").await,
    ]
}

fn request(rules: KeepRules) -> ExpireRequest {
    ExpireRequest { rules, zone: TimeZone::UTC, clock: Clock::new(Noon), cancel: Cancel::new() }
}

fn two_and_two_months() -> ExpireRequest {
    request(KeepRules { last: 2, monthly: 2, ..KeepRules::default() })
}

async fn planned(bench: &Bench, request: ExpireRequest) -> ExpirePlan {
    plan(&bench.cluster, &request).await.unwrap()
}

async fn run(cluster: &ClusterStore, plan: &ExpirePlan) -> Result<Done, EngineError> {
    carry_out(cluster, plan, &Progress::silent(), &Cancel::new()).await
}

#[tokio::test]
async fn what_the_plan_says_goes_and_nothing_else() {
    let bench = Bench::new().await;
    let [october, gone, kept, newest] = four(&bench).await;
    bench.put("wal/1MiB/00000001/00000000/000000010000000000000005.partial").await;
    let plan = planned(&bench, two_and_two_months()).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [october, kept, newest]);
    assert_eq!(plan.expires.iter().map(|row| row.id).collect::<Vec<_>>(), [gone]);
    assert_eq!(plan.reaches_back_to.as_deref(), Some("2026-10-15T02:00:00Z"));
    assert_eq!(plan.will_reach_back_to.as_deref(), Some("2026-11-20T02:00:00Z"));
    assert_eq!(bench.backups().await.len(), 4, "a plan writes nothing");
    let done = run(&bench.cluster, &plan).await.unwrap();
    assert_eq!((done.manifests, done.wal_objects), (1, plan.wal_objects));
    assert_eq!(bench.backups().await, [october, kept, newest]);
    assert_eq!(bench.segments().await, [3, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    // The one of October can be restored still, and what has gone on purpose is no damage.
    let catalog = catalog::read(&bench.cluster, &Clock::new(Noon), "db1").await.unwrap();
    assert!(catalog.backups.iter().all(|row| row.wal_complete));
    let again = planned(&bench, two_and_two_months()).await;
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(run(&bench.cluster, &again).await.unwrap(), Done::default());
}

#[tokio::test]
async fn backups_of_one_second_go_in_the_order_of_the_wal() {
    let bench = Bench::new().await;
    let mut all = Vec::new();
    for number in 3..=10 {
        all.push(backup(&bench.cluster, number, "2026-11-29T02:00:00Z").await);
    }
    let plan = planned(&bench, request(KeepRules { last: 4, ..KeepRules::default() })).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), all[4..]);
}

#[tokio::test]
async fn one_dated_in_the_future_is_not_the_newest_for_ever() {
    let bench = Bench::new().await;
    backup(&bench.cluster, 3, "2099-01-01T00:00:00Z").await;
    let newer = backup(&bench.cluster, 8, "2026-11-29T02:00:00Z").await;
    let plan = planned(&bench, request(KeepRules { last: 1, ..KeepRules::default() })).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [newer]);
}

#[tokio::test]
async fn one_that_lacks_chunks_pushes_out_none_that_works() {
    let bench = Bench::new().await;
    let old = backup(&bench.cluster, 3, "2026-11-10T02:00:00Z").await;
    let broken = broken_backup(&bench.cluster, 8, "2026-11-20T02:00:00Z").await;
    let rules = KeepRules { last: 1, ..KeepRules::default() };
    let plan = planned(&bench, request(rules.clone())).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [old, broken]);
    assert_eq!(plan.keeps[1].reasons, [Reason::NewerThanGood]);
    assert!(plan.notes[0].contains(&broken.to_string()), "{:?}", plan.notes);
    let newest = backup(&bench.cluster, 12, "2026-11-29T02:00:00Z").await;
    // It seems broken, maybe for a moment: it takes no place of one that works, and does not go.
    let two = KeepRules { last: 2, ..KeepRules::default() };
    let plan = planned(&bench, request(two)).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [old, broken, newest]);
    let plan = planned(&bench, request(rules)).await;
    assert_eq!(plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [newest]);
}

#[tokio::test]
async fn one_whose_wal_was_found_damaged_pushes_out_none_that_works() {
    let bench = Bench::new().await;
    let old = backup(&bench.cluster, 3, "2026-11-10T02:00:00Z").await;
    let newest = backup(&bench.cluster, 8, "2026-11-29T02:00:00Z").await;
    let rules = KeepRules { last: 1, ..KeepRules::default() };
    let (sealed, at) = (&bench.cluster.sealed, &bench.cluster.at);
    let note = async |number, from: &str| {
        let object = names::cluster_object(at, &segment(number)).unwrap().to_string();
        let wal = DamagedWal { object, after: None, from: from.into() };
        let notes = WalNotes::read(sealed, at).await.unwrap();
        let damaged = BTreeSet::from([wal]);
        let say = Say { damaged, found: "verify on db1".into() };
        notes.put_next(sealed, at, say).await.unwrap();
    };
    // Behind the point where it is consistent, and what is not there: it can be restored.
    for (number, from) in [(8, "0/800131"), (9, "0/900000"), (40, "0/2800000")] {
        note(number, from).await;
        let made = planned(&bench, request(rules.clone())).await;
        assert_eq!(made.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [newest], "{number}");
    }
    note(8, "0/800100").await;
    let made = planned(&bench, request(rules.clone())).await;
    assert_eq!(made.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [old, newest]);
    assert_eq!(made.keeps[1].reasons, [Reason::NewerThanGood]);
    assert!(made.notes[0].starts_with(&newest.to_string()), "{:?}", made.notes);
    assert!(made.notes[0].contains("000000010000000000000008"), "{:?}", made.notes);
    let notes = WalNotes::read(sealed, at).await.unwrap();
    notes.put_next(sealed, at, Say::default()).await.unwrap();
    let made = planned(&bench, request(rules.clone())).await;
    assert_eq!(made.keeps.iter().map(|row| row.id).collect::<Vec<_>>(), [newest]);
    // What does not read may say that the newest is no good.
    let log = names::damaged_wal(at).unwrap();
    let entry = sealed.list(log.prefix()).await.unwrap().pop().unwrap().key;
    bench.store.delete(&entry).await.unwrap();
    let _ = bench.store.put_if_absent(&entry, vec![1; 100].into()).await;
    let refused = plan(&bench.cluster, &request(rules.clone())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains(entry.as_str()), "{refused}");
    assert!(refused.hints()[0].contains("verify --read-data"), "{:?}", refused.hints());
    let mending = look(sealed, &at.domain).await.unwrap();
    assert!(mending.is_empty() && mending.left[0].name == entry, "{mending:?}");
    // Who has read everything again writes the next.
    let notes = WalNotes::unread(sealed, at).await.unwrap();
    notes.put_next(sealed, at, Say::default()).await.unwrap();
    plan(&bench.cluster, &request(rules.clone())).await.unwrap();

    // The same of a note of chunks.
    let note =
        DamagedChunk { pack: PackId::from_bytes([1; 16]), chunk: ChunkId::from_bytes([9; 32]) };
    report_damage(sealed, at, vec![note], "verify on db1".into()).await.unwrap();
    plan(&bench.cluster, &request(rules.clone())).await.unwrap();
    let name = sealed.list(&names::all_damaged(&at.domain)).await.unwrap().pop().unwrap().key;
    bench.store.delete(&name).await.unwrap();
    let _ = bench.store.put_if_absent(&name, vec![1; 100].into()).await;
    for _ in 0..2 {
        let refused = plan(&bench.cluster, &request(rules.clone())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        let mending = look(sealed, &at.domain).await.unwrap();
        repair(sealed, &at.domain, &mending).await.unwrap();
    }
}

#[tokio::test]
async fn a_plan_made_before_another_hosts_expiry_is_refused() {
    let bench = Bench::new().await;
    four(&bench).await;
    let mine = planned(&bench, two_and_two_months()).await;
    let other = request(KeepRules { last: 3, ..KeepRules::default() });
    let other = planned(&bench, other).await;
    run(&bench.cluster, &other).await.unwrap();
    let left = bench.backups().await;
    let error = run(&bench.cluster, &mine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(bench.backups().await, left, "each alone keeps the other's last one");
}

#[tokio::test]
async fn a_plan_that_wins_a_number_that_was_freed_is_refused() {
    let bench = Bench::new().await;
    four(&bench).await;
    let old = planned(&bench, request(KeepRules { last: 1, ..KeepRules::default() })).await;
    for last in [3, 2] {
        let next = planned(&bench, request(KeepRules { last, ..KeepRules::default() })).await;
        run(&bench.cluster, &next).await.unwrap();
    }
    let (left, segments) = (bench.backups().await, bench.segments().await);
    assert_eq!(run(&bench.cluster, &old).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((bench.backups().await, bench.segments().await), (left, segments));
}

#[tokio::test]
async fn a_manifest_that_arrives_late_is_expired_all_the_same() {
    let bench = Bench::new().await;
    let [_, gone, ..] = four(&bench).await;
    let name = names::manifest(&bench.cluster.at, gone);
    let late = bench.store.get(&name, 1 << 20).await.unwrap();
    let first = planned(&bench, two_and_two_months()).await;
    run(&bench.cluster, &first).await.unwrap();
    let put = bench.store.put_if_absent(&name, late).await;
    assert!(matches!(put, Put::Created), "{put:?}");
    assert!(!bench.backups().await.contains(&gone));
    let next = planned(&bench, two_and_two_months()).await;
    assert_eq!(run(&bench.cluster, &next).await.unwrap().manifests, 1);
    assert!(bench.store.get(&name, 1 << 20).await.is_err());
}

#[tokio::test]
async fn nothing_expires_by_what_does_not_read() {
    let bench = Bench::new().await;
    let [first, ..] = four(&bench).await;
    let three = request(KeepRules { last: 3, ..KeepRules::default() });
    run(&bench.cluster, &planned(&bench, three).await).await.unwrap();
    let log = names::expired(bench.cluster.domain()).entry(0);
    for name in [names::manifest(&bench.cluster.at, bench.backups().await[0]), log] {
        let sound = bench.store.get(&name, 1 << 20).await.unwrap();
        let mut rotten = sound.to_vec();
        let at = rotten.len() - 20;
        rotten[at] ^= 1;
        bench.store.delete(&name).await.unwrap();
        let _ = bench.store.put_if_absent(&name, rotten.into()).await;
        let refused = plan(&bench.cluster, &two_and_two_months()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        bench.store.delete(&name).await.unwrap();
        let _ = bench.store.put_if_absent(&name, sound).await;
    }
    assert!(!bench.backups().await.contains(&first));
}

#[tokio::test]
async fn backups_under_way_keep_their_wal() {
    let bench = Bench::new().await;
    four(&bench).await;
    let silent = begin(&bench.cluster).await;
    let beside = planned(&bench, two_and_two_months()).await;
    assert!(matches!(&beside.wal, WalCut::Nothing { why } if why.contains("under way")));
    assert_eq!(beside.expires.len(), 1, "backups do not wait for it");
    silent.abandon().await.unwrap();
    let before = planned(&bench, two_and_two_months()).await;
    // On a standby that lags behind, after the plan was made.
    let behind = begin(&bench.cluster).await;
    behind.put_start("1".into(), "0/A00028".into()).await.unwrap();
    run(&bench.cluster, &before).await.unwrap();
    assert_eq!(bench.segments().await, [3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn what_begins_below_what_has_expired_is_refused() {
    let bench = Bench::new().await;
    four(&bench).await;
    let starts_at = async |timeline: u32, lsn: &str| {
        let start =
            floor::require_wal_from(&bench.cluster, TimelineId(timeline), lsn.parse().unwrap());
        start.await.map_err(|error| error.kind())
    };
    assert_eq!(starts_at(1, "0/A00028").await, Ok(()));
    run(&bench.cluster, &planned(&bench, two_and_two_months()).await).await.unwrap();
    assert_eq!(starts_at(1, "0/BFFFD8").await, Err(ErrorKind::Incomplete));
    assert_eq!(starts_at(1, "0/C00028").await, Ok(()), "the oldest that is kept with its WAL");
    assert_eq!(starts_at(2, "0/A00028").await, Ok(()), "a timeline that was not there");
}

#[tokio::test]
async fn a_backup_that_ends_between_plan_and_removal_does_not_lower_the_floor() {
    let bench = Bench::new().await;
    four(&bench).await;
    let slow = begin(&bench.cluster).await;
    slow.put_start("1".into(), "0/A00028".into()).await.unwrap();
    let beside = planned(&bench, two_and_two_months()).await;
    slow.abandon().await.unwrap();
    run(&bench.cluster, &beside).await.unwrap();
    // What the log does not say stays: who begins now looks there.
    assert_eq!(bench.segments().await, [3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn a_timeline_that_came_since_the_plan_stays() {
    let bench = Bench::new().await;
    four(&bench).await;
    let before = planned(&bench, two_and_two_months()).await;
    // Somebody has restored the first backup as a primary.
    bench.put("wal/1MiB/00000002/00000000/000000020000000000000003").await;
    run(&bench.cluster, &before).await.unwrap();
    assert_eq!(bench.segments().await, [3, 12, 13, 14, 15, 16, 17, 18, 19, 20, 3]);
}

#[tokio::test]
async fn a_backup_committed_since_the_plan_keeps_its_wal() {
    let bench = Bench::new().await;
    four(&bench).await;
    let before = planned(&bench, two_and_two_months()).await;
    // Of a standby that lags behind: it starts before all that the plan keeps with their WAL.
    let late = backup(&bench.cluster, 10, "2026-11-30T11:00:00Z").await;
    run(&bench.cluster, &before).await.unwrap();
    assert_eq!(bench.segments().await, [3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    let catalog = catalog::read(&bench.cluster, &Clock::new(Noon), "db1").await.unwrap();
    assert!(catalog.backups.iter().any(|row| row.id == late && row.wal_complete));
}

#[tokio::test]
async fn another_lineage_of_the_name_is_not_touched() {
    let bench = Bench::new().await;
    four(&bench).await;
    let other = register(&bench.repository, 8).await;
    let old = backup(&other, 2, "2020-01-01T00:00:00Z").await;
    let one = request(KeepRules { last: 1, ..KeepRules::default() });
    run(&bench.cluster, &planned(&bench, one).await).await.unwrap();
    assert_eq!(bench.backups().await.len(), 1);
    let (known, _) = catalog::backups(&other).await.unwrap();
    assert_eq!(known[0].manifest.backup, old);
}

#[tokio::test]
async fn without_rules_nothing_is_planned() {
    let bench = Bench::new().await;
    four(&bench).await;
    let error = plan(&bench.cluster, &request(KeepRules::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_expiry_that_dies_anywhere_is_finished_by_the_next() {
    let mut died = 0;
    for nth in 1.. {
        let bench = Bench::new().await;
        let [october, _, kept, newest] = four(&bench).await;
        let made = planned(&bench, two_and_two_months()).await;
        let (cluster, failing) = bench.failing(nth);
        let first = run(&cluster, &made).await;
        if !failing.hook().has_failed() {
            assert!(first.is_ok());
            break;
        }
        died += u64::from(first.is_err());
        // Whatever is left, what stays can be restored.
        let catalog = catalog::read(&bench.cluster, &Clock::new(Noon), "db1").await.unwrap();
        let sound = |id: &BackupId| catalog.backups.iter().any(|b| b.id == *id && b.wal_complete);
        assert!([october, kept, newest].iter().all(sound), "call {nth}");
        let next = planned(&bench, two_and_two_months()).await;
        run(&bench.cluster, &next).await.unwrap();
        assert_eq!(bench.backups().await, [october, kept, newest], "call {nth}");
        let left = bench.segments().await;
        assert_eq!(left, [3, 12, 13, 14, 15, 16, 17, 18, 19, 20], "call {nth}");
    }
    assert!(died > 15, "{died}");
}

fn held(backup: BackupId, until: Option<&str>) -> Hold {
    let until = until.map(str::to_owned);
    Hold { backup, reason: "audit".into(), until, by: "a test".into() }
}

#[tokio::test]
async fn what_is_held_stays_until_the_hold_ends_or_is_removed() {
    let bench = Bench::new().await;
    let [october, gone, kept, newest] = four(&bench).await;
    let last = || request(KeepRules { last: 1, ..KeepRules::default() });
    let keeps = async || {
        let plan = planned(&bench, last()).await;
        plan.keeps.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    hold::add(&bench.cluster, &held(october, None)).await.unwrap();
    // Over for the newest backup, and not over.
    hold::add(&bench.cluster, &held(gone, Some("2026-11-29T01:00:00Z"))).await.unwrap();
    hold::add(&bench.cluster, &held(kept, Some("2026-11-29T03:00:00Z"))).await.unwrap();
    assert_eq!(keeps().await, [october, kept, newest]);
    run(&bench.cluster, &planned(&bench, last()).await).await.unwrap();
    assert_eq!(bench.backups().await, [october, kept, newest]);
    assert!(bench.segments().await.contains(&3), "it can be restored");
    let holds = hold::holds(&bench.cluster).await.unwrap();
    assert_eq!(holds.iter().map(|hold| hold.backup).collect::<Vec<_>>(), [october, kept]);
    hold::remove(&bench.cluster, october).await.unwrap();
    hold::remove(&bench.cluster, october).await.unwrap();
    assert_eq!(keeps().await, [kept, newest]);
    let late = hold::add(&bench.cluster, &held(gone, None)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound, "{late}");
}

#[tokio::test]
async fn of_a_hold_and_an_expiry_at_once_one_comes_first() {
    let (mut refused, mut missed) = (0, 0);
    for nth in 1.. {
        let bench = Bench::new().await;
        let [october, ..] = four(&bench).await;
        let other = bench.cluster.clone();
        let (told, heard) = std::sync::mpsc::channel();
        let store = Meanwhile::over(bench.store.clone(), nth, async move || {
            let added = hold::add(&other, &held(october, None)).await;
            told.send(added.map_err(|error| error.kind())).unwrap();
        });
        let sealed = &bench.cluster.sealed;
        let sealed = SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
        let cluster = ClusterStore { sealed, ..bench.cluster.clone() };
        let last = request(KeepRules { last: 1, ..KeepRules::default() });
        let expired = match plan(&cluster, &last).await {
            Ok(plan) => run(&cluster, &plan).await.map(drop),
            Err(error) => Err(error),
        };
        let there = bench.backups().await.contains(&october);
        match heard.try_recv() {
            Ok(Ok(())) => {
                assert!(there, "call {nth}: it was said to be held");
                refused += u32::from(expired.is_err());
            }
            Ok(Err(kind)) => {
                assert_eq!((kind, there), (ErrorKind::NotFound, false), "call {nth}");
                missed += 1;
            }
            Err(_) => break,
        }
    }
    assert!(refused > 3 && missed > 3, "{refused} {missed}");
}
