//! Puts the checksums of WAL records right, so that changed bytes get past them: those of records
//! that lie within a page.

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::record::record_checksum;

const PAGE_BYTES: usize = 8192;
const RECORD_HEADER_BYTES: usize = 24;
const CRC_OFFSET: usize = 20;

/// The position that the first page says it has, so that it fits.
pub fn start(wal: &[u8]) -> Lsn {
    let address = wal.get(8..16).and_then(|bytes| bytes.try_into().ok());
    Lsn(address.map_or(0, u64::from_le_bytes) & !(PAGE_BYTES as u64 - 1))
}

/// The WAL with right checksums.
pub fn put_right(wal: &[u8]) -> Vec<u8> {
    let mut wal = wal.to_vec();
    for page in wal.chunks_mut(PAGE_BYTES) {
        let Some(mut at) = first_record(page) else { continue };
        while let Some(len) = word(page, at).filter(|len| *len >= RECORD_HEADER_BYTES) {
            let Some(record) = page.get_mut(at..at.saturating_add(len)) else { break };
            let Some(crc) = record_checksum(record) else { break };
            record[CRC_OFFSET..RECORD_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            at = (at + len).next_multiple_of(8);
        }
    }
    wal
}

/// Where the first record of a page starts: after its header and the rest of the record before.
fn first_record(page: &[u8]) -> Option<usize> {
    let is_long = page.get(2)? & 2 != 0;
    let header = if is_long { 40 } else { 24 };
    let rest = if page.get(2)? & 1 != 0 { word(page, 16)? } else { 0 };
    Some(header + rest.next_multiple_of(8))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}
