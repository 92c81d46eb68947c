//! What a verification finds in WAL and histories.

use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::format::document::Resolution;
use pgrecall_testkit::stores::{BadSector, Meanwhile};

use super::*;

#[tokio::test]
async fn wal_that_is_missing_rotten_or_of_another_cluster_ends_recovery() {
    let wal_gone = made().await;
    wal_gone.store.delete(&segment_object(&wal_gone.cluster)).await.unwrap();
    let report = check(&wal_gone, Depth::Structure).await;
    assert_damaged(&report, "its WAL is needed from 0/800028 to 0/820000, and is sound up to");
    assert!(!report.backups[0].restorable);

    let trailer_rots = made().await;
    trailer_rots.flip_from_end(&segment_object(&trailer_rots.cluster), 40).await;
    let report = check(&trailer_rots, Depth::Structure).await;
    assert_damaged(&report, "recovery along timeline 1 from a backup before it cannot go beyond");

    let body_rots = made().await;
    body_rots.flip(&segment_object(&body_rots.cluster), 5000).await;
    assert!(check(&body_rots, Depth::Structure).await.sound);
    let report = check(&body_rots, Depth::ReadData).await;
    assert_damaged(&report, "does not authenticate");
    assert!(!report.backups[0].restorable);

    let lies = made().await;
    let object = segment_object(&lies.cluster);
    let mut trailer = trailer::read(&lies.cluster.sealed, &object).await.unwrap().trailer;
    let mut bytes = fixture(&format!("{SEGMENT}.head"));
    bytes.resize(1 << 20, 0);
    lies.store.delete(&object).await.unwrap();
    trailer.summary.as_mut().unwrap().records += 1;
    push(&lies.cluster, &object, &bytes, &trailer.encode()).await;
    assert!(check(&lies, Depth::Structure).await.sound);
    assert_damaged(&check(&lies, Depth::ReadData).await, "other records than it holds");

    lies.store.delete(&object).await.unwrap();
    let identity = trailer.summary.as_mut().unwrap().identity.as_mut().unwrap();
    identity.system_identifier += 1;
    push(&lies.cluster, &object, &bytes, &trailer.encode()).await;
    assert_damaged(&check(&lies, Depth::Structure).await, "its WAL is of the system");
}

#[tokio::test]
async fn damaged_wal_is_noted_until_it_is_sound_or_gone() {
    let made = made().await;
    let object = segment_object(&made.cluster);
    let noted = async || {
        let notes = WalNotes::read(&made.cluster.sealed, &made.cluster.at).await.unwrap();
        notes.damaged.into_iter().map(|wal| wal.object).collect::<Vec<_>>()
    };
    let notes = async || {
        let log = names::damaged_wal(&made.cluster.at).unwrap();
        made.cluster.sealed.list(log.prefix()).await.unwrap().len()
    };
    check(&made, Depth::ReadData).await;
    assert_eq!(notes().await, 0);

    made.flip(&object, 5000).await;
    for _ in 0..2 {
        check(&made, Depth::ReadData).await;
        assert_eq!((noted().await, notes().await), (vec![object.to_string()], 1));
    }
    // Who does not read it goes by the note.
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "it was found damaged before, by verify on db1");
    assert!(!report.backups[0].restorable);
    let catalog = catalog::read(&made.cluster, &Clock::system(), "db1").await.unwrap();
    assert!(!catalog.backups[0].wal_complete);
    let problem = format!("{SEGMENT} was found damaged, by verify on db1");
    assert!(catalog.wal_problems[0].starts_with(&problem), "{:?}", catalog.wal_problems);
    assert_eq!(notes().await, 1);

    made.flip(&object, 5000).await;
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound, "{}", said(&report));
    assert_eq!((noted().await, notes().await), (vec![], 1));
    assert!(check(&made, Depth::Structure).await.sound);

    made.flip_from_end(&object, 40).await;
    check(&made, Depth::Structure).await;
    assert_eq!(noted().await, [object.to_string()]);
    made.store.delete(&object).await.unwrap();
    check(&made, Depth::Structure).await;
    assert_eq!(noted().await, Vec::<String>::new());
}

