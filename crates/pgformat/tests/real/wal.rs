//! WAL of real servers, record by record as `pg_waldump` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pgrecall_pgformat::control::{ControlFile, FullPageWrites};
use pgrecall_pgformat::end_of_wal::EndOfWal;
use pgrecall_pgformat::event::{CheckpointKind, Event};
use pgrecall_pgformat::record::{ImageUse, Record};
use pgrecall_pgformat::relation::Fork;
use pgrecall_pgformat::segment_chain::{Link, SegmentChain};
use pgrecall_pgformat::segment_digest::{SegmentWalk, digest_segment, visit_segment};
use pgrecall_pgformat::segment_summary::{HeadExtent, SegmentEnd, SegmentSummary};
use pgrecall_pgformat::stream::{Item, StreamOptions, WalStream};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::xact::{TransactionEnd, TransactionOutcome};
use pgrecall_pgformat::{Lsn, Major, SegmentName, SegmentNumber, SegmentSize, TimelineId};

use crate::cluster::Cluster;
use crate::waldump::{DumpedRecord, dump};
use crate::workload;

const SETTINGS: &str = "wal_level = logical\nmax_prepared_transactions = 10\n\
    wal_keep_size = 4GB\nmax_wal_size = 8GB\nwal_log_hints = on\ncheckpoint_timeout = 1h\n\
    track_commit_timestamp = on\n";

/// A record as this crate sees it, in the words of `pg_waldump`, and what it says.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    dumped: DumpedRecord,
    event: Option<Event>,
}

fn seen(record: &Record<'_>) -> Seen {
    let mut blocks = Vec::new();
    let body = record.decode_body(&mut blocks).expect("a sound body");
    let mut image_bytes = 0;
    let mut texts = BTreeMap::new();
    for block in &blocks {
        let mut text = format!("rel {}", block.locator);
        if block.fork != Fork::Main {
            text.push_str(&format!(" fork {}", block.fork.name()));
        }
        text.push_str(&format!(" blk {}", block.block));
        if let Some(image) = &block.image {
            text.push_str(match image.used {
                ImageUse::Restored => " FPW",
                ImageUse::Compared => " FPW for WAL verification",
            });
            let bytes = record.image_bytes(image).expect("the image lies in the record");
            image_bytes += u32::try_from(bytes.len()).expect("a page");
        }
        assert_eq!(record.block_data(block).map(<[u8]>::len), Some(block.data_len.into()));
        texts.insert(block.id, text);
    }
    let header = record.header;
    let dumped = DumpedRecord {
        lsn: record.lsn,
        previous: header.previous,
        xid: header.xid,
        resource_manager: header.resource_manager.to_string(),
        rec_len: header.total_len - image_bytes,
        total_len: header.total_len,
        blocks: texts,
        description: String::new(),
    };
    Seen { dumped, event: Event::decode(record, &body).expect("a sound event") }
}

/// Pushes segments through a stream, in pieces of a size that fits nothing.
fn stream(segments: &[PathBuf], size: SegmentSize) -> (Vec<Seen>, Option<EndOfWal>) {
    let start = name_of(&segments[0], size).number.start(size);
    let options = StreamOptions { start, segment_size: size, major: None, carried: None };
    let mut stream = WalStream::new(options).expect("a stream");
    let mut records = Vec::new();
    for path in segments {
        let bytes = fs::read(path).expect("a segment");
        for piece in bytes.chunks(77_777) {
            stream.push(stream.pushed_until(), piece).expect("pieces join");
            loop {
                match stream.next_item() {
                    Item::Record(record) => records.push(seen(&record)),
                    Item::Continuation { .. } => assert!(records.is_empty()),
                    Item::NeedMore => break,
                    Item::End(end) => return (records, Some(end)),
                }
            }
        }
    }
    (records, None)
}

fn name_of(path: &Path, size: SegmentSize) -> SegmentName {
    let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    SegmentName::parse(name, size).expect("a segment's name")
}

/// The stream must give what `pg_waldump` prints, and stop where it stops.
fn compare(cluster: &Cluster, timeline: u32, size: SegmentSize) -> Vec<Seen> {
    let segments = cluster.segments(timeline);
    let (first, last) = (&segments[0], &segments[segments.len() - 1]);
    let (expected, errors) = dump(cluster, first, last);
    let (found, end) = stream(&segments, size);
    for (expected, found) in expected.iter().zip(&found) {
        let without_text = DumpedRecord { description: String::new(), ..expected.clone() };
        assert_eq!(found.dumped, without_text, "{}", expected.description);
        check_event(expected, found.event.as_ref(), cluster.major);
    }
    assert_eq!(found.len(), expected.len(), "{errors}");
    if let Some(end) = end {
        assert!(errors.contains(&end.lsn.text_of(cluster.major)), "{end:?}: {errors}");
    }
    assert!(found.len() > 100, "too little WAL to tell anything");
    found
}

