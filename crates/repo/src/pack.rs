//! Filling packs and putting them: each name is sent once, and a put whose answer is lost is
//! looked at once, then abandoned for a new name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgrecall_store::{ErrorKind as StoreErrorKind, Key, Put, Store};
use tokio::time::Instant;

use crate::codec::{self, Level};
use crate::error::RepoError;
use crate::format::bytes::{Reader, wide};
use crate::format::frame::{
    self, Codec, FRAME_PLAIN_BYTES_MAX, FrameCipher, Opened, PREFIX_BYTES, Place,
};
use crate::format::header::{Header, KeyClass, Kind};
use crate::format::index::IndexPack;
use crate::format::layout;
use crate::format::pack::{DirectoryEntry, encode_directory};
use crate::id::{ChunkId, Digest, PackId};
use crate::index::Location;
use crate::keys::Keys;
use crate::names::{self, Name};
use crate::object;
use crate::random::SharedRandom;
use crate::sealed_store::SealedStore;

/// Bytes of a pack at which it is closed.
pub const PACK_BYTES: usize = 32 << 20;

/// Chunks of a pack at which it is closed: its directory has to fit a frame.
pub const PACK_CHUNKS: usize = 1 << 18;

const _: () = assert!(
    4 + PACK_CHUNKS as u64 * layout::DIRECTORY_ENTRY.size() <= FRAME_PLAIN_BYTES_MAX as u64
);

/// A pack being filled, by one thread, in memory.
#[derive(Debug)]
pub struct PackBuilder {
    keys: Arc<Keys>,
    domain: Name,
    id: PackId,
    name: Key,
    header: Header,
    cipher: FrameCipher,
    out: Vec<u8>,
    entries: Vec<DirectoryEntry>,
    scratch: Vec<u8>,
}

/// The class of key that a pack's chunks are sealed under.
fn class_of(kind: Kind) -> KeyClass {
    if kind == Kind::DataPack { KeyClass::Data } else { KeyClass::Meta }
}

impl PackBuilder {
    /// A new pack of this kind, with a name never used before.
    ///
    /// # Errors
    /// When the domain's keys cannot seal, which opening them has ruled out.
    pub fn new(sealed: &SealedStore, domain: &Name, kind: Kind) -> Result<Self, RepoError> {
        let id = PackId::random(sealed.random());
        let name = names::pack(domain, kind, id);
        let keys = sealed.keys().clone();
        let (sealing, cipher) = keys
            .begin(class_of(kind), kind, name.as_str(), sealed.random())
            .map_err(|error| RepoError::format(&name, error))?;
        let header = Header { kind, sealing, digest: Digest([0; 32]) };
        // Room for all of it, which the system provides as it is written to.
        let mut out = Vec::with_capacity(PACK_BYTES + PACK_BYTES / 16);
        header.encode(&mut out);
        let (entries, scratch) = (Vec::new(), Vec::new());
        Ok(Self { keys, domain: domain.clone(), id, name, header, cipher, out, entries, scratch })
    }

    /// Compresses, seals and appends a chunk.
    ///
    /// # Errors
    /// When the chunk is longer than a frame may be.
    pub fn add(&mut self, id: ChunkId, plain: &[u8], level: Level) -> Result<(), RepoError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let codec = codec::compress(plain, level, &mut scratch);
        let payload = if codec == Codec::Stored { plain } else { &scratch };
        let result = self.append(id, codec, plain.len(), payload);
        self.scratch = scratch;
        result
    }

    /// Appends a chunk that another pack had, as it is packed there.
    ///
    /// # Errors
    /// When the chunk is longer than a frame may be.
    pub(crate) fn add_packed(&mut self, id: ChunkId, packed: &Opened<'_>) -> Result<(), RepoError> {
        let plain_len = usize::try_from(packed.plain_len).unwrap_or(usize::MAX);
        self.append(id, packed.codec, plain_len, packed.payload)
    }

    fn append(
        &mut self,
        id: ChunkId,
        codec: Codec,
        plain_len: usize,
        payload: &[u8],
    ) -> Result<(), RepoError> {
        let offset = self.out.len();
        let place = Place::chunk(wide(self.entries.len()), id);
        let sealed = self
            .cipher
            .seal(&mut self.out, place, codec, plain_len, payload)
            .map_err(|error| RepoError::format(&self.name, error))?;
        let check = self.keys.frame_check(self.out.get(sealed.clone()).unwrap_or_default());
        let small = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        self.entries.push(DirectoryEntry {
            chunk: id,
            offset: small(offset),
            sealed_len: small(sealed.len()),
            plain_len: small(plain_len),
            check,
        });
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether the pack has to be closed before a chunk of that many bytes is added.
    #[must_use]
    pub fn is_full(&self, next_bytes: usize) -> bool {
        self.out.len() + next_bytes > PACK_BYTES || self.entries.len() >= PACK_CHUNKS
    }

    /// True before the first chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends the directory and the tail.
    ///
    /// # Errors
    /// When the directory is longer than a frame may be.
    pub fn finish(mut self) -> Result<FinishedPack, RepoError> {
        let directory = encode_directory(&self.entries);
        self.header.digest = self.keys.digest(&directory);
        let mut front = Vec::new();
        self.header.encode(&mut front);
        if let Some(start) = self.out.get_mut(..front.len()) {
            start.copy_from_slice(&front);
        }
        let frames = self.entries.len();
        object::append_trailer(
            &self.keys,
            &self.header,
            &self.name,
            &directory,
            frames,
            &mut self.out,
        )?;
        let pack = IndexPack {
            id: self.id,
            size: wide(self.out.len()),
            kind: self.header.kind,
            sealing: self.header.sealing,
        };
        Ok(FinishedPack {
            pack,
            name: self.name,
            domain: self.domain,
            cipher: self.cipher,
            digest: self.header.digest,
            entries: self.entries,
            bytes: Bytes::from(self.out),
        })
    }
}

