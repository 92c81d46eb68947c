//! No bytes from outside may make a decoder panic, hang, or take memory without bound; and damage
//! to real WAL must end the reading, never go past it.

use pgrecall_pgformat::control::{Checkpoint, ControlFile};
use pgrecall_pgformat::data_directory::{EntryKind, InitFork, judge};
use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::label::{BackupHistory, BackupLabel};
use pgrecall_pgformat::page::PageHeader;
use pgrecall_pgformat::page_check::{PageChecksums, check_page};
use pgrecall_pgformat::record::{Record, RecordHeader, record_checksum};
use pgrecall_pgformat::relation::RelationFile;
use pgrecall_pgformat::resource_manager::ResourceManager;
use pgrecall_pgformat::segment_chain::{Link, SegmentChain};
use pgrecall_pgformat::segment_digest::{SegmentWalk, digest_segment};
use pgrecall_pgformat::stream::{Item, StreamOptions, WalStream};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::unfinished::{Base64Bytes, UnfinishedRecord};
use pgrecall_pgformat::{
    ArchiveName, Lsn, Major, SegmentName, SegmentNumber, SegmentSize, TimelineId, tablespace_map,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PAGE: usize = 8192;

/// What crafted WAL is made of: the payloads of its records, by resource manager, info and data
/// length.
type Payloads = Vec<(u8, u8, usize)>;

fn payloads() -> impl Strategy<Value = Payloads> {
    vec((0_u8..22, any::<u8>(), prop_oneof![0_usize..200, 0_usize..40_000]), 1..40)
}

fn size() -> SegmentSize {
    SegmentSize::from_bytes(1 << 20).unwrap()
}

fn name(number: u64) -> SegmentName {
    SegmentName { timeline: TimelineId(1), number: SegmentNumber(number) }
}

/// Lays records on pages from the start of segment `first` on, as a server does; gives the
/// segments' bytes and where the records start.
fn craft(major: Major, first: u64, payloads: &Payloads, segments: usize) -> (Vec<u8>, Vec<Lsn>) {
    let segment_bytes = 1 << 20;
    let base = first * segment_bytes as u64;
    let mut bytes = vec![0; segments * segment_bytes];
    let mut at = 0;
    let mut lsns: Vec<Lsn> = Vec::new();
    for (manager, info, len) in payloads {
        // A switch record would end the segment.
        let info = if *manager == 0 && info & 0xF0 == 0x40 { 0x20 } else { *info };
        let mut record = craft_record(*manager, info, *len);
        let previous = lsns.last().map_or(0, |lsn| lsn.0);
        record[8..16].copy_from_slice(&previous.to_le_bytes());
        let crc = record_checksum(&record).unwrap();
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        if at + record.len() + record.len() / 100 + 100 > bytes.len() {
            break;
        }
        at = at.next_multiple_of(8);
        let mut written = 0;
        while written < record.len() {
            if at.is_multiple_of(PAGE) {
                let remaining = if written == 0 { 0 } else { record.len() - written };
                at = craft_page(&mut bytes, base, at, major, remaining);
            }
            if written == 0 {
                lsns.push(Lsn(base + at as u64));
            }
            let len = (record.len() - written).min(PAGE - at % PAGE);
            bytes[at..at + len].copy_from_slice(&record[written..written + len]);
            (at, written) = (at + len, written + len);
        }
    }
    (bytes, lsns)
}

fn craft_page(bytes: &mut [u8], base: u64, at: usize, major: Major, remaining: usize) -> usize {
    let is_first = at.is_multiple_of(1 << 20);
    let flags = u16::from(remaining != 0) | if is_first { 2 } else { 0 };
    bytes[at..at + 2].copy_from_slice(&major.wal_magic().to_le_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&flags.to_le_bytes());
    bytes[at + 4] = 1;
    bytes[at + 8..at + 16].copy_from_slice(&(base + at as u64).to_le_bytes());
    bytes[at + 16..at + 20].copy_from_slice(&u32::try_from(remaining).unwrap().to_le_bytes());
    if !is_first {
        return at + 24;
    }
    bytes[at + 24] = 77;
    bytes[at + 32..at + 36].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    bytes[at + 36..at + 40].copy_from_slice(&8192_u32.to_le_bytes());
    at + 40
}

/// A record with main data only, of a pattern, without its link and checksum.
fn craft_record(manager: u8, info: u8, len: usize) -> Vec<u8> {
    let mut record = vec![0; 24];
    record[4] = 9;
    record[16] = info;
    record[17] = manager;
    if len > 255 {
        record.push(254);
        record.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    } else if len > 0 {
        record.extend_from_slice(&[255, u8::try_from(len).unwrap()]);
    }
    record.extend((0..len).map(|i| u8::try_from((i * 7 + len) % 251).unwrap()));
    let total = u32::try_from(record.len()).unwrap();
    record[..4].copy_from_slice(&total.to_le_bytes());
    record
}

/// The records of a stream that is given `bytes` in pieces, to its end.
fn read_stream(start: Lsn, bytes: &[u8], pieces: &[usize]) -> Vec<Lsn> {
    let options = StreamOptions { start, segment_size: size(), major: None, carried: None };
    let mut stream = WalStream::new(options).unwrap();
    let mut lsns = Vec::new();
    let mut rest = bytes;
    let mut sizes = pieces.iter().cycle();
    while !rest.is_empty() {
        let len = (*sizes.next().unwrap()).clamp(1, rest.len());
        let (piece, after) = rest.split_at(len);
        rest = after;
        stream.push(stream.pushed_until(), piece).unwrap();
        loop {
            match stream.next_item() {
                Item::Record(record) => lsns.push(record.lsn),
                Item::Continuation { .. } => {}
                Item::NeedMore => break,
                Item::End(_) => return lsns,
            }
        }
    }
    lsns
}

/// A first page that goes on with a record and takes a lost one's place, both at once: nobody writes
/// it, and what comes of it must not hang on how the bytes arrive.
#[test]
fn a_page_that_contradicts_itself_reads_the_same_in_any_pieces() {
    let start = Lsn((3 << 20) + PAGE as u64);
    let mut page = vec![0; PAGE];
    page[..2].copy_from_slice(&Major::V15.wal_magic().to_le_bytes());
    page[2] = 0x0001 | 0x0008;
    page[4] = 1;
    page[8..16].copy_from_slice(&start.0.to_le_bytes());
    page[16..20].copy_from_slice(&600_u32.to_le_bytes());
    let end = |piece_bytes: usize| {
        let options = StreamOptions { start, segment_size: size(), major: None, carried: None };
        let mut stream = WalStream::new(options).unwrap();
        for piece in page.chunks(piece_bytes) {
            stream.push(stream.pushed_until(), piece).unwrap();
            loop {
                match stream.next_item() {
                    Item::End(end) => return Some(end),
                    Item::NeedMore => break,
                    Item::Record(_) | Item::Continuation { .. } => {}
                }
            }
        }
        None
    };
    let whole = end(PAGE);
    assert!(whole.is_some());
    for piece_bytes in [1, 24, 100, 512, 1000] {
        assert_eq!(end(piece_bytes), whole, "pieces of {piece_bytes}");
    }
}

fn majors() -> impl Strategy<Value = Major> {
    prop::sample::select(Major::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn crafted_wal_is_read_whole(
        major in majors(),
        payloads in payloads(),
        pieces in vec(1_usize..60_000, 1..5),
    ) {
        let (bytes, lsns) = craft(major, 3, &payloads, 3);
        prop_assert_eq!(read_stream(Lsn(3 << 20), &bytes, &pieces), lsns.clone());
        let mut found = Vec::new();
        let mut chain = SegmentChain::new(size());
        for (segment, number) in bytes.chunks(1 << 20).zip(3..) {
            let mut walk = SegmentWalk::new(name(number), size());
            let mut here = Vec::new();
            let mut rest = segment;
            for len in pieces.iter().cycle() {
                let (piece, after) = rest.split_at((*len).min(rest.len()));
                rest = after;
                walk.feed_with(piece, &mut |visited| here.push(visited.record.lsn));
                if rest.is_empty() {
                    break;
                }
            }
            let summary = walk.finish();
            prop_assert_eq!(&summary, &digest_segment(name(number), size(), segment));
            if let Link::Joined(spanning) = chain.enter(&summary).unwrap() {
                found.push(spanning.record().lsn);
            }
            found.extend(here);
        }
        prop_assert_eq!(found, lsns);
    }

    #[test]
    fn a_carried_record_is_completed(payloads in payloads(), cut in 0_usize..127) {
        let (bytes, lsns) = craft(Major::V17, 3, &payloads, 1);
        let middle = (cut + 1) * PAGE;
        let options = |start, carried| StreamOptions {
            start, segment_size: size(), major: None, carried,
        };
        let mut first = WalStream::new(options(Lsn(3 << 20), None)).unwrap();
        first.push(Lsn(3 << 20), &bytes[..middle]).unwrap();
        let mut found = Vec::new();
        while let Item::Record(record) = first.next_item() {
            found.push(record.lsn);
        }
        if let Item::End(_) = first.next_item() {
            prop_assert_eq!(found, lsns);
            return Ok(());
        }
        let start = Lsn((3 << 20) + middle as u64);
        let carried = first.unfinished();
        let mut second = WalStream::new(options(start, carried)).unwrap();
        for piece in bytes[middle..].chunks(5000) {
            second.push(second.pushed_until(), piece).unwrap();
            loop {
                match second.next_item() {
                    Item::Record(record) => found.push(record.lsn),
                    Item::Continuation { .. } => prop_assert!(false, "the record was carried"),
                    Item::NeedMore | Item::End(_) => break,
                }
            }
        }
        prop_assert_eq!(found, lsns);
    }

    #[test]
    fn a_stream_can_start_at_any_record(
        payloads in payloads(),
        pick in any::<prop::sample::Index>(),
    ) {
        let (bytes, lsns) = craft(Major::V15, 3, &payloads, 2);
        let first = pick.index(lsns.len());
        let start = lsns[first];
        let options = StreamOptions {
            start, segment_size: size(), major: Some(Major::V15), carried: None,
        };
        let mut stream = WalStream::new(options).unwrap();
        stream.push(start, &bytes[usize::try_from(start.0 - (3 << 20)).unwrap()..]).unwrap();
        let mut found = Vec::new();
        while let Item::Record(record) = stream.next_item() {
            found.push(record.lsn);
        }
        prop_assert_eq!(&found, &lsns[first..]);
        let unknown = StreamOptions { start, segment_size: size(), major: None, carried: None };
        prop_assert!(WalStream::new(unknown).is_err());
    }

    #[test]
    fn damage_never_invents_records(
        payloads in payloads(),
        flips in vec((0_usize..(1 << 20), 1_u8..=255), 1..4),
    ) {
        let (mut bytes, lsns) = craft(Major::V18, 3, &payloads, 1);
        for (at, bits) in flips {
            bytes[at] ^= bits;
        }
        let found = read_stream(Lsn(3 << 20), &bytes, &[4096]);
        prop_assert!(found.len() <= lsns.len() + 1);
        let common = found.len().min(lsns.len());
        prop_assert_eq!(&found[..common], &lsns[..common]);
        let summary = digest_segment(name(3), size(), &bytes);
        prop_assert_eq!(summary.records, found.len() as u64);
    }
}

proptest! {
    #[test]
    fn binary_decoders_do_not_panic(bytes in vec(any::<u8>(), 0..9000), major in majors()) {
        let _ = ControlFile::decode(&bytes);
        let _ = Checkpoint::decode(&bytes, major);
        let _ = PageHeader::decode(&bytes);
        let _ = RecordHeader::decode(&bytes);
        let _ = check_page(&bytes, 1, Lsn::MAX, PageChecksums::On);
        let _ = check_page(&bytes, 1, Lsn::MAX, PageChecksums::Off);
        let _ = tablespace_map::parse(&bytes);
        let _ = BackupLabel::parse(&bytes);
        let _ = BackupHistory::parse(&bytes);
        let _ = History::parse(TimelineId(9), &bytes);
        let _ = digest_segment(name(1), size(), &bytes);
    }

    #[test]
    fn control_files_with_right_lengths_do_not_panic(
        fields in vec(any::<u8>(), 320),
        major in majors(),
    ) {
        let mut bytes = fields;
        bytes.resize(8192, 0);
        bytes[8..12].copy_from_slice(&major.control_version().to_le_bytes());
        bytes[12..16].copy_from_slice(&major.catalog_version().to_le_bytes());
        let end = match major {
            Major::V19 => 308,
            Major::V18 => 292,
            _ => 288,
        };
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::decode(&bytes);
    }

    #[test]
    fn record_bodies_do_not_panic(
        mut bytes in vec(any::<u8>(), 24..400),
        manager in 0_u8..6,
        major in majors(),
    ) {
        bytes[17] = manager;
        let header = RecordHeader::decode(&bytes).unwrap();
        let record = Record {
            lsn: Lsn(8), end_lsn: Lsn(16), timeline: TimelineId(1), major, header, bytes: &bytes,
        };
        let mut blocks = Vec::new();
        if let Ok(body) = record.decode_body(&mut blocks) {
            let _ = Event::decode(&record, &body);
            for block in &blocks {
                prop_assert!(record.block_data(block).is_some());
                if let Some(image) = &block.image {
                    prop_assert!(record.image_bytes(image).is_some());
                }
            }
        }
        let main_data = &bytes[24..];
        let body = pgrecall_pgformat::record::RecordBody {
            main_data, origin: None, toplevel_xid: None,
        };
        let _ = Event::decode(&record, &body);
        let _ = ResourceManager(manager).to_string();
    }

    #[test]
    fn pages_of_noise_after_a_right_header_do_not_panic(
        noise in vec(any::<u8>(), 100..30_000),
        total_len in any::<u32>(),
    ) {
        let (mut bytes, _) = craft(Major::V16, 3, &vec![(10, 0, 10)], 1);
        let end = (40 + noise.len()).min(bytes.len());
        bytes[40..end].copy_from_slice(&noise[..end - 40]);
        bytes[40..44].copy_from_slice(&total_len.to_le_bytes());
        let _ = digest_segment(name(3), size(), &bytes);
        let _ = read_stream(Lsn(3 << 20), &bytes, &[1, 7000]);
        let carried = UnfinishedRecord {
            lsn: Lsn((3 << 20) - 64),
            total_len,
            present_bytes: 64,
            bytes: Base64Bytes(noise[..64].to_vec()),
        };
        let options = StreamOptions {
            start: Lsn(3 << 20), segment_size: size(), major: None, carried: Some(carried),
        };
        let mut stream = WalStream::new(options).unwrap();
        stream.push(Lsn(3 << 20), &bytes[..40_000]).unwrap();
        while let Item::Record(_) | Item::Continuation { .. } = stream.next_item() {}
        let _ = stream.unfinished();
    }

    #[test]
    fn text_parsers_do_not_panic(
        text in "\\PC{0,60}",
        lines in "[A-Z :/0-9(). file\\n\\t]{0,200}",
    ) {
        let _ = text.parse::<Lsn>();
        let _ = text.parse::<TimelineId>();
        let _ = text.parse::<Major>();
        let _ = ArchiveName::parse(&text, size());
        let _ = RelationFile::parse(&text);
        let _ = judge(&text, EntryKind::File, Major::V14, InitFork::Present);
        let _ = BackupLabel::parse(lines.as_bytes());
        let _ = History::parse(TimelineId(u32::MAX), lines.as_bytes());
    }

    #[test]
    fn names_come_back(timeline in 1_u32.., number in 0_u64..(1 << 40), mib in 0_u32..11) {
        let size = SegmentSize::from_bytes(1 << (20 + mib)).unwrap();
        let number = SegmentNumber(number % (u64::MAX / u64::from(size.bytes())));
        let name = SegmentName { timeline: TimelineId(timeline), number };
        prop_assert_eq!(SegmentName::parse(&name.file_name(size), size).unwrap(), name);
    }

    #[test]
    fn lsns_come_back(value: u64) {
        prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>().unwrap(), Lsn(value));
    }

    #[test]
    fn tablespace_paths_come_back(oid in 1_u32.., path in vec(1_u8.., 1..50)) {
        let links = vec![tablespace_map::TablespaceLink { oid, path }];
        prop_assert_eq!(tablespace_map::parse(&tablespace_map::compose(&links)).unwrap(), links);
    }
}
