//! A frame: bytes as they are, and a sealed one whose codec, plain length and payload are the
//! input's, which is opened and inflated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::codec;
use pgrecall_repo::format::bytes::Reader;
use pgrecall_repo::format::frame::{self, Codec, FrameCipher, Last, Place};
use pgrecall_repo::format::header::{Kind, Suite};
use pgrecall_repo::id::ChunkId;
use zeroize::Zeroizing;

/// More is only slower.
const PLAIN_BYTES_MAX: u32 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame::take(&mut Reader::new(bytes));
    let [codec, a, b, c, d, payload @ ..] = bytes else { return };
    let codec = if codec & 1 == 0 { Codec::Stored } else { Codec::Zstd };
    let plain_len = u32::from_le_bytes([*a, *b, *c, *d]) % PLAIN_BYTES_MAX;
    for suite in [Suite::Clear, Suite::Aes256Gcm] {
        let cipher = FrameCipher::new(suite, &Zeroizing::new([7; 32]), Kind::DataPack, "d", "n");
        let mut scratch = Vec::new();
        let _ = cipher.open(Place::body(0, Last::No), bytes, &mut scratch);
        let mut out = Vec::new();
        let place = Place::chunk(1, ChunkId::from_bytes([3; 32]));
        let Ok(sealed) = cipher.seal(&mut out, place, codec, plain_len as usize, payload) else {
            return;
        };
        let Ok(opened) = cipher.open(place, &out[sealed], &mut scratch) else { continue };
        let mut plain = Vec::new();
        if codec::inflate(&opened, &mut plain).is_ok() {
            assert_eq!(plain.len(), plain_len as usize);
        }
    }
});
