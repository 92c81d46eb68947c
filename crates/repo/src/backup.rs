//! A backup under way, step by step as the protocol says (B1 to B10): the only place that orders
//! its durable writes.
//!
//! An intent goes first, then markers, index and packs are read in this order; packs are put, then
//! index objects that name them; before the manifest the packs are listed again, and after it the
//! log of expired backups is read. Only then is the backup committed.

mod claims;
mod damage;
mod ended;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;

use crate::chunks;
use crate::error::RepoError;
use crate::format::document::{DamagedChunk, Expired, Intent, Manifest, Start, Tombstone};
use crate::format::header::Kind;
use crate::format::index::IndexPack;
use crate::format::table::Entry;
use crate::id::{BackupId, ChunkId};
use crate::index::{self, ChunkTable, Index, Purpose};
use crate::manifests::TableReader;
use crate::names::{self, ClusterRef};
use crate::pack::{ConfirmedPack, FinishedPack};
use crate::sealed_store::{SealedStore, Stored};

use claims::Claims;
pub use damage::report_damage;
pub(crate) use ended::remove_lone_starts;
pub use ended::{LiveIntent, end_dead, live_intents};

/// Confirmed packs without an index object before one is put.
const PACKS_PER_INDEX: usize = 64;

/// Their chunks before one is put: the head of an index object has to fit a frame.
const CHUNKS_PER_INDEX: usize = 1 << 18;

/// Table chunks of the backup before that are read at once.
const TABLES_AT_ONCE: usize = 8;

/// Whether a chunk has to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is there, or somebody in this backup is storing it.
    Known,
    /// The caller has to store it: nobody else will.
    Store,
}

/// What a backup says of itself while it runs.
#[derive(Debug, Clone)]
pub struct BackupNote {
    /// Its host, for people.
    pub host: String,
    /// Its process id.
    pub process: u32,
    /// What tells that process from a later one of the same number; may be empty.
    pub incarnation: String,
    /// When it began, RFC 3339.
    pub began: String,
}

/// A backup under way.
#[derive(Debug)]
pub struct BackupSession {
    sealed: SealedStore,
    at: ClusterRef,
    id: BackupId,
    table: ChunkTable,
    /// By pack number of the table: whether the backup refers to it.
    referred: Vec<AtomicBool>,
    claims: Mutex<Claims>,
    confirmed: tokio::sync::Mutex<Confirmed>,
    /// Whether the manifest was sent, even once: then it may be in the store, now or later.
    manifest_sent: AtomicBool,
}

#[derive(Debug, Default)]
struct Confirmed {
    /// Not yet in an index object.
    unindexed: Vec<ConfirmedPack>,
    /// All packs of this backup, with their sizes.
    packs: Vec<(crate::id::PackId, u64)>,
}