/// What an event says must be what `pg_waldump` describes.
fn check_event(dumped: &DumpedRecord, event: Option<&Event>, major: Major) {
    let text = &dumped.description;
    let starts = |start: String| assert!(text.starts_with(&start), "{event:?}: {text}");
    let is_end = dumped.resource_manager == "Transaction"
        && (text.starts_with("COMMIT") || text.starts_with("ABORT"));
    assert_eq!(matches!(event, Some(Event::Transaction(_))), is_end, "{text}");
    match event {
        Some(Event::Transaction(end)) => check_transaction(end, dumped),
        Some(Event::Checkpoint(kind, checkpoint)) => starts(format!(
            "CHECKPOINT_{} redo {}; tli {}; prev tli {}; fpw {}; ",
            if *kind == CheckpointKind::Online { "ONLINE" } else { "SHUTDOWN" },
            checkpoint.redo.text_of(major),
            checkpoint.timeline.0,
            checkpoint.previous_timeline.0,
            checkpoint.full_page_writes == FullPageWrites::On
        )),
        Some(Event::RestorePoint { name, .. }) => {
            assert_eq!(*text, format!("RESTORE_POINT {name}"))
        }
        Some(Event::EndOfRecovery { timeline, previous_timeline, .. }) => starts(format!(
            "END_OF_RECOVERY tli {}; prev tli {}; time ",
            timeline.0, previous_timeline.0
        )),
        Some(Event::OverwriteContrecord { overwritten_lsn, .. }) => {
            let lsn = overwritten_lsn.text_of(major);
            starts(format!("OVERWRITE_CONTRECORD lsn {lsn}; time "));
        }
        Some(Event::ParameterChange { wal_level }) => {
            assert!(text.contains(&format!(" wal_level={} ", wal_level.name())), "{text}");
        }
        Some(Event::FullPageWrites(value)) => {
            starts(format!("FPW_CHANGE {}", *value == FullPageWrites::On));
        }
        Some(Event::BackupEnd { start_lsn }) => {
            starts(format!("BACKUP_END {}", start_lsn.text_of(major)));
        }
        Some(Event::RedoPoint) => starts("CHECKPOINT_REDO".to_owned()),
        Some(Event::Switch) => starts("SWITCH".to_owned()),
        Some(Event::DatabaseCreate { database, tablespace, .. }) => {
            starts("CREATE".to_owned());
            assert!(text.contains(&format!("{tablespace}/{database}")), "{text}");
        }
        Some(Event::DatabaseDrop { database, tablespaces }) => {
            starts("DROP dir".to_owned());
            assert!(text.contains(&format!("{}/{database}", tablespaces[0])), "{text}");
        }
        Some(Event::StorageCreate { locator, fork }) => {
            starts("CREATE ".to_owned());
            let suffix =
                if *fork == Fork::Main { String::new() } else { format!("_{}", fork.name()) };
            assert!(text.ends_with(&format!("/{}{suffix}", locator.relation)), "{text}");
        }
        Some(Event::StorageTruncate { locator, blocks_kept, forks }) => {
            starts("TRUNCATE ".to_owned());
            let end = format!("/{} to {blocks_kept} blocks flags {forks}", locator.relation);
            assert!(text.ends_with(&end), "{text}");
        }
        None => {
            for known in
                ["CHECKPOINT_", "RESTORE_POINT", "SWITCH", "FPW_CHANGE", "END_OF", "OVERWRITE"]
            {
                let is_known = dumped.resource_manager == "XLOG" && text.starts_with(known);
                assert!(!is_known, "{text}");
            }
        }
    }
}