/// A whole pack in memory, not yet known to be stored.
#[derive(Debug)]
pub struct FinishedPack {
    pack: IndexPack,
    name: Key,
    domain: Name,
    cipher: FrameCipher,
    digest: Digest,
    entries: Vec<DirectoryEntry>,
    bytes: Bytes,
}

/// A pack that the store has confirmed.
#[derive(Debug, Clone)]
pub struct ConfirmedPack {
    /// What the index says of it.
    pub pack: IndexPack,
    /// Its chunks.
    pub entries: Vec<DirectoryEntry>,
}

impl ConfirmedPack {
    /// Where its chunks are.
    #[must_use]
    pub fn locations(&self) -> Vec<(ChunkId, Location)> {
        let pack = Arc::new(self.pack.clone());
        let places = self.entries.iter().enumerate().map(|(frame, entry)| {
            let location = Location {
                pack: pack.clone(),
                frame: u32::try_from(frame).unwrap_or(u32::MAX),
                offset: entry.offset,
                sealed_len: entry.sealed_len,
                plain_len: entry.plain_len,
                check: Some(entry.check),
            };
            (entry.chunk, location)
        });
        places.collect()
    }
}

/// The time for one pack, under as many names as fit.
const PUT_TIME_MAX: Duration = Duration::from_secs(600);

/// The longest pause before the second name; it doubles from there. Each pause is drawn between
/// zero and that.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// What the longest pause never exceeds.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Names tried where waiting is of little use: they were taken, or this machine's own disk fails.
const NAMES_MAX: u32 = 3;

impl FinishedPack {
    /// Bytes of the pack.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// False: a finished pack has a header at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Puts the pack, under a new name as often as an answer is lost, with pauses between them: a
    /// store that asks to slow down must not end a backup of many hours.
    ///
    /// # Errors
    /// When no name was confirmed.
    pub async fn put(mut self, sealed: &SealedStore) -> Result<ConfirmedPack, RepoError> {
        let start = Instant::now();
        for tries in 1.. {
            match sealed.store().put_once(&self.name, self.bytes.clone()).await {
                Put::Created => break,
                Put::Exists if self.is_there(sealed.store()).await => break,
                // A random name is taken by other bytes: it was never ours.
                Put::Exists if tries < NAMES_MAX => {}
                Put::Exists => {
                    return Err(RepoError::Invalid {
                        what: format!("pack {}", self.name),
                        reason: "the random names of packs are taken by something else".into(),
                    });
                }
                // Where a sync has failed the file can be read and may still be lost.
                Put::Unknown(source) if source.is_local() && tries < NAMES_MAX => {
                    if !may_pass(source.kind()) {
                        return Err(RepoError::Unknown { object: self.name.to_string(), source });
                    }
                }
                Put::Unknown(source) => {
                    if !source.is_local() && self.is_there(sealed.store()).await {
                        break;
                    }
                    let pause = pause(tries, sealed.random());
                    let over = start.elapsed() + pause > PUT_TIME_MAX;
                    if source.is_local() || over || !may_pass(source.kind()) {
                        return Err(RepoError::Unknown { object: self.name.to_string(), source });
                    }
                    tracing::warn!(pack = %self.name, error = %source, ?pause, "not stored");
                    tokio::time::sleep(pause).await;
                }
            }
            tracing::warn!(pack = %self.name, "the pack's name is abandoned for a new one");
            self = self.renamed(sealed)?;
        }
        Ok(ConfirmedPack { pack: self.pack, entries: self.entries })
    }

    /// One look: is the object there, whole and ours?
    async fn is_there(&self, store: &Arc<dyn Store>) -> bool {
        let range = pgrecall_store::ByteRange::At { offset: 0, len: 4096 };
        let Ok(read) = store.get_range(&self.name, range).await else { return false };
        read.object_size == self.pack.size
            && Header::decode(&mut Reader::new(&read.bytes))
                .is_ok_and(|header| header.digest == self.digest)
    }

    /// The same chunks under a new name and key, opened and sealed anew one by one.
    fn renamed(&self, sealed: &SealedStore) -> Result<Self, RepoError> {
        let fail = |error| RepoError::format(&self.name, error);
        let kind = self.pack.kind;
        // Not from the keys: where it is sealed for a restore key they do not open it.
        let old = &self.cipher;
        let mut fresh = PackBuilder::new(sealed, &self.domain, kind)?;
        let mut scratch = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let mut reader = Reader::new(self.bytes.get(start..).unwrap_or_default());
            let framed = frame::take(&mut reader).map_err(fail)?;
            let place = Place::chunk(wide(number), entry.chunk);
            let opened = old.open(place, framed, &mut scratch).map_err(fail)?;
            let plain_len = usize::try_from(entry.plain_len).unwrap_or(usize::MAX);
            fresh.append(entry.chunk, opened.codec, plain_len, opened.payload)?;
        }
        fresh.finish()
    }
}

/// Full jitter: anything from nothing to the exponential bound.
fn pause(tries: u32, random: &SharedRandom) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_MAX);
    bound.mul_f64(f64::from(u32::from_le_bytes(random.bytes())) / f64::from(u32::MAX))
}

/// Whether a put that failed so may work under another name.
fn may_pass(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Unavailable | StoreErrorKind::Conflict)
}

/// The bytes of a frame in a pack, its prefix included.
#[must_use]
pub fn frame_len(sealed_len: u32) -> u64 {
    u64::from(sealed_len) + wide(PREFIX_BYTES)
}
