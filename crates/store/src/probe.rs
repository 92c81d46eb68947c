//! Finding out whether a store keeps its promises, rather than believing it: a race for one name
//! over separate connections, and what get, list and delete say afterwards.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;

use crate::error::{Act, ErrorKind, StoreError};
use crate::key::{Key, Prefix};
use crate::store::{Put, Store};

/// Puts that race for one name in each round, when that many connections are handed in.
const RACERS_MIN: usize = 2;

/// What a store promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Promise {
    /// A name that is not there is answered "not found".
    MissingIsNotFound,
    /// Of racing puts of one name exactly one is told "created".
    OneWinner,
    /// Everyone then reads the winner's bytes.
    WinnersBytes,
    /// A put of a name that is there is told "exists", and changes nothing.
    ExistsIsExists,
    /// An object is listed as soon as its put was answered.
    ListedAtOnce,
    /// An object is gone, from get and list, as soon as its delete was answered.
    DeletedAtOnce,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFinding {
    /// Which one.
    pub promise: Promise,
    /// In which round, from 0.
    pub round: u32,
    /// What was seen.
    pub seen: String,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Rounds that were run.
    pub rounds: u32,
    /// Puts that raced in each of them.
    pub racers: usize,
    /// The promises that were broken; empty when all were kept.
    pub findings: Vec<ProbeFinding>,
    /// Whether the credentials may delete.
    pub deletion: Deletion,
}

/// What became of the deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// They were carried out.
    Allowed,
    /// They are denied, which is a way to guard a repository and breaks no promise. What the probe
    /// has put stays.
    Denied,
}

impl ProbeReport {
    /// Whether every promise was kept in every round.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Lets one put per store race for a fresh random name below `prefix`, in several rounds, and looks
/// at what is there afterwards. The stores are the same store, each opened on its own so that the
/// puts go over separate connections; 16 of them are enough. `random` fills a buffer with random
/// bytes.
///
/// # Errors
/// `Invalid` with fewer than two stores; otherwise whatever kept the probe from being carried out.
/// A broken promise is no error but a finding.
pub async fn probe(
    stores: &[Arc<dyn Store>],
    prefix: &Prefix,
    rounds: u32,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<ProbeReport, StoreError> {
    let url = stores.first().map(|store| store.url()).unwrap_or_default();
    if stores.len() < RACERS_MIN {
        let what = "a probe needs at least two connections to race";
        return Err(StoreError::new(ErrorKind::Invalid, Act::Open, url, what));
    }
    let mut report = ProbeReport {
        rounds,
        racers: stores.len(),
        findings: Vec::new(),
        deletion: Deletion::Allowed,
    };
    for round in 0..rounds {
        let mut id = [0; 16];
        random(&mut id);
        let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = prefix.key(&format!("probe-{name}"))?;
        let mut probing = Round { stores, prefix, key, round, report: &mut report };
        let outcome = probing.run().await;
        // Also after a failure: an object left behind would be in the way of nobody, but it is
        // litter.
        let cleaned = probing.clean_up().await;
        outcome?;
        cleaned?;
    }
    Ok(report)
}

struct Round<'a> {
    stores: &'a [Arc<dyn Store>],
    prefix: &'a Prefix,
    key: Key,
    round: u32,
    report: &'a mut ProbeReport,
}

impl Round<'_> {
    fn found(&mut self, promise: Promise, seen: impl Into<String>) {
        let round = self.round;
        self.report.findings.push(ProbeFinding { promise, round, seen: seen.into() });
    }

    /// The bytes of one racer: as long for each, and different.
    fn body(&self, racer: usize) -> Bytes {
        format!("{} racer {racer:06} round {:06}", self.key.file_name(), self.round).into()
    }

    async fn run(&mut self) -> Result<(), StoreError> {
        self.check_missing().await?;
        let Some(winner) = self.race().await? else {
            return Ok(());
        };
        self.check_bytes(winner).await?;
        self.check_exists(winner).await?;
        self.check_listed().await?;
        self.check_deleted().await
    }