/// `COMMIT_PREPARED 735: 2026-11-22 14:03:07.123456 UTC; …`
fn check_transaction(end: &TransactionEnd, dumped: &DumpedRecord) {
    let (kind, rest) = dumped.description.split_once(' ').expect("details");
    let expected = match end.outcome {
        TransactionOutcome::Commit => "COMMIT",
        TransactionOutcome::Abort => "ABORT",
        TransactionOutcome::CommitPrepared => "COMMIT_PREPARED",
        TransactionOutcome::AbortPrepared => "ABORT_PREPARED",
    };
    assert_eq!(kind, expected);
    let (xid, time) = match rest.split_once(": ") {
        Some((xid, rest)) if kind.ends_with("PREPARED") => (xid.parse().expect("an xid"), rest),
        _ => (dumped.xid, rest),
    };
    assert_eq!(end.xid, xid, "{}", dumped.description);
    assert_eq!(end.time.to_unix_micros(), unix_micros(time), "{}", dumped.description);
}

/// Reads `2026-11-22 14:03:07.123456 UTC`.
fn unix_micros(text: &str) -> i64 {
    let numbers: Vec<i64> = text[..26]
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().expect("a number"))
        .collect();
    let [year, month, day, hour, minute, second, micros] = numbers[..] else {
        panic!("no time: {text}");
    };
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut days: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    days += lengths[..usize::try_from(month - 1).expect("a month")].iter().sum::<i64>() + day - 1;
    (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros
}

/// The walk over single segments must see what the stream sees: whole records, and the spanning
/// ones joined.
fn compare_walks(segments: &[PathBuf], size: SegmentSize, all: &[Seen]) -> Vec<SegmentSummary> {
    let mut summaries: Vec<SegmentSummary> = Vec::new();
    let mut lsns = BTreeSet::new();
    let (mut chain, mut whole_chain) = (SegmentChain::new(size), SegmentChain::new(size));
    for path in segments {
        let name = name_of(path, size);
        let bytes = fs::read(path).expect("a segment");
        let mut ends = Vec::new();
        let summary = visit_segment(name, size, &bytes, &mut |visited| {
            assert!(lsns.insert(visited.record.lsn));
            if let Some(Event::Transaction(end)) = visited.event {
                ends.push(*end);
            }
        });
        check_transactions(&summary, &ends);
        for piece_bytes in [8192, 100_003, 77] {
            let mut walk = SegmentWalk::new(name, size);
            if piece_bytes == 77 && summaries.len() > 1 {
                continue;
            }
            bytes.chunks(piece_bytes).for_each(|piece| walk.feed(piece));
            assert_eq!(walk.finish(), summary, "in pieces of {piece_bytes} bytes");
        }
        let json = serde_json::to_string(&summary).expect("JSON");
        assert_eq!(serde_json::from_str::<SegmentSummary>(&json).expect("JSON"), summary);
        let mut whole = SegmentWalk::keeping_all(name, size);
        whole.feed(&bytes);
        let joined = whole_chain.enter(&whole.finish()).expect("the next segment");
        let link = chain.enter(&summary).expect("the next segment");
        match (&link, &joined) {
            (Link::Joined(record), Link::Joined(same)) => assert_eq!(record, same),
            (Link::Cut(cut), Link::Joined(record)) => {
                assert!(record.record().header.total_len > 64 * 1024, "{record:?}");
                assert_eq!((cut.lsn, cut.end_lsn), (record.record().lsn, record.record().end_lsn));
                assert_eq!(cut.header, record.record().header);
            }
            (link, joined) => assert_eq!(link, joined),
        }
        if let Link::Joined(record) = joined {
            let joined = seen(&record.record());
            let same = all.iter().find(|seen| seen.dumped.lsn == joined.dumped.lsn);
            assert_eq!(Some(&joined), same);
            assert!(lsns.insert(joined.dumped.lsn));
        }
        summaries.push(summary);
    }
    let expected: BTreeSet<Lsn> = all.iter().map(|seen| seen.dumped.lsn).collect();
    assert_eq!(lsns, expected);
    summaries
}

fn check_transactions(summary: &SegmentSummary, ends: &[TransactionEnd]) {
    let digest = &summary.transactions;
    let commits = ends.iter().filter(|end| end.outcome.is_commit()).count();
    assert_eq!(digest.commits, commits as u64);
    assert_eq!(digest.aborts, (ends.len() - commits) as u64);
    assert_eq!(digest.first.as_ref(), ends.first());
    assert_eq!(digest.last.as_ref(), ends.last());
    assert_eq!(digest.latest.map(|end| end.time), ends.iter().map(|end| end.time).max());
    assert_eq!(digest.earliest.map(|end| end.time), ends.iter().map(|end| end.time).min());
}

