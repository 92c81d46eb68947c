//! Data pages: their checksum, and whether a page read while the server was writing is sound.
//!
//! The checksum is that of `checksum_impl.h` (32 interleaved FNV-1a sums); the judgement that of
//! `verify_page_checksum` in `src/backend/backup/basebackup.c` and of `PageIsVerified` in
//! `bufpage.c`.

use crate::field::{is_zero, u16_at, u32_at};
use crate::lsn::Lsn;

/// Sums computed side by side, `N_SUMS`.
const LANES: usize = 32;
/// Bytes that one round takes: a 32-bit word for each lane.
const ROW_BYTES: usize = LANES * 4;
const FNV_PRIME: u32 = 16_777_619;
/// The page header without line pointers, `SizeOfPageHeaderData`.
const HEADER_BYTES: u16 = 24;
/// `PD_VALID_FLAG_BITS`.
const FLAGS_VALID: u16 = 0x0007;
/// `PG_PAGE_LAYOUT_VERSION`, since 8.3.
const LAYOUT_VERSION: u16 = 4;

/// The sums' first values, `checksumBaseOffsets`; part of the format.
const BASE_OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Whether the cluster's pages carry checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageChecksums {
    /// They do.
    On,
    /// They do not: only the header can be judged.
    Off,
}

/// Whether a page passes its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// It does.
    Good,
    /// It does not: torn, or damaged.
    Bad,
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its checksum is right; without checksums, its header is plausible.
    Sound,
    /// All zero: never written since the relation was extended.
    New,
    /// Zero where the end of free space should be, but not all zero: either being written for the
    /// first time, which WAL replay mends, or damaged. PostgreSQL's base backup does not check such
    /// pages.
    NewWithData,
    /// Changed since the backup started, if its LSN is to be believed: then WAL replay writes it
    /// again, torn or not. `verify_page_checksum` looks no further, so that rubbish with a high LSN
    /// passes; here the caller, who knows the end of the backup later, can tell.
    NewerThanBackup {
        /// The position of its last change.
        page_lsn: Lsn,
        /// Whether it would pass the check of an older page.
        sound: Soundness,
    },
    /// Its checksum is wrong: torn or damaged. PostgreSQL reads such a page once more before it
    /// believes that.
    BadChecksum {
        /// The checksum that the bytes have.
        expected: u16,
        /// The checksum in its header.
        found: u16,
        /// The position of its last change, as the header says.
        page_lsn: Lsn,
    },
    /// Without checksums: its header cannot be.
    BadHeader {
        /// The position of its last change, as the header says.
        page_lsn: Lsn,
    },
    /// Not a page at all: the slice is no multiple of 128 bytes, or too short.
    BadLength,
}

impl Verdict {
    /// Whether this page cannot be trusted.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::BadChecksum { .. } | Self::BadHeader { .. } | Self::BadLength)
    }
}

/// Judges a page of a relation's main, FSM, VM or init fork.
///
/// `block` is its number within the fork (over all segment files), `start_lsn` the start of the
/// backup; at [`Lsn::MAX`] no page counts as newer.
#[must_use]
pub fn check_page(page: &[u8], block: u32, start_lsn: Lsn, checksums: PageChecksums) -> Verdict {
    let Some(header) = PageHeader::decode(page) else {
        return Verdict::BadLength;
    };
    let page_lsn = header.lsn;
    // PageIsNew
    if header.upper == 0 {
        return if is_zero(page) { Verdict::New } else { Verdict::NewWithData };
    }
    let verdict = check_content(page, &header, block, checksums);
    if page_lsn >= start_lsn {
        let sound = if verdict.is_bad() { Soundness::Bad } else { Soundness::Good };
        return Verdict::NewerThanBackup { page_lsn, sound };
    }
    verdict
}

fn check_content(
    page: &[u8],
    header: &PageHeader,
    block: u32,
    checksums: PageChecksums,
) -> Verdict {
    let page_lsn = header.lsn;
    match checksums {
        PageChecksums::Off if header.is_plausible(page.len()) => Verdict::Sound,
        PageChecksums::Off => Verdict::BadHeader { page_lsn },
        PageChecksums::On => match page_checksum(page, block) {
            None => Verdict::BadLength,
            Some(expected) if expected == header.checksum => Verdict::Sound,
            Some(expected) => Verdict::BadChecksum { expected, found: header.checksum, page_lsn },
        },
    }
}

/// The position of a page's last change, from its header.
#[must_use]
pub fn page_lsn(page: &[u8]) -> Option<Lsn> {
    Some(Lsn(u64::from(u32_at(page, 0)?) << 32 | u64::from(u32_at(page, 4)?)))
}

/// The checksum of a page as if its checksum field were zero (`pg_checksum_page`); nothing if the
/// slice is no multiple of 128 bytes.
#[must_use]
pub fn page_checksum(page: &[u8], block: u32) -> Option<u16> {
    // What every x86-64 has lacks the multiplication that these sums are made of. The processor is
    // asked once; the same code is there for each kind.
    fearless_simd::dispatch!(fearless_simd::Level::new(), _simd => checksum_of(page, block))
}

#[inline(always)]
fn checksum_of(page: &[u8], block: u32) -> Option<u16> {
    let (rows, rest) = page.as_chunks::<ROW_BYTES>();
    let (first, rows) = rows.split_first()?;
    if !rest.is_empty() {
        return None;
    }
    let mut first = *first;
    // The checksum field itself counts as zero.
    for byte in first.iter_mut().skip(8).take(2) {
        *byte = 0;
    }
    let mut sums = BASE_OFFSETS;
    mix_row(&mut sums, &first);
    for row in rows {
        mix_row(&mut sums, row);
    }
    let zeroes = [0; ROW_BYTES];
    mix_row(&mut sums, &zeroes);
    mix_row(&mut sums, &zeroes);
    let folded = sums.iter().fold(block, |folded, sum| folded ^ sum);
    u16::try_from(folded % 65_535).ok()?.checked_add(1)
}