/// What lies under the plain name is served again once the settlement over it is lost.
#[tokio::test]
async fn a_note_stays_while_another_copy_holds() {
    let made = made().await;
    let (sealed, object) = (&made.cluster.sealed, segment_object(&made.cluster));
    let trailer = trailer::read(sealed, &object).await.unwrap().trailer;
    made.flip(&object, 5000).await;
    assert!(!check(&made, Depth::ReadData).await.sound);
    let beside = Key::parse(&format!("{object}.0123456789abcdef")).unwrap();
    let mut bytes = fixture(&format!("{SEGMENT}.head"));
    bytes.resize(1 << 20, 0);
    push(&made.cluster, &beside, &bytes, &trailer.encode()).await;
    let settlement = Key::parse(&format!("{object}.resolved")).unwrap();
    let heals = Resolution {
        object: beside.to_string(),
        reason: "it has rotted".into(),
        by: "db1".into(),
        heals: true,
    };
    sealed.put(Kind::Resolution, &settlement, &heals).await.unwrap();
    for depth in [Depth::ReadData, Depth::Structure] {
        let report = check(&made, depth).await;
        assert!(report.sound && report.backups[0].restorable, "{}", said(&report));
    }
    made.store.delete(&settlement).await.unwrap();
    assert_damaged(&check(&made, Depth::Structure).await, "it was found damaged before");
}

/// What a verification has read long ago may have rotted since, and another one have noted it.
#[tokio::test]
async fn a_note_is_not_taken_back_by_who_began_before_it() {
    // By reading all, and by the trailer alone.
    not_taken_back(Depth::ReadData, async |made, object| made.flip(object, 5000).await).await;
    not_taken_back(Depth::Structure, async |made, object| made.flip_from_end(object, 40).await)
        .await;
}

async fn not_taken_back(found_by: Depth, rots: impl AsyncFn(&Made, &Key) + Copy + Send + 'static) {
    for nth in 1.. {
        let mut made = made().await;
        let object = segment_object(&made.cluster);
        made.flip(&object, 5000).await;
        check(&made, Depth::ReadData).await;
        made.flip(&object, 5000).await;
        let (store, cluster) = (made.store.clone(), made.cluster.clone());
        let other = Made {
            store: store.clone(),
            repository: made.repository.clone(),
            cluster: cluster.clone(),
            backup: made.backup,
        };
        let key = object.clone();
        let meanwhile = Meanwhile::over(store, nth, async move || {
            rots(&other, &key).await;
            assert!(!check(&other, found_by).await.sound);
        });
        made.read_through(meanwhile.clone());
        check(&made, Depth::ReadData).await;
        if !meanwhile.hook().has_happened() {
            assert!(nth > 10, "{nth}");
            return;
        }
        let notes = WalNotes::read(&cluster.sealed, &cluster.at).await.unwrap();
        let noted: Vec<_> = notes.damaged.into_iter().map(|wal| wal.object).collect();
        assert_eq!(noted, [object.to_string()], "before request {nth}");
    }
}

/// A segment of which only the trailer is ever read.
async fn push_trailer(made: &Made, file: &str, change: impl FnOnce(&mut SegmentSummary)) {
    let size = made.cluster.facts.wal_segment_size;
    let sound = segment_object(&made.cluster);
    let mut trailer = trailer::read(&made.cluster.sealed, &sound).await.unwrap().trailer;
    let name = SegmentName::parse(file, size).unwrap();
    let summary = trailer.summary.as_mut().unwrap();
    let (last, head) = (summary.last_record, SegmentHead::default());
    let start = name.number.start(size);
    summary.name = name;
    summary.first_record = Some(Lsn(start.0 + 0x28));
    summary.first_previous = last;
    summary.last_record = summary.first_record;
    summary.last_record_end = Some(name.number.end(size));
    summary.head = head;
    summary.tail = None;
    change(summary);
    trailer.name = file.into();
    let object = wal_place::object(&made.cluster.at, ArchiveName::Segment(name), size).unwrap();
    push(&made.cluster, &object, &vec![0; 1 << 20], &trailer.encode()).await;
}

async fn push_history(made: &Made, timeline: u32, text: &str) -> Key {
    let name = ArchiveName::History(TimelineId(timeline));
    let size = made.cluster.facts.wal_segment_size;
    let object = wal_place::object(&made.cluster.at, name, size).unwrap();
    push(&made.cluster, &object, text.as_bytes(), b"{}").await;
    object
}

const NINTH: &str = "000000010000000000000009";

#[tokio::test]
async fn a_gap_on_a_backups_way_is_damage_and_only_incomplete() {
    let made = made().await;
    push_trailer(&made, "00000001000000000000000B", |_| {}).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "WAL 000000010000000000000009 to 00000001000000000000000A");
    assert_damaged(&report, "2 segments are missing");
    assert_eq!(report.gravest(), Some(Nature::Missing), "{}", said(&report));
    assert!(report.backups[0].restorable);
}

