//! What names and digests: keyed hashes of one generation of the id key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_64_with_secret;
use zeroize::Zeroizing;

use super::secret::{Secret, derive};
use crate::chunk_mac::ChunkMac;
use crate::id::{ChunkId, Digest};

/// What the keys of chunks' names are derived for.
const CHUNK_ID: &[u8] = b"pgrecall chunk id";

/// What one generation of the id key makes: names of chunks, digests, hashes.
pub struct IdKeys {
    chunk_mac: Hmac<Sha256>,
    chunk_lanes_mac: ChunkMac,
    digest_mac: Hmac<Sha256>,
    page_secret: Zeroizing<Vec<u8>>,
    check_secret: Zeroizing<Vec<u8>>,
}

impl IdKeys {
    #[expect(clippy::expect_used, reason = "RFC 2104 has no length of a key that HMAC refuses")]
    pub(super) fn of(id_key: &Secret) -> Self {
        let mac = |info: &[u8]| {
            Hmac::<Sha256>::new_from_slice(&derive::<32>(id_key, b"", info))
                .expect("HMAC takes keys of any length")
        };
        let long = |info: &[u8]| {
            let out = Zeroizing::new(derive::<192>(id_key, b"", info));
            Zeroizing::new(out.to_vec())
        };
        Self {
            chunk_mac: mac(CHUNK_ID),
            chunk_lanes_mac: ChunkMac::new(&derive(id_key, b"", CHUNK_ID)),
            digest_mac: mac(b"pgrecall digest"),
            page_secret: long(b"pgrecall page hash"),
            check_secret: long(b"pgrecall frame check"),
        }
    }

    /// A chunk's name.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        let mut mac = self.chunk_mac.clone();
        mac.update(plain);
        ChunkId::from_bytes(mac.finalize().into_bytes().into())
    }

    /// The names of chunks, which takes less time than one after the other where several in a row
    /// are of one length.
    #[must_use]
    pub fn chunk_ids(&self, plains: &[&[u8]]) -> Vec<ChunkId> {
        let (groups, rest) = plains.as_chunks();
        let mut ids = Vec::with_capacity(plains.len());
        for group in groups {
            match self.chunk_lanes_mac.many(*group) {
                Some(macs) => ids.extend(macs.map(ChunkId::from_bytes)),
                None => ids.extend(group.iter().map(|plain| self.chunk_id(plain))),
            }
        }
        ids.extend(rest.iter().map(|plain| self.chunk_id(plain)));
        ids
    }

    /// The digest of an object's plaintext.
    #[must_use]
    pub fn digest(&self, plain: &[u8]) -> Digest {
        let mut mac = self.digest_mac.clone();
        mac.update(plain);
        Digest(mac.finalize().into_bytes().into())
    }

    /// As [`digest`](Self::digest), piece by piece.
    #[must_use]
    pub fn digester(&self) -> Digester {
        Digester(self.digest_mac.clone())
    }

    /// A page's hash: it filters, it proves nothing.
    #[must_use]
    pub fn page_hash(&self, page: &[u8]) -> u64 {
        // The same function in a crate that picks the processor's best instructions when it runs;
        // it refuses secrets that are too short, and ours are not.
        twox_hash::XxHash3_64::oneshot_with_secret(&self.page_secret, page)
            .unwrap_or_else(|_| xxh3_64_with_secret(page, &self.page_secret))
    }

    /// The check of a sealed frame.
    #[must_use]
    pub fn frame_check(&self, sealed: &[u8]) -> u64 {
        xxh3_64_with_secret(sealed, &self.check_secret)
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKeys")
    }
}

/// Digests a plaintext piece by piece.
#[derive(Clone)]
pub struct Digester(Hmac<Sha256>);

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// The next piece.
    pub fn update(&mut self, plain: &[u8]) {
        self.0.update(plain);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into_bytes().into())
    }
}