    async fn check_missing(&mut self) -> Result<(), StoreError> {
        for store in self.stores.iter().take(1) {
            match store.get(&self.key, 0).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => self.found(Promise::MissingIsNotFound, chain(&error)),
                Ok(_) => self.found(Promise::MissingIsNotFound, "a fresh random name was there"),
            }
        }
        Ok(())
    }

    /// Every racer puts its own bytes; tells who won, unless that cannot be told.
    async fn race(&mut self) -> Result<Option<usize>, StoreError> {
        let puts = self.stores.iter().enumerate().map(|(racer, store)| {
            let (store, key, body) = (Arc::clone(store), self.key.clone(), self.body(racer));
            // A task each, so that the requests leave side by side.
            tokio::spawn(async move { store.put_once(&key, body).await })
        });
        let mut winners = Vec::new();
        let mut unknown = None;
        for (racer, answer) in join_all(puts).await.into_iter().enumerate() {
            match answer {
                Ok(Put::Created) => winners.push(racer),
                Ok(Put::Exists) => {}
                Ok(Put::Unknown(error)) => unknown = Some(error),
                Err(error) => {
                    let what = "the task of a racing put died";
                    let object = self.key.as_str();
                    return Err(StoreError::new(ErrorKind::Internal, Act::Put, object, what)
                        .caused_by(error));
                }
            }
        }
        match (winners.as_slice(), unknown) {
            (&[winner], _) => Ok(Some(winner)),
            // A loser may be told 409, which is no answer; that nobody won then may be the unknown
            // one's doing.
            ([], Some(error)) if error.kind() != ErrorKind::Conflict => Err(error),
            ([], _) => {
                self.found(Promise::OneWinner, "nobody was told that his put created the object");
                Ok(None)
            }
            (several, _) => {
                let seen = format!("{} puts of one name were told \"created\"", several.len());
                self.found(Promise::OneWinner, seen);
                Ok(None)
            }
        }
    }

    async fn check_bytes(&mut self, winner: usize) -> Result<(), StoreError> {
        let expected = self.body(winner);
        for (reader, store) in self.stores.iter().enumerate() {
            let seen = match store.get(&self.key, expected.len() as u64).await {
                Ok(bytes) if bytes == expected => continue,
                Ok(_) => format!("connection {reader} read a loser's bytes"),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => format!("connection {reader}: {}", chain(&error)),
            };
            self.found(Promise::WinnersBytes, seen);
            break;
        }
        Ok(())
    }

    async fn check_exists(&mut self, winner: usize) -> Result<(), StoreError> {
        let other = self.body(self.stores.len());
        for store in self.stores.iter().take(1) {
            match store.put_if_absent(&self.key, other.clone()).await {
                Put::Exists => {}
                Put::Created => {
                    self.found(Promise::ExistsIsExists, "a second put was told \"created\"");
                }
                Put::Unknown(error) => return Err(error),
            }
        }
        self.check_bytes(winner).await
    }

    async fn check_listed(&mut self) -> Result<(), StoreError> {
        for (reader, store) in self.stores.iter().enumerate() {
            if !lists(store, self.prefix, &self.key).await? {
                let seen = format!("connection {reader} did not list it");
                self.found(Promise::ListedAtOnce, seen);
                break;
            }
        }
        Ok(())
    }

    async fn check_deleted(&mut self) -> Result<(), StoreError> {
        self.clean_up().await?;
        if self.report.deletion == Deletion::Denied {
            return Ok(());
        }
        for (reader, store) in self.stores.iter().enumerate() {
            let seen = match store.get(&self.key, u64::MAX).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if !lists(store, self.prefix, &self.key).await? {
                        continue;
                    }
                    format!("connection {reader} still listed it")
                }
                Err(error) => return Err(error),
                Ok(_) => format!("connection {reader} still read it"),
            };
            self.found(Promise::DeletedAtOnce, seen);
            break;
        }
        Ok(())
    }

    async fn clean_up(&mut self) -> Result<(), StoreError> {
        for store in self.stores.iter().take(1) {
            match store.delete(&self.key).await {
                Err(error) if error.kind() == ErrorKind::Denied => {
                    self.report.deletion = Deletion::Denied;
                }
                answer => answer?,
            }
        }
        Ok(())
    }
}

async fn lists(store: &Arc<dyn Store>, prefix: &Prefix, key: &Key) -> Result<bool, StoreError> {
    store.list(prefix).try_any(|listed| std::future::ready(listed.key == *key)).await
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingIsNotFound => "a missing name is answered \"not found\"",
            Self::OneWinner => "of racing puts exactly one wins",
            Self::WinnersBytes => "everyone reads the winner's bytes",
            Self::ExistsIsExists => "a put of a name that is there is told \"exists\"",
            Self::ListedAtOnce => "an object is listed as soon as it was put",
            Self::DeletedAtOnce => "an object is gone as soon as it was deleted",
        })
    }
}

impl fmt::Display for ProbeFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promised: {}; seen in round {}: {}", self.promise, self.round, self.seen)
    }
}

#[cfg(test)]
mod tests;