#[tokio::test]
async fn the_first_segment_of_a_timeline_is_missed() {
    let made = made().await;
    push_history(&made, 2, "1\t0/900100\tpromoted\n").await;
    assert!(check(&made, Depth::Structure).await.sound);
    push_trailer(&made, "00000002000000000000000A", |_| {}).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "WAL 000000020000000000000009");
    assert_eq!(report.gravest(), Some(Nature::Missing));
}

#[tokio::test]
async fn a_timeline_without_its_history_is_damage() {
    let made = made().await;
    push_trailer(&made, "000000020000000000000009", |_| {}).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "its history, 00000002.history, is not stored");
    assert_eq!(report.gravest(), Some(Nature::Missing));
}

#[tokio::test]
async fn wal_of_a_diverged_history_is_damage() {
    let sound = made().await;
    let tail = {
        let object = segment_object(&sound.cluster);
        let trailer = trailer::read(&sound.cluster.sealed, &object).await.unwrap().trailer;
        trailer.summary.unwrap().tail
    };
    let follows = |summary: &mut SegmentSummary| {
        if tail.is_some() {
            summary.head.extent = HeadExtent::Overwrites;
        }
    };
    push_trailer(&sound, NINTH, follows).await;
    let report = check(&sound, Depth::Structure).await;
    assert!(report.sound, "{}", said(&report));

    let other = made().await;
    push_trailer(&other, NINTH, |summary| {
        follows(summary);
        summary.first_previous = summary.first_previous.map(|lsn| Lsn(lsn.0 - 0x38));
    })
    .await;
    assert_damaged(&check(&other, Depth::Structure).await, "WAL of another history");

    let headless = made().await;
    push_trailer(&headless, NINTH, |summary| {
        summary.head = match &tail {
            Some(_) => SegmentHead::default(),
            None => SegmentHead {
                remaining_bytes: 8,
                extent: HeadExtent::Whole,
                ..SegmentHead::default()
            },
        };
    })
    .await;
    assert_damaged(&check(&headless, Depth::Structure).await, "bytes of a record should go on");
}

#[tokio::test]
async fn a_history_that_rots_is_damage() {
    let made = made().await;
    let object = push_history(&made, 2, "1\t0/880000\tpromoted\n").await;
    assert!(check(&made, Depth::Structure).await.sound);
    made.flip_from_end(&object, 60).await;
    made.flip(&object, 100).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "the history of timeline 2 does not read");
    let read = catalog::read(&made.cluster, &Clock::system(), "db1").await.unwrap();
    let [problem] = read.wal_problems.as_slice() else { panic!("{:?}", read.wal_problems) };
    assert!(problem.contains("the history of timeline 2 does not read: clusters/"), "{problem}");
}

#[tokio::test]
async fn a_bad_sector_under_what_is_read_of_wal_hurts_what_lies_on_it() {
    let with = async |part: &'static str| {
        let mut made = made().await;
        push_history(&made, 2, "1\t0/880000\tpromoted\n").await;
        settle(&made, "000000010000000000000007").await;
        made.read_through(BadSector::over(made.store.clone(), part, 1));
        let report = check(&made, Depth::Structure).await;
        // The disk may read it again.
        let notes = WalNotes::read(&made.cluster.sealed, &made.cluster.at).await.unwrap();
        assert_eq!(notes.damaged.len(), 0);
        report
    };
    let history = with("/timelines/").await;
    assert_damaged(&history, "the history of timeline 2 does not read");
    let settlement = with(".resolved").await;
    assert_damaged(&settlement, "the settlement of its two contents does not read");
    let segment = with(SEGMENT).await;
    assert_damaged(&segment, "recovery along timeline 1 from a backup before it cannot go beyond");
    for report in [history, settlement, segment] {
        assert_eq!(report.gravest(), Some(Nature::Wrong), "{}", said(&report));
    }
}

/// Writes down that a file's content is the one kept beside it.
async fn settle(made: &Made, file: &str) {
    let size = made.cluster.facts.wal_segment_size;
    let name = ArchiveName::Segment(SegmentName::parse(file, size).unwrap());
    let object = wal_place::object(&made.cluster.at, name, size).unwrap();
    let resolution = Resolution {
        object: format!("{object}.0123456789abcdef"),
        by: "a test".into(),
        reason: String::new(),
        heals: false,
    };
    let settlement = Key::parse(&format!("{object}.resolved")).unwrap();
    made.cluster.sealed.put(Kind::Resolution, &settlement, &resolution).await.unwrap();
}