/// One round of all lanes; written so that the compiler makes vector instructions of it.
#[inline(always)]
fn mix_row(sums: &mut [u32; LANES], row: &[u8; ROW_BYTES]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

/// `PageHeaderData` without line pointers.
struct PageHeader {
    lsn: Lsn,
    checksum: u16,
    flags: u16,
    lower: u16,
    upper: u16,
    special: u16,
    size_and_version: u16,
}

impl PageHeader {
    #[inline]
    fn decode(page: &[u8]) -> Option<Self> {
        Some(Self {
            lsn: page_lsn(page)?,
            checksum: u16_at(page, 8)?,
            flags: u16_at(page, 10)?,
            lower: u16_at(page, 12)?,
            upper: u16_at(page, 14)?,
            special: u16_at(page, 16)?,
            size_and_version: u16_at(page, 18)?,
        })
    }

    /// The checks of `PageIsVerified`, and size and layout version besides.
    fn is_plausible(&self, page_size: usize) -> bool {
        let Ok(size) = u16::try_from(page_size) else {
            return false;
        };
        self.flags & !FLAGS_VALID == 0
            && self.lower >= HEADER_BYTES
            && self.lower <= self.upper
            && self.upper <= self.special
            && self.special <= size
            && self.special.is_multiple_of(8)
            && self.size_and_version == size | LAYOUT_VERSION
    }
}

#[cfg(test)]
mod tests {
    use super::{PageChecksums, Soundness, Verdict, check_page, page_checksum};
    use crate::lsn::Lsn;

    /// A page as PostgreSQL would write it, with made-up tuples.
    fn page(lsn: u64) -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192_u32).map(|i| (i * 31 % 251) as u8).collect();
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[10..12].copy_from_slice(&0_u16.to_le_bytes());
        page[12..14].copy_from_slice(&200_u16.to_le_bytes());
        page[14..16].copy_from_slice(&4000_u16.to_le_bytes());
        page[16..18].copy_from_slice(&8192_u16.to_le_bytes());
        page[18..20].copy_from_slice(&(8192_u16 | 4).to_le_bytes());
        let checksum = page_checksum(&page, 7).unwrap();
        page[8..10].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// The same sums, one lane at a time and without any of the tricks.
    fn plain_checksum(page: &[u8], block: u32) -> u16 {
        let mut page = page.to_vec();
        page[8..10].fill(0);
        page.extend_from_slice(&[0; 256]);
        let mut folded = 0;
        for lane in 0..32 {
            let mut sum = super::BASE_OFFSETS[lane];
            for word in page.chunks(4).skip(lane).step_by(32) {
                let mixed = sum ^ u32::from_le_bytes(word.try_into().unwrap());
                sum = mixed.wrapping_mul(16_777_619) ^ (mixed >> 17);
            }
            folded ^= sum;
        }
        ((folded ^ block) % 65_535 + 1) as u16
    }

    #[test]
    fn lanes_agree_with_the_plain_sum() {
        let page = page(0x1_0000_0010);
        for block in [0, 7, u32::MAX] {
            assert_eq!(page_checksum(&page, block).unwrap(), plain_checksum(&page, block));
        }
        assert_eq!(page_checksum(&page[..100], 0), None);
        assert_eq!(page_checksum(&[], 0), None);
    }

    #[test]
    fn judges_as_a_base_backup_does() {
        let start = Lsn(0x2_0000_0000);
        let mut page = page(0x1_0000_0010);
        let judge = |page: &[u8], block| check_page(page, block, start, PageChecksums::On);
        assert_eq!(judge(&page, 7), Verdict::Sound);
        assert!(matches!(judge(&page, 8), Verdict::BadChecksum { .. }), "moved");
        page[5000] ^= 1;
        let Verdict::BadChecksum { expected, found, page_lsn } = judge(&page, 7) else {
            panic!("a flipped bit passed");
        };
        assert_ne!(expected, found);
        assert_eq!(page_lsn, Lsn(0x1_0000_0010));
        let older = Lsn(0x1_0000_0010);
        let newer = |sound| Verdict::NewerThanBackup { page_lsn: older, sound };
        assert_eq!(check_page(&page, 7, older, PageChecksums::On), newer(Soundness::Bad));
        page[5000] ^= 1;
        assert_eq!(check_page(&page, 7, older, PageChecksums::On), newer(Soundness::Good));
        assert_eq!(judge(&[0; 8192], 7), Verdict::New);
        let mut torn = vec![0; 8192];
        torn[8000] = 1;
        assert_eq!(judge(&torn, 7), Verdict::NewWithData);
        assert_eq!(judge(&page[..10], 7), Verdict::BadLength);
    }

    #[test]
    fn without_checksums_the_header_must_be_plausible() {
        let judge = |page: &[u8]| check_page(page, 0, Lsn(0x2_0000_0000), PageChecksums::Off);
        let good = page(0x1_0000_0010);
        assert_eq!(judge(&good), Verdict::Sound);
        for (offset, value) in [(10, 8_u8), (13, 0x40), (17, 0x21), (18, 5), (12, 3)] {
            let mut bad = good.clone();
            bad[offset] = value;
            if offset == 12 {
                bad[13] = 0;
            }
            assert!(judge(&bad).is_bad(), "byte {offset}");
        }
    }
}
