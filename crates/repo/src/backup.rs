//! A backup under way, step by step as the protocol says (B1 to B10): the only place that orders
//! its durable writes.
//!
//! An intent goes first, then markers, index and packs are read in this order; packs are put, then
//! index objects that name them; before the manifest the packs are listed again, and after it the
//! log of expired backups is read. Only then is the backup committed.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chunks;
use crate::error::RepoError;
use crate::format::document::{Damage, DamagedChunk, Expired, Intent, Manifest, Start, Tombstone};
use crate::format::header::Kind;
use crate::id::{BackupId, ChunkId, DamageId};
use crate::index::{self, ChunkTable, Index, Purpose};
use crate::names::{self, ClusterRef};
use crate::pack::{ConfirmedPack, FinishedPack};
use crate::sealed_store::{SealedStore, Stored};

/// Confirmed packs without an index object before one is put.
const PACKS_PER_INDEX: usize = 64;

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
}

#[derive(Debug, Default)]
struct Claims {
    /// Chunks stored by this backup, or being stored.
    fresh: HashSet<[u8; 16]>,
    /// A sample of old chunks that the backup refers to, and how many it was drawn from.
    sample: Vec<ChunkId>,
    old: u64,
    draw: u64,
}

#[derive(Debug, Default)]
struct Confirmed {
    /// Not yet in an index object.
    unindexed: Vec<ConfirmedPack>,
    /// All packs of this backup, with their sizes.
    packs: Vec<(crate::id::PackId, u64)>,
}

/// Old chunks that are read back before the manifest: 0.1 %, at least 8, at most 256.
const SAMPLE_MAX: usize = 256;
const SAMPLE_MIN: u64 = 8;

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
        };
        let name = names::intent(&at, id);
        if sealed.put(Kind::Intent, &name, &intent).await? != Stored::Mine {
            return Err(RepoError::Invalid {
                what: format!("intent {name}"),
                reason: "its random name is taken by something else".into(),
            });
        }
        let table = read_table(&sealed, &at).await?;
        let mut referred = Vec::new();
        referred.resize_with(table.pack_count(), || AtomicBool::new(false));
        let draw = u64::from_le_bytes(sealed.random().bytes());
        let claims = Claims { draw, ..Claims::default() };
        Ok(Self {
            sealed,
            at,
            id,
            table,
            referred,
            claims: Mutex::new(claims),
            confirmed: tokio::sync::Mutex::default(),
        })
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
        if self.refer(chunk) {
            return Claim::Known;
        }
        let mut claims = self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if claims.fresh.insert(index::short(chunk)) { Claim::Store } else { Claim::Known }
    }

    /// Refers to a chunk of an earlier backup; false when it may not be referred to, and has to be
    /// read from the source and stored again.
    pub fn refer(&self, chunk: &ChunkId) -> bool {
        let Some(number) = self.table.find(chunk) else {
            let claims = self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return claims.fresh.contains(&index::short(chunk));
        };
        let slot = usize::try_from(number).ok().and_then(|number| self.referred.get(number));
        if let Some(referred) = slot {
            referred.store(true, Ordering::Relaxed);
        }
        self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner).offer(chunk);
        true
    }

    /// Reads a metadata chunk of an earlier backup and refers to it; nothing when it may not be
    /// referred to.
    ///
    /// # Errors
    /// When the store fails, or the chunk is damaged.
    pub async fn read_meta(&self, chunk: &ChunkId) -> Result<Option<Vec<u8>>, RepoError> {
        let Some(location) = self.table.meta(chunk).filter(|_| self.refer(chunk)) else {
            return Ok(None);
        };
        chunks::read(&self.sealed, &self.at.domain, chunk, location).await.map(Some)
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
            let full = confirmed.unindexed.len() >= PACKS_PER_INDEX;
            if full { std::mem::take(&mut confirmed.unindexed) } else { Vec::new() }
        };
        self.put_index(&due).await?;
        Ok(size)
    }

    /// Puts an index object for the packs that have none yet: called every minute, so that the
    /// work of a backup that dies serves the next one, and before the end.
    ///
    /// # Errors
    /// When the store does not confirm it.
    pub async fn flush_index(&self) -> Result<(), RepoError> {
        let due = std::mem::take(&mut self.confirmed.lock().await.unindexed);
        self.put_index(&due).await
    }

    async fn put_index(&self, packs: &[ConfirmedPack]) -> Result<(), RepoError> {
        if packs.is_empty() {
            return Ok(());
        }
        index::put_index(&self.sealed, &self.at.domain, packs).await
    }

    /// Commits the backup (B7 to B10): when this returns, it exists.
    ///
    /// # Errors
    /// [`RepoError::PacksMissing`] or damage found in the sample: try again from the start.
    /// [`RepoError::Fenced`]: another process ended this try. [`RepoError::Unknown`]: nobody knows
    /// whether the manifest is there; the intent stays, and gc settles it.
    pub async fn commit(&self, manifest: &Manifest) -> Result<(), RepoError> {
        self.flush_index().await?;
        if let Err(error) = self.check_packs().await {
            self.abandon().await?;
            return Err(error);
        }
        self.put_manifest(manifest).await?;
        let log = names::expired(&self.at.domain);
        let newest: Option<(u64, Expired)> = self.sealed.newest(Kind::Expired, &log).await?;
        if newest.is_some_and(|(_, log)| log.backups.contains(&self.id)) {
            self.delete_intent().await?;
            return Err(self.fenced("the log of expired backups names it"));
        }
        self.delete_intent().await
    }

    /// Gives the backup up before its manifest was sent. What it stored serves the next try.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn abandon(&self) -> Result<(), RepoError> {
        self.flush_index().await?;
        self.delete_intent().await
    }

    async fn delete_intent(&self) -> Result<(), RepoError> {
        let store = self.sealed.store();
        store.delete(&names::intent(&self.at, self.id)).await?;
        store.delete(&names::start(&self.at, self.id)).await?;
        Ok(())
    }

    fn fenced(&self, reason: &str) -> RepoError {
        RepoError::Fenced { backup: self.id.to_string(), reason: reason.into() }
    }

    /// B7: every pack referred to is there with its size, and the sample reads.
    async fn check_packs(&self) -> Result<(), RepoError> {
        let listed = index::list_packs(&self.sealed, &self.at.domain).await?;
        let old = self.referred.iter().enumerate().filter_map(|(number, referred)| {
            let number = u32::try_from(number).ok()?;
            referred.load(Ordering::Relaxed).then(|| self.table.pack(number))?
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
        let sample = {
            let claims = self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let wanted = (claims.old / 1000).max(SAMPLE_MIN);
            let count = usize::try_from(wanted).unwrap_or(SAMPLE_MAX).min(claims.sample.len());
            claims.sample.get(..count).unwrap_or_default().to_vec()
        };
        if sample.is_empty() {
            return Ok(());
        }
        let index = Index::open(&self.sealed, &self.at.domain, Purpose::Read).await?;
        let wanted = sample.iter().copied().collect();
        let located = index.locate(&self.sealed, &wanted).await?;
        let mut bad = Vec::new();
        let mut first = None;
        for chunk in &sample {
            let Some(location) = located.get(chunk) else {
                return Err(RepoError::ChunkMissing {
                    chunk: chunk.to_string(),
                    domain: self.at.domain.to_string(),
                });
            };
            match chunks::read(&self.sealed, &self.at.domain, chunk, location).await {
                Ok(_) => {}
                Err(error @ RepoError::Corrupt { .. }) => {
                    bad.push(DamagedChunk { pack: location.pack.id, chunk: *chunk });
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(error) = first else { return Ok(()) };
        report_damage(&self.sealed, &self.at, bad, "read back before a commit".into()).await?;
        Err(error)
    }

    /// B8.
    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), RepoError> {
        let name = names::manifest(&self.at, self.id);
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
                    self.delete_intent().await?;
                    Err(self.fenced(&reason))
                }
                Ok(_) => Err(self.fenced("another manifest stands under its name")),
                Err(error) if error.is_not_found() => continue,
                Err(error) => Err(error),
            };
        }
    }
}