pub(crate) fn reads_as_pg_waldump(major: Major) {
    let size = SegmentSize::from_bytes(1 << 20).expect("1 MiB");
    let cluster = Cluster::new(major, &["--wal-segsize=1"], SETTINGS);
    cluster.start();
    let methods = cluster.sql(
        "select unnest(enumvals) from pg_settings where name = 'wal_compression'
         union all select 'on' where current_setting('server_version_num')::int < 150000",
    );
    let methods: Vec<&str> = methods.lines().filter(|method| *method != "off").collect();
    cluster.sql(workload::TABLES);
    cluster.sql(workload::PREPARED);
    cluster.sql(&workload::images(&methods));
    cluster.sql(&workload::databases(major));
    cluster.sql("select pg_switch_wal(); insert into t(k) values (20);");
    cluster.kill();
    cluster.start();
    cluster.sql("insert into t(k) values (21); insert into u values (1);");
    cluster.stop("fast");

    let records = compare(&cluster, 1, size);
    let segments = cluster.segments(1);
    let summaries = compare_walks(&segments, size, &records);
    let managers: BTreeSet<&str> =
        records.iter().map(|seen| seen.dumped.resource_manager.as_str()).collect();
    for manager in [
        "XLOG",
        "Transaction",
        "Storage",
        "Database",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "LogicalMessage",
    ] {
        assert!(managers.contains(manager), "no record of {manager}: {managers:?}");
    }
    assert!(summaries.iter().any(|summary| matches!(summary.end, SegmentEnd::Switch { .. })));
    assert!(summaries.iter().any(|summary| summary.head.extent == HeadExtent::Whole));
    assert!(summaries.iter().any(|summary| summary.head.extent == HeadExtent::NoEnd));
    let points: Vec<&str> = summaries
        .iter()
        .flat_map(|summary| &summary.restore_points.items)
        .map(|point| point.name.as_str())
        .collect();
    assert_eq!(points, ["before message", "after message"]);
    let outcomes: Vec<TransactionOutcome> = records
        .iter()
        .filter_map(|seen| match &seen.event {
            Some(Event::Transaction(end)) => Some(end.outcome),
            _ => None,
        })
        .collect();
    let count = |outcome| outcomes.iter().filter(|found| **found == outcome).count();
    assert_eq!(count(TransactionOutcome::CommitPrepared), 2);
    assert_eq!(count(TransactionOutcome::AbortPrepared), 1);
    check_identity(&cluster, &summaries[0], major);
    damage(&cluster, &segments, size);
}

fn check_identity(cluster: &Cluster, summary: &SegmentSummary, major: Major) {
    let bytes = fs::read(cluster.data().join("global/pg_control")).expect("pg_control");
    let control = ControlFile::decode(&bytes).expect("pg_control");
    let identity = summary.identity.expect("a long header");
    assert_eq!(identity.major, major);
    assert_eq!(identity.system_identifier, control.system_identifier);
    assert_eq!(identity.segment_size_bytes, control.wal_segment_size.bytes());
    assert_eq!(summary.timelines[0].timeline, TimelineId(1));
}

/// Flipped bits and recycled tails stop this crate where they stop `pg_waldump`.
fn damage(cluster: &Cluster, segments: &[PathBuf], size: SegmentSize) {
    let whole = |path: &&PathBuf| {
        let bytes = fs::read(path).expect("a segment");
        digest_segment(name_of(path, size), size, &bytes).records > 500
    };
    let path = segments.iter().find(whole).expect("a full segment");
    let other = segments.iter().rev().find(whole).expect("a full segment");
    let folder = cluster.folder().join("damaged");
    fs::create_dir(&folder).expect("a folder");
    cluster.own(&folder);
    let copy = folder.join(path.file_name().expect("a name"));
    let good = fs::read(path).expect("a segment");
    let mut bad_checksums = 0;
    for round in 0..12_usize {
        let mut bytes = good.clone();
        if round == 0 && path != other {
            let recycled = fs::read(other).expect("a segment");
            bytes[300_000..].copy_from_slice(&recycled[300_000..]);
        } else {
            bytes[round * 86_413 + 9000] ^= 0x10;
        }
        fs::write(&copy, &bytes).expect("a copy");
        cluster.own(&copy);
        let (expected, errors) = dump(cluster, &copy, &copy);
        let summary = digest_segment(name_of(path, size), size, &bytes);
        assert_eq!(summary.records, expected.len() as u64, "round {round}: {errors}");
        assert_eq!(summary.last_record, expected.last().map(|record| record.lsn));
        if let Some(bad) = summary.bad_checksum {
            bad_checksums += 1;
            let text = format!("checksum in record at {}", bad.lsn.text_of(cluster.major));
            assert!(errors.contains(&text), "{errors}");
        }
    }
    assert!(bad_checksums > 5, "only {bad_checksums} flipped bits were seen");
}

