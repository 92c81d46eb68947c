//! Files of PostgreSQL's WAL archive, one object each. What they are called and what is in their
//! trailers is the engine's business.

use bytes::Bytes;
use pgrecall_store::{ByteRange, Key, Put};

use crate::error::{FormatError, RepoError};
use crate::format::bytes::wide;
use crate::format::header::{HEADER_BYTES_MAX, Header, Kind};
use crate::id::Digest;
use crate::keys::Keys;
use crate::object::{self, Proof, TrailerRead};
use crate::sealed_store::SealedStore;

/// What became of a push.
#[derive(Debug)]
pub enum Pushed {
    /// The file is stored, durably, by this push.
    Created,
    /// Contents that were stored before have the name, durably.
    Taken {
        /// Digest of the stored plaintext.
        stored: Digest,
        /// By the id key of which generation: another one's digest of the same contents is another
        /// (see [`digest_by`]).
        generation: u32,
        /// Why its end does not read, where it does not.
        damage: Option<RepoError>,
    },
}

/// Puts a sealed archive object.
///
/// # Errors
/// [`RepoError::Unknown`] when the store does not say what became of it; damage to the object that
/// has the name.
pub async fn push(sealed: &SealedStore, name: &Key, object: Bytes) -> Result<Pushed, RepoError> {
    match sealed.store().put_if_absent(name, object).await {
        Put::Created => Ok(Pushed::Created),
        Put::Exists => {
            // The end too: a copy that was cut short has the same header.
            let (header, damage) = match read_trailer(sealed, name).await {
                Ok(trailer) => (trailer.header, None),
                Err(error @ RepoError::Corrupt { .. }) => (sealed.header(name).await?, Some(error)),
                Err(error) => return Err(error),
            };
            let (stored, generation) = (header.digest, header.sealing.id_generation);
            Ok(Pushed::Taken { stored, generation, damage })
        }
        Put::Unknown(source) => Err(RepoError::Unknown { object: name.to_string(), source }),
    }
}

/// The digest of a file by the id key of a generation: that of an object with the name `name`, with
/// which it is to be compared.
///
/// # Errors
/// When that generation's key is not among these.
pub fn digest_by(
    keys: &Keys,
    generation: u32,
    name: &Key,
    plain: &[u8],
) -> Result<Digest, RepoError> {
    let ids = keys.ids_of(generation).map_err(|error| RepoError::format(name, error))?;
    Ok(ids.digest(plain))
}

/// Fetches a file's plaintext, frame by frame; bytes must not be shown before this has returned.
///
/// # Errors
/// When it is not there (see [`RepoError::is_not_found`]), damaged, or longer than `limit_bytes`.
pub async fn fetch(
    sealed: &SealedStore,
    name: &Key,
    limit_bytes: u64,
    proof: Proof,
    each: impl FnMut(&[u8]),
) -> Result<(), RepoError> {
    // Sealing and zstd's worst case add less than a fiftieth.
    let object_limit = limit_bytes + limit_bytes / 50 + (1 << 20);
    let object = sealed.store().get(name, object_limit).await?;
    object::open_archive(sealed.keys(), name, &object, limit_bytes, proof, each)
}

/// A trailer with its object's header.
#[derive(Debug, Clone)]
pub struct Trailer {
    /// The clear header.
    pub header: Header,
    /// The trailer's plaintext.
    pub plain: Vec<u8>,
    /// Bytes of the whole object.
    pub object_size: u64,
}

/// Bytes of an object's end that hold nearly every trailer.
const TRAILER_GUESS_BYTES: u64 = 16 << 10;

/// Reads the trailer alone: one request for the header, one for the end.
///
/// # Errors
/// When the object is not there or damaged.
pub async fn read_trailer(sealed: &SealedStore, name: &Key) -> Result<Trailer, RepoError> {
    let front = ByteRange::At { offset: 0, len: HEADER_BYTES_MAX };
    let back = ByteRange::Last { len: TRAILER_GUESS_BYTES };
    let store = sealed.store();
    let (front, back) =
        futures::try_join!(store.get_range(name, front), store.get_range(name, back))?;
    let header = object::read_header(name, Kind::Archive, &front.bytes)?;
    let read = object::open_trailer(sealed.keys(), &header, name, &back.bytes)?;
    let plain = match read {
        TrailerRead::Trailer(plain) => plain,
        TrailerRead::NeedMore(needed) => {
            let range = ByteRange::Last { len: needed };
            let more = store.get_range(name, range).await?;
            match object::open_trailer(sealed.keys(), &header, name, &more.bytes)? {
                TrailerRead::Trailer(plain) => plain,
                TrailerRead::NeedMore(needed) => {
                    let found = wide(more.bytes.len());
                    let error = FormatError::Truncated { what: "archive object", needed, found };
                    return Err(RepoError::format(name, error));
                }
            }
        }
    };
    Ok(Trailer { header, plain, object_size: back.object_size })
}

/// The digest of a stored file, from its clear header.
///
/// # Errors
/// When the object is not there or damaged.
pub async fn stored_digest(sealed: &SealedStore, name: &Key) -> Result<Digest, RepoError> {
    Ok(sealed.header(name).await?.digest)
}
