//! A stream of WAL that arrives in pieces. The first byte says how long they are.
#![no_main]

mod checksums;

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::stream::{Item, StreamOptions, WalStream};
use pgrecall_pgformat::{Lsn, SegmentSize};

/// Reads to the end of the bytes or of the WAL; gives where each record starts.
fn read(start: Lsn, bytes: &[u8], piece_bytes: usize) -> Vec<Lsn> {
    let Ok(segment_size) = SegmentSize::from_bytes(1 << 20) else { return Vec::new() };
    let options = StreamOptions { start, segment_size, major: None, carried: None };
    let Ok(mut stream) = WalStream::new(options) else { return Vec::new() };
    let mut records = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        stream.push(stream.pushed_until(), piece).expect("each piece joins the one before");
        loop {
            match stream.next_item() {
                Item::Record(record) => records.push(record.lsn),
                Item::Continuation { .. } => {}
                Item::NeedMore => break,
                Item::End(_) => return records,
            }
        }
        let _ = stream.unfinished();
    }
    records
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&pieces, wal)) = bytes.split_first() else { return };
    let wal = checksums::put_right(wal);
    let start = checksums::start(&wal);
    let whole = read(start, &wal, wal.len().max(1));
    assert_eq!(whole, read(start, &wal, 64 * (usize::from(pieces) + 1)));
});
