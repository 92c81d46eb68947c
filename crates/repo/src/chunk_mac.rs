//! HMAC-SHA-256 (RFC 2104) of several messages of one length at once: the names of chunks.

use sha2::block_api::compress256;
use zeroize::Zeroizing;

use crate::format::bytes::wide;
use crate::sha256_lanes::{self, BLOCK_BYTES, Blocks, LANES, State};

/// The state that SHA-256 begins with: FIPS 180-4, section 5.3.3.
const START: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The states after a key's first blocks.
pub(crate) struct ChunkMac {
    inner: Zeroizing<State>,
    outer: Zeroizing<State>,
}

impl ChunkMac {
    /// Of a key of 32 bytes.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let begun = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK_BYTES]);
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = Zeroizing::new(START);
            compress256(&mut state, std::slice::from_ref(&block));
            state
        };
        Self { inner: begun(0x36), outer: begun(0x5c) }
    }

    /// Of several messages; nothing when their lengths differ, or this processor does not do it
    /// faster than one after the other.
    pub(crate) fn many(&self, messages: [&[u8]; LANES]) -> Option<[[u8; 32]; LANES]> {
        let len = messages[0].len();
        if messages.iter().any(|message| message.len() != len) {
            return None;
        }
        let mut states = [*self.inner; LANES];
        if !sha256_lanes::compress(&mut states, messages.map(|message| message.as_chunks().0)) {
            return None;
        }
        let rests = messages.map(|message| message.as_chunks::<BLOCK_BYTES>().1);
        let mut macs = [[0; 32]; LANES];
        for ((mac, state), rest) in macs.iter_mut().zip(&mut states).zip(rests) {
            *mac = self.finish(state, rest, len);
        }
        Some(macs)
    }

    fn finish(&self, inner: &mut State, rest: &[u8], len: usize) -> [u8; 32] {
        let mut outer = *self.outer;
        end(inner, rest, len);
        end(&mut outer, &bytes_of(inner), 32);
        bytes_of(&outer)
    }
}

/// Compresses the rest of a message, which came after `len - rest` bytes of its own and a block of
/// the key, with the padding of FIPS 180-4, section 5.1.1.
fn end(state: &mut State, rest: &[u8], len: usize) {
    let mut padded = [0; 2 * BLOCK_BYTES];
    // A mark and eight bytes of length come after the rest.
    let blocks = if rest.len() + 9 <= BLOCK_BYTES { 1 } else { 2 };
    let bits = wide(BLOCK_BYTES + len) * 8;
    let (used, _) = padded.split_at_mut(blocks * BLOCK_BYTES);
    let (message, length) = used.split_at_mut(blocks * BLOCK_BYTES - 8);
    for (byte, value) in message.iter_mut().zip(rest.iter().chain([&0x80])) {
        *byte = *value;
    }
    length.copy_from_slice(&bits.to_be_bytes());
    let (used, _): (Blocks<'_>, _) = used.as_chunks();
    compress256(state, used);
}

fn bytes_of(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, word) in bytes.chunks_exact_mut(4).zip(state) {
        part.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;

    use super::*;

    fn library(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Bytes that do not repeat within a block.
    fn message(len: usize, seed: u64) -> Vec<u8> {
        let word = |at: u64| xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_le_bytes(), seed);
        (0..wide(len)).map(|at| word(at).to_le_bytes()[0]).collect()
    }

    #[test]
    fn several_are_what_the_library_makes_of_each() {
        let key: [u8; 32] = message(32, 1).try_into().unwrap();
        let mac = ChunkMac::new(&key);
        let mut seen = 0;
        for len in (0..200).chain([255, 256, 8192, 65_536, 262_143, 262_144]) {
            let messages = [2, 3, 4, 5].map(|seed| message(len, seed));
            let expected = [0, 1, 2, 3].map(|number: usize| library(&key, &messages[number]));
            if let Some(found) = mac.many(messages.each_ref().map(Vec::as_slice)) {
                assert_eq!(found, expected, "of {len} bytes");
                seen += 1;
            }
            // What a processor without the instructions does not do is done here all the same.
            let mut state = *mac.inner;
            let (blocks, rest) = messages[0].as_chunks();
            compress256(&mut state, blocks);
            assert_eq!(mac.finish(&mut state, rest, len), expected[0], "of {len} bytes");
        }
        let nothing: [Blocks<'_>; LANES] = [&[]; LANES];
        let has_instructions = sha256_lanes::compress(&mut [START; LANES], nothing);
        assert_eq!(seen, if has_instructions { 206 } else { 0 });
    }

    #[test]
    fn messages_of_different_lengths_are_left() {
        let mac = ChunkMac::new(&[7; 32]);
        assert_eq!(mac.many([&[1; 64], &[1; 64], &[1; 64], &[1; 65]]), None);
    }
}
