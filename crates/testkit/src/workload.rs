//! Clients that write all the time, and remember what the server told them.
//!
//! Each client owns its rows and works through transactions one at a time: inserts, updates,
//! deletes, savepoints, rollbacks. A connection that dies is made anew, so that a workload lives
//! through crashes, restarts and restores in place. The clients run on a thread of their own;
//! nothing here needs a runtime of the caller's.

mod client;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgrecall_pgformat::{Lsn, Timestamp};

use crate::commit_log::{Attempt, CommitLog, Moment, Row, RowId, TABLE};
use crate::postgres::Cluster;

use client::Client;

/// How long the clients may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keys are never used twice in a process, so that a row of another branch is seen as such.
static NEXT_ROW: AtomicI64 = AtomicI64::new(1);

/// What a workload does.
#[derive(Debug, Clone)]
pub struct WorkloadOptions {
    /// Connections at work at a time.
    pub clients: u32,
    /// Length of a row's payload in pieces of 32 bytes, which do not compress well.
    pub payload_pieces: u32,
    /// Each client rests this long after a transaction.
    pub rest: Duration,
    /// Decides what the clients do; runs differ all the same in how they interleave.
    pub seed: u64,
}

impl WorkloadOptions {
    /// `clients` clients with payloads of 320 bytes and 2 ms of rest.
    pub fn new(clients: u32) -> Self {
        Self { clients, payload_pieces: 10, rest: Duration::from_millis(2), seed: 1 }
    }
}

/// A workload under way; ends on drop.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    base: BTreeMap<RowId, Row>,
}

/// What the clients share with the thread that started them.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    pause: AtomicBool,
    clients: u32,
    idle: AtomicU32,
    acknowledged: AtomicU64,
    attempts: Mutex<Vec<Attempt>>,
}

impl Workload {
    /// Makes the table and starts the clients.
    pub fn start(cluster: &Cluster, options: &WorkloadOptions) -> Self {
        Self::go_on_from(cluster, &CommitLog::default(), options)
    }

    /// Starts the clients on a cluster that holds the rows of `log`, such as one restored to the
    /// target of [`CommitLog::branch_at`]. The log that [`Workload::finish`] gives begins there.
    ///
    /// Panics if `log` has transactions: only a branch says where its rows stand.
    pub fn go_on_from(cluster: &Cluster, log: &CommitLog, options: &WorkloadOptions) -> Self {
        assert!(log.attempts.is_empty(), "go on from a branch of the log");
        create_table(cluster);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            pause: AtomicBool::new(false),
            clients: options.clients,
            idle: AtomicU32::new(0),
            acknowledged: AtomicU64::new(0),
            attempts: Mutex::new(Vec::new()),
        });
        let clients: Vec<Client> = (0..options.clients)
            .map(|number| {
                let own = log.base.iter().filter(|(_, row)| row.client % options.clients == number);
                let rows = own.map(|(id, row)| (*id, row.version)).collect();
                let config = cluster.client_config();
                Client::new(number, config, options.clone(), rows, Arc::clone(&shared))
            })
            .collect();
        let thread = std::thread::spawn(move || drive(clients));
        Self { shared, thread: Some(thread), base: log.base.clone() }
    }

    /// Commits acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for `more` further acknowledged commits.
    pub fn wait_commits(&self, more: u64) {
        let goal = self.acknowledged() + more;
        self.wait(&format!("{more} more commits"), || self.acknowledged() >= goal);
    }

    /// Lets the transactions under way end and holds the clients; none has one open afterwards.
    pub fn pause(&self) {
        self.shared.pause.store(true, Ordering::SeqCst);
        let clients = self.shared.clients;
        self.wait("all clients are idle", || self.shared.idle.load(Ordering::SeqCst) == clients);
    }

    /// Ends a pause.
    pub fn go_on(&self) {
        self.shared.pause.store(false, Ordering::SeqCst);
    }

    /// Makes a restore point and returns its LSN (the end of its record).
    pub fn restore_point(&self, cluster: &Cluster, name: &str) -> Lsn {
        parse_lsn(&cluster.psql(&format!("SELECT pg_create_restore_point('{name}')")))
    }

    /// The server's WAL position and clock, now.
    pub fn mark(&self, cluster: &Cluster) -> Moment {
        let text = cluster.psql(&format!("SELECT {MOMENT_SQL}"));
        let (lsn, micros) = text.split_once('|').expect("two fields");
        moment(lsn, micros)
    }

    /// Ends the clients and reads the WAL: see [`CommitLog::resolve`].
    pub fn finish(self, cluster: &Cluster) -> CommitLog {
        let mut log = self.stop();
        log.resolve(cluster);
        log
    }

    /// Ends the clients. The log still has to be resolved.
    pub fn stop(mut self) -> CommitLog {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("stopped once");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        let mut attempts =
            self.shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
        attempts.sort_by_key(|attempt| attempt.before.map(|moment| moment.lsn));
        let mut log = CommitLog::default();
        log.base = std::mem::take(&mut self.base);
        log.attempts = attempts;
        log
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            let dead = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!dead, "the clients ended while a test waited until {what}");
            assert!(Instant::now() < end, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been printed; a second one here would abort the test run.
            let _ = thread.join();
        }
    }
}

/// SQL for a [`Moment`]: position and microseconds since 1970.
const MOMENT_SQL: &str =
    "pg_current_wal_insert_lsn(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

fn moment(lsn: &str, micros: &str) -> Moment {
    Moment { lsn: parse_lsn(lsn), time: parse_time(micros) }
}

fn parse_lsn(text: &str) -> Lsn {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn parse_time(micros: &str) -> Timestamp {
    let micros = micros.parse().unwrap_or_else(|e| panic!("{micros:?}: {e}"));
    Timestamp::from_unix_micros(micros)
}

fn create_table(cluster: &Cluster) {
    cluster.psql(&format!(
        "BEGIN;
         CREATE TABLE IF NOT EXISTS {TABLE} (id bigint PRIMARY KEY, client int NOT NULL,
             version int NOT NULL, pieces int NOT NULL, payload text NOT NULL);
         CREATE INDEX IF NOT EXISTS {TABLE}_client ON {TABLE} (client, version);
         CREATE OR REPLACE FUNCTION {TABLE}_payload(id bigint, version int, pieces int)
             RETURNS text IMMUTABLE LANGUAGE sql AS
             $$ SELECT coalesce(string_agg(md5(format('%s/%s/%s', id, version, i)), '' ORDER BY i), '')
                FROM generate_series(1, pieces) AS i $$;
         COMMIT;"
    ));
}

fn drive(clients: Vec<Client>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|e| panic!("runtime: {e}"));
    runtime.block_on(async {
        futures::future::join_all(clients.into_iter().map(Client::run)).await;
    });
}
