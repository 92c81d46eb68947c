//! What a WAL object says about its file in its trailer, which is read without the file itself.

use pgrecall_pgformat::segment::ArchiveNameKind;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_repo::archive;
use pgrecall_repo::id::Digest;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::Key;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, ErrorKind};

/// The version written. Fields may be added under the same version: readers pass over what they do
/// not know.
pub const VERSION: u32 = 1;

/// The trailer of one WAL object, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// The version of its meaning.
    pub version: u32,
    /// What kind of file it is.
    pub kind: ArchiveNameKind,
    /// The file's name in `pg_wal`; the object's may carry a digest.
    pub name: String,
    /// The file's size in bytes.
    pub plain_bytes: u64,
    /// What a segment or `.partial` file holds.
    #[serde(default)]
    pub summary: Option<SegmentSummary>,
    /// The host that pushed it.
    #[serde(default)]
    pub host: String,
    /// When, by that host's clock, RFC 3339.
    #[serde(default)]
    pub pushed: String,
}

impl Trailer {
    /// The bytes to seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a trailer's plaintext.
    ///
    /// # Errors
    /// `Unsupported` for a newer version, `Corrupt` when it is no trailer; `object` is for the
    /// message.
    pub fn decode(object: &Key, plain: &[u8]) -> Result<Self, EngineError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error: serde_json::Error| {
            let message = format!("the trailer of {object} does not read: {error}");
            EngineError::refused(ErrorKind::Corrupt, message)
        };
        // A newer version may have other fields: ask for the version alone first.
        let outline: Versioned = serde_json::from_slice(plain).map_err(malformed)?;
        if outline.version > VERSION {
            let message = format!(
                "the trailer of {object} has version {}, and this program reads up to {VERSION}",
                outline.version
            );
            return Err(
                EngineError::refused(ErrorKind::Unsupported, message).hint("Use a newer pgrecall.")
            );
        }
        serde_json::from_slice(plain).map_err(malformed)
    }

    /// The timelines of the file's pages for messages: "timeline 3", "timelines 2 and 3".
    #[must_use]
    pub fn timelines(&self) -> String {
        let Some(summary) = &self.summary else { return "no timeline".into() };
        let numbers: Vec<String> =
            summary.timelines.iter().map(|start| start.timeline.0.to_string()).collect();
        match numbers.as_slice() {
            [] => "no timeline".into(),
            [one] => format!("timeline {one}"),
            many => format!("timelines {}", many.join(" and ")),
        }
    }
}

/// A WAL object as its header and trailer tell it.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// The keyed digest of the file.
    pub digest: Digest,
    /// The generation of the id key that made the digest.
    pub id_generation: u32,
    /// Bytes of the object.
    pub object_bytes: u64,
    /// The trailer.
    pub trailer: Trailer,
}

impl StoredFile {
    /// Whether these bytes are the file's, by the id key that the file was digested by: it may have
    /// been pushed before `key rotate --ids`.
    ///
    /// # Errors
    /// When that key is not among these.
    pub fn is_of(&self, keys: &Keys, object: &Key, plain: &[u8]) -> Result<bool, EngineError> {
        Ok(archive::digest_by(keys, self.id_generation, object, plain)? == self.digest)
    }
}

/// Reads what an object says about its file, by range requests.
///
/// # Errors
/// When it is not there, damaged or newer.
pub async fn read(sealed: &SealedStore, object: &Key) -> Result<StoredFile, EngineError> {
    let read = archive::read_trailer(sealed, object).await?;
    Ok(StoredFile {
        digest: read.header.digest,
        id_generation: read.header.sealing.id_generation,
        object_bytes: read.object_size,
        trailer: Trailer::decode(object, &read.plain)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::parse("clusters/main/1/timelines/00000002.history").unwrap()
    }

    fn trailer() -> Trailer {
        Trailer {
            version: VERSION,
            kind: ArchiveNameKind::History,
            name: "00000002.history".into(),
            plain_bytes: 42,
            summary: None,
            host: "db1".into(),
            pushed: "2026-11-22T14:03:07Z".into(),
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_newer_versions_are_told() {
        let text = String::from_utf8(trailer().encode()).unwrap();
        let longer = text.replace("\"host\"", "\"blocks\":[1,2],\"host\"");
        assert_eq!(Trailer::decode(&key(), longer.as_bytes()).unwrap(), trailer());
        let newer = text.replace("\"version\":1", "\"version\":2");
        let error = Trailer::decode(&key(), newer.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = Trailer::decode(&key(), b"{}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
