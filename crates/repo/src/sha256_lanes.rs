//! SHA-256's compression of several messages at once, with the processor's own instructions for it.
//!
//! This is the one place of the project with `unsafe` code. The reason is speed: naming chunks is
//! the dearest part of a backup, and the instructions wait for their own results for more of the
//! time than they work. Messages in turn, instruction by instruction, fill the wait. The
//! library that hashes everything else (`sha2`) takes one message at a time; the tests of
//! [`chunk_mac`](crate::chunk_mac) hold this to it.
//!
//! Facts: FIPS 180-4 (the function); Intel's architecture manual, `SHA256RNDS2`, `SHA256MSG1` and
//! `SHA256MSG2` (the state in two registers, as A B E F and C D G H; in one, four words of the
//! schedule).

/// A state of the hash: the words A to H.
pub(crate) type State = [u32; 8];

/// Messages at once.
pub(crate) const LANES: usize = 4;

/// Bytes that the function takes at once.
pub(crate) const BLOCK_BYTES: usize = 64;

/// Blocks of a message.
pub(crate) type Blocks<'a> = &'a [[u8; BLOCK_BYTES]];

/// Compresses as many blocks of each message as the shortest has. False when this processor
/// lacks the instructions: then nothing was done.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(crate) fn compress(states: &mut [State; LANES], messages: [Blocks<'_>; LANES]) -> bool {
    if !(is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3"))
    {
        return false;
    }
    // SAFETY: the function asks for nothing but the features that were found right now.
    unsafe { x86::compress(states, messages) };
    true
}

/// Compresses nothing: there are no such instructions, or none that this knows.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compress(_states: &mut [State; LANES], _messages: [Blocks<'_>; LANES]) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::{BLOCK_BYTES, Blocks, LANES, State};

    /// The constants of FIPS 180-4, section 4.2.2, four rounds in a row.
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// One message on its way: its state, and sixteen words of its schedule.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
        words: [__m128i; 4],
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(states: &mut [State; LANES], messages: [Blocks<'_>; LANES]) {
        let mut lanes = [load(&states[0]), load(&states[1]), load(&states[2]), load(&states[3])];
        let [a, b, c, d] = messages;
        for (((block_a, block_b), block_c), block_d) in a.iter().zip(b).zip(c).zip(d) {
            let before = lanes;
            lanes[0].words = schedule(block_a);
            lanes[1].words = schedule(block_b);
            lanes[2].words = schedule(block_c);
            lanes[3].words = schedule(block_d);
            macro_rules! rounds {
                ($($number:literal)*) => { $( four_rounds::<$number>(&mut lanes); )* };
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for (lane, before) in lanes.iter_mut().zip(&before) {
                add(lane, before);
            }
        }
        *states = [store(&lanes[0]), store(&lanes[1]), store(&lanes[2]), store(&lanes[3])];
    }

    /// Rounds `4 * NUMBER` and the three that follow, of all messages in turn.
    #[expect(
        clippy::indexing_slicing,
        reason = "NUMBER is a constant below 16, which `K` has, and % 4 is within four words"
    )]
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn four_rounds<const NUMBER: usize>(lanes: &mut [Lane; LANES]) {
        let [k0, k1, k2, k3] = K[NUMBER].map(u32::cast_signed);
        let constants = _mm_set_epi32(k3, k2, k1, k0);
        let mut sums = [constants; LANES];
        for (lane, sum) in lanes.iter_mut().zip(&mut sums) {
            *sum = _mm_add_epi32(lane.words[NUMBER % 4], constants);
            lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, *sum);
        }
        for (lane, sum) in lanes.iter_mut().zip(sums) {
            lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, _mm_shuffle_epi32::<0x0E>(sum));
            // The last four have their words already.
            if NUMBER < 12 {
                lane.words[NUMBER % 4] = next_words::<NUMBER>(&lane.words);
            }
        }
    }

    /// The four words that follow the sixteen, which begin with those of round `4 * NUMBER`.
    #[expect(clippy::indexing_slicing, reason = "% 4 is within four words")]
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn next_words<const NUMBER: usize>(words: &[__m128i; 4]) -> __m128i {
        let at = |ahead: usize| words[(NUMBER + ahead) % 4];
        let seven_back = _mm_alignr_epi8::<4>(at(3), at(2));
        let partial = _mm_add_epi32(_mm_sha256msg1_epu32(at(0), at(1)), seven_back);
        _mm_sha256msg2_epu32(partial, at(3))
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn schedule(block: &[u8; BLOCK_BYTES]) -> [__m128i; 4] {
        // Words are big-endian.
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [_mm_setzero_si128(); 4];
        let (halves, _) = block.as_chunks::<8>();
        for (word, [low, high]) in words.iter_mut().zip(halves.as_chunks().0) {
            let (low, high) = (i64::from_le_bytes(*low), i64::from_le_bytes(*high));
            *word = _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load(state: &State) -> Lane {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        Lane {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
            words: [_mm_setzero_si128(); 4],
        }
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn store(lane: &Lane) -> State {
        let (abef, cdgh) = (lane.abef, lane.cdgh);
        [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ]
        .map(i32::cast_unsigned)
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn add(lane: &mut Lane, before: &Lane) {
        lane.abef = _mm_add_epi32(lane.abef, before.abef);
        lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
    }
}