pub(crate) fn promotion_in_mid_segment(major: Major) {
    let size = SegmentSize::DEFAULT;
    let settings = format!("{SETTINGS}archive_mode = on\narchive_command = 'false'\n");
    let cluster = Cluster::new(major, &[], &settings);
    cluster.start();
    cluster.sql(workload::TABLES);
    cluster.stop("fast");
    let signal = cluster.data().join("standby.signal");
    fs::write(&signal, "").expect("standby.signal");
    cluster.own(&signal);
    cluster.start();
    let data = cluster.data();
    cluster.run("pg_ctl", &["-s", "-w", "-D", data.to_str().expect("UTF-8"), "promote"]);
    cluster.sql("insert into t(k) select generate_series(1, 2000); select pg_switch_wal();");
    cluster.sql("insert into t(k) values (1);");
    cluster.stop("fast");

    let history_bytes = fs::read(data.join("pg_wal/00000002.history")).expect("a history");
    let history = History::parse(TimelineId(2), &history_bytes).expect("a history");
    assert_eq!(history.compose(major).as_bytes(), history_bytes);
    let switch = history.switch_point(TimelineId(1)).expect("a switch point");
    assert_eq!(history.owner_of(switch), TimelineId(2));
    assert_eq!(history.owner_of(switch.saturating_sub(1)), TimelineId(1));

    let records = compare(&cluster, 2, size);
    let segments = cluster.segments(2);
    let summaries = compare_walks(&segments, size, &records);
    let first = &summaries[0];
    let timelines: Vec<u32> = first.timelines.iter().map(|start| start.timeline.0).collect();
    assert_eq!(timelines, [1, 2], "a segment with pages of both timelines");
    assert_eq!(first.name.number, SegmentNumber::containing(switch, size));
    let ends = first.ends_of_recovery.items.len();
    let checkpoints = first.checkpoints.items.iter();
    let starts = checkpoints.filter(|found| {
        found.checkpoint.timeline.0 == 2 && found.checkpoint.previous_timeline.0 == 1
    });
    assert!(ends + starts.count() >= 1, "a record that starts timeline 2");

    let partial = data.join("pg_wal").join(format!(
        "{}.partial",
        SegmentName { timeline: TimelineId(1), number: first.name.number }.file_name(size)
    ));
    let bytes = fs::read(partial).expect("a partial segment");
    let name = SegmentName { timeline: TimelineId(1), number: first.name.number };
    let summary = digest_segment(name, size, &bytes);
    assert!(
        matches!(summary.end, SegmentEnd::Early(end) if end.lsn == switch),
        "{:?}",
        summary.end
    );
    assert_eq!(summary.last_record_end, Some(switch));
}

pub(crate) fn overwritten_record(major: Major) {
    let size = SegmentSize::from_bytes(1 << 20).expect("1 MiB");
    let cluster = Cluster::new(major, &["--wal-segsize=1"], SETTINGS);
    cluster.start();
    cluster.sql("create table t(k int); insert into t select generate_series(1, 3000);");
    let before: Lsn = cluster
        .sql(
            "checkpoint; select pg_current_wal_insert_lsn();
             select pg_logical_emit_message(false, 'x', repeat('z', 3500000)) is null;",
        )
        .lines()
        .next()
        .expect("an LSN")
        .parse()
        .expect("an LSN");
    cluster.kill();
    let last_kept = SegmentNumber::containing(before, size);
    for path in cluster.segments(1) {
        if name_of(&path, size).number > last_kept {
            fs::remove_file(path).expect("a segment");
        }
    }
    cluster.start();
    cluster.sql("insert into t select generate_series(1, 3000);");
    cluster.stop("fast");
    let records = compare(&cluster, 1, size);
    compare_walks(&cluster.segments(1), size, &records);
    let overwritten = records.iter().find_map(|seen| match &seen.event {
        Some(Event::OverwriteContrecord { overwritten_lsn, .. }) => Some(*overwritten_lsn),
        _ => None,
    });
    let overwritten = overwritten.expect("a record that overwrites the broken one");
    assert!(overwritten >= before && records.iter().all(|seen| seen.dumped.lsn != overwritten));
}