impl BackupSession {
    /// Puts the intent and reads what may be referred to (B1 to B4).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin(
        sealed: SealedStore,
        at: ClusterRef,
        note: &BackupNote,
    ) -> Result<Self, RepoError> {
        let id = BackupId::random(sealed.random());
        let intent = Intent {
            backup: id,
            began: note.began.clone(),
            host: note.host.clone(),
            process: note.process,
            incarnation: note.incarnation.clone(),
        };
        let name = names::intent(&at, id);
        if sealed.put(Kind::Intent, &name, &intent).await? != Stored::Mine {
            return Err(RepoError::Invalid {
                what: format!("intent {name}"),
                reason: "its random name is taken by something else".into(),
            });
        }
        let seed = u64::from_le_bytes(sealed.random().bytes());
        let mut session = Self {
            sealed,
            at,
            id,
            table: ChunkTable::default(),
            referred: Vec::new(),
            claims: Mutex::new(Claims::new(seed)),
            confirmed: tokio::sync::Mutex::default(),
            manifest_sent: AtomicBool::new(false),
        };
        match read_table(&session.sealed, &session.at).await {
            Ok(table) => session.table = table,
            Err(error) => {
                session.delete_intent().await;
                return Err(error);
            }
        }
        session.referred.resize_with(session.table.pack_count(), || AtomicBool::new(false));
        Ok(session)
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backup's id.
    #[must_use]
    pub const fn id(&self) -> BackupId {
        self.id
    }

    /// The cluster.
    #[must_use]
    pub const fn at(&self) -> &ClusterRef {
        &self.at
    }

    /// The domain's objects.
    #[must_use]
    pub const fn sealed(&self) -> &SealedStore {
        &self.sealed
    }

    /// Puts the timeline and start LSN beside the intent, so that the WAL from there on is kept.
    ///
    /// # Errors
    /// When the store does not confirm it.
    pub async fn put_start(&self, timeline: String, lsn: String) -> Result<(), RepoError> {
        let start = Start { backup: self.id, timeline, lsn };
        let name = names::start(&self.at, self.id);
        match self.sealed.put(Kind::Start, &name, &start).await? {
            Stored::Mine => Ok(()),
            Stored::Other => Err(RepoError::Invalid {
                what: format!("object {name}"),
                reason: "its random name is taken by something else".into(),
            }),
        }
    }

    /// Refers to a chunk. With [`Claim::Store`] the caller must store it before the backup ends.
    pub fn claim(&self, chunk: &ChunkId) -> Claim {
        if self.refer(chunk) || !self.claims().store(chunk) { Claim::Known } else { Claim::Store }
    }

    /// Refers to a chunk of an earlier backup; false when it may not be referred to, and has to be
    /// read from the source and stored again.
    pub fn refer(&self, chunk: &ChunkId) -> bool {
        let mut claims = self.claims();
        let Some(number) = self.table.find(chunk).filter(|_| !claims.is_bad(chunk)) else {
            return claims.stores(chunk);
        };
        let slot = usize::try_from(number).ok().and_then(|number| self.referred.get(number));
        if let Some(referred) = slot {
            referred.store(true, Ordering::Relaxed);
        }
        claims.refer(chunk);
        true
    }

    /// Reads a metadata chunk of an earlier backup and refers to it; nothing when it may not be
    /// referred to. One that is damaged is noted, and is stored again by whoever claims it.
    ///
    /// # Errors
    /// When the store fails, or the chunk is damaged.
    pub async fn read_meta(&self, chunk: &ChunkId) -> Result<Option<Vec<u8>>, RepoError> {
        let plain = self.read_old(chunk).await?;
        Ok(plain.filter(|_| self.refer(chunk)))
    }

    async fn read_old(&self, chunk: &ChunkId) -> Result<Option<Vec<u8>>, RepoError> {
        if self.claims().is_bad(chunk) {
            return Ok(None);
        }
        let Some(location) = self.table.meta(chunk) else { return Ok(None) };
        match chunks::read(&self.sealed, &self.at.domain, chunk, &location).await {
            Ok(plain) => Ok(Some(plain)),
            Err(error) => {
                if error.is_damage() {
                    let pack = location.pack.id;
                    self.claims().found_bad(DamagedChunk { pack, chunk: *chunk });
                }
                Err(error)
            }
        }
    }

    /// Reads the file table of an earlier backup, as far as it may be referred to, part by part in
    /// order of paths.
    ///
    /// # Errors
    /// When a part may not be referred to or is damaged, or `each` refuses.
    pub async fn each_table<E: From<RepoError>>(
        &self,
        manifest: &Manifest,
        mut each: impl FnMut(Vec<Entry>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = TableReader::default();
        let mut parts = futures::stream::iter(&manifest.tables)
            .map(|chunk| async move { (chunk, self.read_old(&chunk.id).await) })
            .buffered(TABLES_AT_ONCE);
        while let Some((chunk, plain)) = parts.next().await {
            let missing = || RepoError::ChunkMissing {
                chunk: chunk.id.to_string(),
                domain: self.at.domain.to_string(),
                pack: None,
            };
            each(reader.decode(chunk, &plain?.ok_or_else(missing)?)?)?;
        }
        Ok(())
    }

    /// Puts a pack (B5), and an index object when enough packs wait for one (B6).
    ///
    /// # Errors
    /// When the store does not confirm them.
    pub async fn put_pack(&self, pack: FinishedPack) -> Result<u64, RepoError> {
        let pack = pack.put(&self.sealed).await?;
        let size = pack.pack.size;
        let due = {
            let mut confirmed = self.confirmed.lock().await;
            confirmed.packs.push((pack.pack.id, size));
            confirmed.unindexed.push(pack);
            let chunks: usize = confirmed.unindexed.iter().map(|pack| pack.entries.len()).sum();
            confirmed.unindexed.len() >= PACKS_PER_INDEX || chunks >= CHUNKS_PER_INDEX
        };
        if due {
            self.put_index().await?;
        }
        Ok(size)
    }

    /// Puts an index object for the packs that have none yet, and notes what was found bad: called
    /// every minute, so that the work of a backup that dies serves the next one, and before the
    /// end.
    ///
    /// # Errors
    /// When the store does not confirm them.
    pub async fn flush_index(&self) -> Result<(), RepoError> {
        self.put_index().await?;
        let damaged = self.claims().take_unnoted();
        let found = format!("read by backup {}", self.id);
        report_damage(&self.sealed, &self.at, damaged, found).await
    }

    async fn put_index(&self) -> Result<(), RepoError> {
        let packs = std::mem::take(&mut self.confirmed.lock().await.unindexed);
        if packs.is_empty() {
            return Ok(());
        }
        let put = index::put_index(&self.sealed, &self.at.domain, &packs).await;
        if put.is_err() {
            // The next one names them, and if there is none their own directories do.
            self.confirmed.lock().await.unindexed.extend(packs);
        }
        put
    }

    /// Commits the backup (B7 to B10): when this returns, it exists.
    ///
    /// # Errors
    /// [`RepoError::PacksMissing`] or damage found in the sample: try again from the start.
    /// [`RepoError::Fenced`]: another process ended this try. [`RepoError::Unknown`]: nobody knows
    /// whether the manifest is there; [`RepoError::Unsettled`]: it is, and nobody knows whether it
    /// counts. After any of them the caller [abandons](Self::abandon) the backup.
    pub async fn commit(&self, manifest: &Manifest) -> Result<(), RepoError> {
        self.flush_index().await?;
        self.check_packs().await?;
        self.put_manifest(manifest).await?;
        let unsettled =
            |error| RepoError::Unsettled { backup: self.id.to_string(), source: Box::new(error) };
        let given_up = self.given_up().await.map_err(unsettled)?;
        self.delete_intent().await;
        given_up.map_or(Ok(()), |reason| Err(self.fenced(reason)))
    }

    /// B9: why a manifest that is stored counts for nothing, if it does.
    async fn given_up(&self) -> Result<Option<&'static str>, RepoError> {
        if self.is_shredded().await? {
            return Ok(Some("the keys of its domain were deleted (key shred)"));
        }
        let log = names::expired(&self.at.domain);
        let newest: Option<(u64, Expired)> = self.sealed.newest(Kind::Expired, &log).await?;
        let names_it = newest.is_some_and(|(_, log)| log.backups.contains(&self.id));
        Ok(names_it.then_some("the log of expired backups names it"))
    }

    /// Whether the domain's keys were deleted meanwhile: this process has them, and no later one.
    async fn is_shredded(&self) -> Result<bool, RepoError> {
        let keys = names::domain_keys(&self.at.domain);
        let mark = names::shredded(&self.at.domain);
        Ok(self.sealed.list(keys.prefix()).await?.iter().any(|object| object.key == mark))
    }

    /// Gives the backup up. What it stored serves the next try. Where its manifest was sent, even
    /// once, the intent stays: the manifest may be there, and others settle it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn abandon(&self) -> Result<(), RepoError> {
        let flushed = self.flush_index().await;
        if !self.manifest_sent.load(Ordering::Relaxed) {
            self.delete_intent().await;
        }
        flushed
    }

    /// B10. What stays behind is in nobody's way but gc's, which ends it: no reason to call a
    /// backup that exists a failure, as where the credentials may not delete.
    async fn delete_intent(&self) {
        ended::delete_intent(&self.sealed, &self.at, self.id).await;
    }

    fn fenced(&self, reason: &str) -> RepoError {
        RepoError::Fenced { backup: self.id.to_string(), reason: reason.into() }
    }

    /// B7: every pack referred to is there with its size, and the sample reads.
    async fn check_packs(&self) -> Result<(), RepoError> {
        let listed = index::list_packs(&self.sealed, &self.at.domain).await?;
        let old = self.referred.iter().enumerate().filter_map(|(number, referred)| {
            let pack = self.table.pack(u32::try_from(number).ok()?)?;
            referred.load(Ordering::Relaxed).then_some((pack.id, pack.size))
        });
        let fresh = self.confirmed.lock().await.packs.clone();
        let missing: Vec<_> =
            old.chain(fresh).filter(|(id, size)| listed.get(id) != Some(size)).collect();
        if let Some((example, _)) = missing.first() {
            let (count, example) = (missing.len(), example.to_string());
            return Err(RepoError::PacksMissing { count, example });
        }
        self.check_sample().await
    }

    async fn check_sample(&self) -> Result<(), RepoError> {
        let drawn = self.claims().draw_sample();
        let mut by_pack: BTreeMap<u32, Vec<ChunkId>> = BTreeMap::new();
        for chunk in drawn {
            if let Some(number) = self.table.find(&chunk) {
                by_pack.entry(number).or_default().push(chunk);
            }
        }
        let packs = by_pack.into_iter();
        let sample: Vec<(IndexPack, Vec<ChunkId>)> = packs
            .filter_map(|(number, chunks)| Some((self.table.pack(number)?.clone(), chunks)))
            .collect();
        let Some((error, bad)) = damage::read_back(&self.sealed, &self.at.domain, sample).await?
        else {
            return Ok(());
        };
        report_damage(&self.sealed, &self.at, bad, "read back before a commit".into()).await?;
        Err(error)
    }

    /// B8.
    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), RepoError> {
        let name = names::manifest(&self.at, self.id);
        self.manifest_sent.store(true, Ordering::Relaxed);
        loop {
            let stored = match self.sealed.put(Kind::Manifest, &name, manifest).await {
                Ok(stored) => stored,
                // It was there when the put was answered and is gone now: put it again.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            if stored == Stored::Mine {
                return Ok(());
            }
            return match self.sealed.header(&name).await {
                Ok(header) if header.kind == Kind::Tombstone => {
                    let reason = match self.sealed.get::<Tombstone>(Kind::Tombstone, &name).await {
                        Ok(tombstone) => tombstone.reason,
                        Err(_) => "a tombstone stands under its name".into(),
                    };
                    self.delete_intent().await;
                    Err(self.fenced(&reason))
                }
                Ok(_) => Err(self.fenced("another manifest stands under its name")),
                Err(error) if error.is_not_found() => continue,
                Err(error) => Err(error),
            };
        }
    }
}

async fn read_table(sealed: &SealedStore, at: &ClusterRef) -> Result<ChunkTable, RepoError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let index = Index::open(sealed, &at.domain, Purpose::Refer).await?;
        match ChunkTable::read(sealed, &index).await {
            // An index object vanished: it was merged into another. List again.
            Err(error) if error.is_not_found() && tries < 5 => {}
            other => return other,
        }
    }
}
