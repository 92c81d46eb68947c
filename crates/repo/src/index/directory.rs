//! The directory of a pack, read from the pack itself: what is in it whatever the index says.

use pgrecall_store::ByteRange;

use crate::error::{FormatError, RepoError};
use crate::format::header::Kind;
use crate::format::index::IndexPack;
use crate::format::pack::decode_directory;
use crate::id::PackId;
use crate::names::{self, Name};
use crate::object::{self, TrailerRead};
use crate::pack::ConfirmedPack;
use crate::sealed_store::SealedStore;

/// The directory of a pack, read from the pack itself: a fact of its id, whatever the index says.
///
/// # Errors
/// When it cannot be read.
pub async fn read_directory(
    sealed: &SealedStore,
    domain: &Name,
    kind: Kind,
    id: PackId,
) -> Result<ConfirmedPack, RepoError> {
    let name = names::pack(domain, kind, id);
    let header = sealed.header(&name).await?;
    let mut len = 64 << 10;
    loop {
        let range = ByteRange::Last { len };
        let read = sealed.store().get_range(&name, range).await?;
        match object::open_trailer(sealed.keys(), &header, &name, &read.bytes)? {
            TrailerRead::NeedMore(needed) if needed > len => len = needed,
            TrailerRead::NeedMore(_) => {
                let error =
                    FormatError::Truncated { what: "pack", needed: len, found: read.object_size };
                return Err(RepoError::format(&name, error));
            }
            TrailerRead::Trailer(plain) => {
                let entries =
                    decode_directory(&plain).map_err(|error| RepoError::format(&name, error))?;
                let pack = IndexPack { id, size: read.object_size, kind, sealing: header.sealing };
                return Ok(ConfirmedPack { pack, entries });
            }
        }
    }
}