impl Claims {
    /// Reservoir sampling of the old chunks referred to.
    fn offer(&mut self, chunk: &ChunkId) {
        self.old += 1;
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(*chunk);
            return;
        }
        // xorshift64*: which chunks are read back need not be secret, only spread.
        self.draw ^= self.draw >> 12;
        self.draw ^= self.draw << 25;
        self.draw ^= self.draw >> 27;
        let at = self.draw.wrapping_mul(0x2545_f491_4f6c_dd1d) % self.old;
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.sample.get_mut(at)) {
            *slot = *chunk;
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

/// Notes chunks found bad, so that the next backup stores them again.
///
/// # Errors
/// When the store does not confirm the note.
pub async fn report_damage(
    sealed: &SealedStore,
    at: &ClusterRef,
    chunks: Vec<DamagedChunk>,
    found: String,
) -> Result<(), RepoError> {
    if chunks.is_empty() {
        return Ok(());
    }
    let name = names::damaged(&at.domain, DamageId::random(sealed.random()));
    sealed.put(Kind::Damage, &name, &Damage { chunks, found }).await?;
    Ok(())
}

/// An intent that is in the store.
#[derive(Debug, Clone)]
pub struct LiveIntent {
    /// What it says.
    pub intent: Intent,
    /// Where the backup starts, once it has said so.
    pub start: Option<Start>,
}

/// The backups under way of one cluster.
///
/// # Errors
/// When they cannot be listed or read.
pub async fn live_intents(
    sealed: &SealedStore,
    at: &ClusterRef,
) -> Result<Vec<LiveIntent>, RepoError> {
    let mut live = Vec::new();
    for object in sealed.list(&names::intents(at)).await? {
        let Ok(id) = object.key.file_name().parse::<BackupId>() else { continue };
        let intent = match sealed.get::<Intent>(Kind::Intent, &object.key).await {
            Ok(intent) => intent,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let start = match sealed.get::<Start>(Kind::Start, &names::start(at, id)).await {
            Ok(start) => Some(start),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        live.push(LiveIntent { intent, start });
    }
    Ok(live)
}

/// Ends a dead backup (S1): a tombstone under its manifest's name first, so that a manifest that
/// comes late is refused by the store itself, then its intent is deleted. True when the backup
/// turns out to have been committed, and stands.
///
/// # Errors
/// When the store fails.
pub async fn end_dead(
    sealed: &SealedStore,
    at: &ClusterRef,
    id: BackupId,
    reason: String,
) -> Result<bool, RepoError> {
    let name = names::manifest(at, id);
    let tombstone = Tombstone { backup: id, reason };
    let stored = sealed.put(Kind::Tombstone, &name, &tombstone).await?;
    sealed.store().delete(&names::intent(at, id)).await?;
    sealed.store().delete(&names::start(at, id)).await?;
    if stored == Stored::Mine {
        return Ok(false);
    }
    Ok(sealed.header(&name).await?.kind == Kind::Manifest)
}
