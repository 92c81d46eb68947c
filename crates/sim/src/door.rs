//! What stands between a process and its connection, and makes the requests of a wrong product.

mod backup;
mod collect;
mod expire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pgrecall_repo::format::document::Document;
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::id::RoundId;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::object;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Listed, MemoryStore, Prefix, StoreError};

use crate::actors::Command;
use crate::chance::Chance;
use crate::planted::Plant;
use crate::request::{Answer, Request};
use crate::store::SimStore;
use crate::world::Reply;

/// Which part of a collection a process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Any other.
    Other,
    /// Sweeping rounds.
    Sweep,
    /// Merging the index.
    Merge,
}

/// What stands between a process and its connection.
#[derive(Debug)]
pub struct Door {
    plant: Plant,
    command: Command,
    at: ClusterRef,
    keys: Arc<Keys>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    merging: bool,
    sweeping: bool,
    /// Since a manifest was listed in this sweep and until its verdict.
    deciding: bool,
    /// Listings that are answered from what was read before.
    listings: BTreeMap<String, Vec<Listed>>,
    /// Objects that are answered so.
    objects: BTreeMap<Key, Bytes>,
    /// A put that is held back.
    held: Option<Request>,
    /// The round whose marker was read last.
    round: Option<RoundId>,
    /// Whether a round's list was the last thing read.
    has_list: bool,
    manifest_sent: bool,
    own_packs: Vec<Listed>,
}

impl Door {
    /// A door for one process.
    #[must_use]
    pub fn new(plant: Plant, command: Command, at: ClusterRef, keys: Arc<Keys>) -> Arc<Self> {
        Arc::new(Self { plant, command, at, keys, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A collection enters another part.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.merging = phase == Phase::Merge;
        state.sweeping = phase == Phase::Sweep;
        state.deciding = false;
    }

    /// Sends what a wrong product would send instead of this.
    pub async fn through(&self, store: &SimStore, request: Request) -> Reply {
        match self.command {
            Command::Collect | Command::Gc => self.collect(store, request).await,
            Command::Backup | Command::StandbyBackup => self.backup(store, request).await,
            Command::Expire => self.expire(store, request).await,
            Command::Hold => self.hold(store, request).await,
            Command::Archive => self.archive(store, request).await,
            Command::ChangeKeys => self.keys(store, request).await,
            Command::Verify | Command::Restore => self.read(store, request).await,
            Command::Rotate => store.plain(request).await,
        }
    }

    fn sealed(&self, memory: Arc<MemoryStore>) -> SealedStore {
        SealedStore::new(memory, self.keys.clone(), Chance::new(7).shared())
    }

    async fn archive(&self, store: &SimStore, request: Request) -> Reply {
        match (self.plant, &request) {
            (Plant::WalNotAwaited, Request::Put(key, ..))
                if names::cluster_prefix(&self.at, "wal").is_ok_and(|wal| wal.contains(key)) =>
            {
                store.world().lock().leave_behind(store.process(), request);
                Ok(Answer::Created)
            }
            (Plant::ExistsNotSynced, Request::Put(key, ..)) => {
                let name = key.clone();
                let answer = store.unsynced(request).await?;
                if !matches!(answer, Answer::Exists) {
                    store.send(Request::Sync(name)).await?;
                }
                Ok(answer)
            }
            _ => store.plain(request).await,
        }
    }

    async fn read(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        let (packs, indexes) = (names::packs(domain), names::indexes(domain));
        match (self.plant, &request) {
            (Plant::IndexReadOnce, Request::List(prefix, after, count))
                if [&packs, &indexes].contains(&prefix) =>
            {
                if !self.has_early(prefix) {
                    self.read_early(store, prefix).await?;
                }
                let kept = self.state().listings.get(&prefix.to_string()).cloned();
                let page = self.serve(prefix, after.as_ref(), *count).unwrap_or_default();
                self.state().listings.extend(kept.map(|listed| (prefix.to_string(), listed)));
                Ok(Answer::Page(page))
            }
            _ => store.plain(request).await,
        }
    }

    async fn keys(&self, store: &SimStore, request: Request) -> Reply {
        match (self.plant, &request) {
            (Plant::KeyLogLost, Request::Put(key, ..))
                if names::key_log().number(key).is_some() =>
            {
                let answer = store.plain(request).await?;
                Ok(if matches!(answer, Answer::Exists) { Answer::Created } else { answer })
            }
            _ => store.plain(request).await,
        }
    }

    fn sealed_document<T: Document>(&self, kind: Kind, key: &Key, document: &T) -> Bytes {
        let random = Chance::new(11).shared();
        object::seal_blob(&self.keys, kind, KeyClass::Meta, key, &document.encode(), &random)
            .unwrap_or_default()
    }

    /// Lists now what will be asked for later.
    async fn read_early(&self, store: &SimStore, prefix: &Prefix) -> Result<(), StoreError> {
        let listed = list(store, prefix).await?;
        self.state().listings.insert(prefix.to_string(), listed);
        Ok(())
    }

    fn has_early(&self, prefix: &Prefix) -> bool {
        self.state().listings.contains_key(&prefix.to_string())
    }

    async fn late_or(
        &self,
        store: &SimStore,
        (prefix, after, count): (&Prefix, Option<&Key>, usize),
    ) -> Reply {
        match self.serve(prefix, after, count) {
            Some(page) => Ok(Answer::Page(page)),
            None => store.plain(Request::List(prefix.clone(), after.cloned(), count)).await,
        }
    }

    /// A page of a listing that was read early; its last page ends it.
    fn serve(&self, prefix: &Prefix, after: Option<&Key>, count: usize) -> Option<Vec<Listed>> {
        let mut state = self.state();
        let listed = state.listings.get(&prefix.to_string())?;
        let is_after = |listed: &&Listed| after.is_none_or(|after| listed.key > *after);
        let page: Vec<Listed> = listed.iter().filter(is_after).take(count).cloned().collect();
        if page.len() < count {
            state.listings.remove(&prefix.to_string());
        }
        Some(page)
    }
}

/// All names below a prefix.
async fn list(store: &SimStore, prefix: &Prefix) -> Result<Vec<Listed>, StoreError> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let after = all.last().map(|listed: &Listed| listed.key.clone());
        let answer = store.plain(Request::List(prefix.clone(), after, 1000)).await?;
        let Answer::Page(page) = answer else { return Ok(all) };
        let full = page.len() >= 1000;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}
