//! One client of a workload.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_postgres::{Config, Error, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{MOMENT_SQL, NEXT_ROW, Shared, WorkloadOptions, moment, parse_time};
use crate::commit_log::{Attempt, Change, Outcome, Row, RowId, TABLE};

/// How long a client waits between tries to connect, and looks whether a pause is over.
const POLL: Duration = Duration::from_millis(5);

pub(super) struct Client {
    number: u32,
    config: Config,
    options: WorkloadOptions,
    /// Rows that are surely there, with their versions.
    rows: Vec<(RowId, u32)>,
    random: u64,
    shared: Arc<Shared>,
}

/// What a transaction is going to do.
struct Transaction {
    sql: String,
    changes: Vec<(RowId, Change)>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

impl Client {
    pub(super) fn new(
        number: u32,
        config: Config,
        options: WorkloadOptions,
        rows: Vec<(RowId, u32)>,
        shared: Arc<Shared>,
    ) -> Self {
        let random = options.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number));
        Self { number, config, options, rows, random, shared }
    }

    pub(super) async fn run(mut self) {
        while !self.stopped() {
            if self.shared.pause.load(Ordering::SeqCst) {
                self.sit_out_pause().await;
                continue;
            }
            match self.config.connect(NoTls).await {
                Ok((session, connection)) => {
                    let driver = tokio::spawn(connection);
                    self.work(&session).await;
                    drop(session);
                    let _ = driver.await;
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Runs transactions until told to stop or the connection dies.
    async fn work(&mut self, session: &tokio_postgres::Client) {
        while !self.stopped() {
            if self.shared.pause.load(Ordering::SeqCst) {
                self.sit_out_pause().await;
                continue;
            }
            let transaction = self.next_transaction();
            let mut attempt = Attempt {
                client: self.number,
                xid: None,
                changes: transaction.changes.clone(),
                before: None,
                outcome: Outcome::NotCommitted,
                record: None,
            };
            let lost = run_transaction(session, &transaction, &mut attempt).await;
            self.remember(&attempt);
            if let Some(message) = lost.as_ref().and_then(unexpected) {
                panic!("client {}: {message}\n{}", self.number, transaction.sql);
            }
            self.shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
            if lost.is_some() {
                return;
            }
            tokio::time::sleep(self.options.rest).await;
        }
    }

    async fn sit_out_pause(&self) {
        self.shared.idle.fetch_add(1, Ordering::SeqCst);
        while self.shared.pause.load(Ordering::SeqCst) && !self.stopped() {
            tokio::time::sleep(POLL).await;
        }
        self.shared.idle.fetch_sub(1, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Brings `rows` up to date; rows in doubt are left alone from then on.
    fn remember(&mut self, attempt: &Attempt) {
        if attempt.outcome == Outcome::NotCommitted {
            return;
        }
        for (id, change) in &attempt.changes {
            self.rows.retain(|(known, _)| known != id);
            let acknowledged = attempt.outcome != Outcome::Unknown;
            if let (Change::Write(row), true) = (change, acknowledged) {
                self.rows.push((*id, row.version));
            }
        }
        if attempt.outcome != Outcome::Unknown {
            self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn next_transaction(&mut self) -> Transaction {
        let mut transaction =
            Transaction { sql: "BEGIN;\n".to_owned(), changes: Vec::new(), end: End::Commit };
        let acts = 1 + self.below(3);
        let mut untouched = self.rows.clone();
        for _ in 0..acts {
            let dice = self.below(100);
            let chosen = if dice >= 55 && !untouched.is_empty() {
                let at = usize::try_from(self.below(untouched.len() as u64)).expect("an index");
                Some(untouched.swap_remove(at))
            } else {
                None
            };
            match chosen {
                Some((id, _)) if dice >= 92 => transaction.delete(id),
                Some((id, version)) => self.update(&mut transaction, id, version + 1),
                None => self.insert(&mut transaction, dice),
            }
        }
        if self.below(20) == 0 {
            transaction.end = End::Rollback;
        }
        transaction
    }

    /// Inserts a row; now and then within a savepoint, and now and then only to take it back.
    fn insert(&self, transaction: &mut Transaction, dice: u64) {
        let id = NEXT_ROW.fetch_add(1, Ordering::SeqCst);
        let (client, pieces) = (self.number, self.options.payload_pieces);
        let insert = format!(
            "INSERT INTO {TABLE} VALUES ({id}, {client}, 1, {pieces}, \
             {TABLE}_payload({id}, 1, {pieces}));\n"
        );
        let mut change = Change::Write(Row { client, version: 1 });
        match dice {
            0..=4 => {
                transaction.sql += &format!("SAVEPOINT s;\n{insert}ROLLBACK TO s;\n");
                change = Change::TakenBack;
            }
            5..=9 => transaction.sql += &format!("SAVEPOINT s;\n{insert}RELEASE s;\n"),
            _ => transaction.sql += &insert,
        }
        transaction.changes.push((id, change));
    }

    fn update(&self, transaction: &mut Transaction, id: RowId, version: u32) {
        // The row may have come from another client, whose number modulo ours is this one's.
        let client = self.number;
        transaction.sql += &format!(
            "UPDATE {TABLE} SET client = {client}, version = {version}, \
             payload = {TABLE}_payload(id, {version}, pieces) WHERE id = {id};\n"
        );
        transaction.changes.push((id, Change::Write(Row { client, version })));
    }

    /// A number below `limit`, by SplitMix64.
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

impl Transaction {
    fn delete(&mut self, id: RowId) {
        self.sql += &format!("DELETE FROM {TABLE} WHERE id = {id};\n");
        self.changes.push((id, Change::Delete));
    }
}

/// Runs a transaction, noting in `attempt` what the server says; an error ends the session.
async fn run_transaction(
    session: &tokio_postgres::Client,
    transaction: &Transaction,
    attempt: &mut Attempt,
) -> Option<Error> {
    let sql = format!("{}SELECT pg_current_xact_id(), {MOMENT_SQL}", transaction.sql);
    let row = match one_row(session, &sql).await {
        Ok(row) => row,
        Err(error) => return Some(error),
    };
    let xid = field(&row, 0);
    attempt.xid = Some(xid.parse().unwrap_or_else(|e| panic!("xid {xid:?}: {e}")));
    attempt.before = Some(moment(field(&row, 1), field(&row, 2)));
    if transaction.end == End::Rollback {
        return session.simple_query("ROLLBACK").await.err();
    }
    if let Err(error) = session.simple_query("COMMIT").await {
        attempt.outcome = Outcome::Unknown;
        return Some(error);
    }
    let sql = format!(
        "SELECT {MOMENT_SQL}, CASE WHEN current_setting('track_commit_timestamp') = 'on' THEN \
         (extract(epoch FROM pg_xact_commit_timestamp('{xid}'::xid)) * 1000000)::bigint END"
    );
    let (mut after, mut commit_time) = (None, None);
    let told = one_row(session, &sql).await;
    if let Ok(row) = &told {
        after = Some(moment(field(row, 0), field(row, 1)));
        commit_time = row.get(2).map(parse_time);
    }
    attempt.outcome = Outcome::Acknowledged { after, commit_time };
    told.err()
}

async fn one_row(session: &tokio_postgres::Client, sql: &str) -> Result<SimpleQueryRow, Error> {
    let messages = session.simple_query(sql).await?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.unwrap_or_else(|| panic!("no row from {sql}")))
}

fn field(row: &SimpleQueryRow, at: usize) -> &str {
    row.get(at).unwrap_or_else(|| panic!("field {at} is null"))
}

/// What is wrong when the server refused a statement; `None` when it went away, which a workload
/// lives with: a lost connection, class 57 (operator intervention), 25006 (read-only: it became a
/// standby).
fn unexpected(error: &Error) -> Option<String> {
    let refused = error.as_db_error()?;
    let code = refused.code().code();
    let went_away = code.starts_with("57") || code.starts_with("08") || code == "25006";
    if went_away { None } else { Some(format!("{code} {}", refused.message())) }
}
