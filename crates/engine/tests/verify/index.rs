//! What the index does not say, packs do: a verification finds what a restore would.

use pgrecall_engine::verify::Depth;
use pgrecall_engine::verify::finding::Severity;
use pgrecall_repo::codec::Level;
use pgrecall_repo::expired::{self, ExpiredLog};
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::index;
use pgrecall_repo::names;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::ErrorKind;
use pgrecall_testkit::collections::replace_all_packs;
use pgrecall_testkit::stores::{BadSector, CallKind, Calls, FailNth, Lasting, Meanwhile};

use crate::{Made, PAGE, assert_damaged, check, made, said, segment_object};

/// Sound, and told that the index does not name everything.
async fn assert_found_in_packs(made: &Made, unnamed_chunks: usize) {
    for depth in [Depth::Structure, Depth::ReadData] {
        let report = check(made, depth).await;
        let said = said(&report);
        assert!(report.sound && report.backups[0].restorable, "{said}");
        let found = report.findings.iter().find(|found| found.object == "domains/main/index/");
        let found = found.unwrap_or_else(|| panic!("the index is whole?\n{said}"));
        assert_eq!(found.severity, Severity::Warning);
        let names = format!("names {unnamed_chunks} chunks that backups need");
        assert!(found.what.contains(&names), "{said}");
        assert!(found.consequence.contains("`pgrecall repair`"), "{said}");
        assert_eq!((report.checked.chunks, report.checked.packs), (5, 2));
        let all = report.checked.read_bytes > (1 << 20) + 64 * PAGE as u64;
        assert_eq!(all, depth == Depth::ReadData, "{}", report.checked.read_bytes);
    }
}

#[tokio::test]
async fn what_a_lost_index_object_named_is_found_in_the_packs() {
    let made = made().await;
    for object in made.names("domains/main/index/").await {
        made.store.delete(&object).await.unwrap();
    }
    assert_found_in_packs(&made, 5).await;
}

#[tokio::test]
async fn what_an_index_object_named_that_does_not_read_is_found_in_the_packs() {
    let made = made().await;
    let object = made.names("domains/main/index/").await.remove(0);
    made.flip_from_end(&object, 20).await;
    assert_found_in_packs(&made, 5).await;
    let report = check(&made, Depth::Structure).await;
    let own = report.findings.iter().find(|found| found.object == object.as_str()).unwrap();
    assert_eq!(own.severity, Severity::Warning);
    assert!(own.what.contains("the index object does not read"), "{}", own.what);
}

#[tokio::test]
async fn a_pack_that_the_index_names_in_part_is_asked_for_the_rest() {
    let made = made().await;
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    let objects = made.names("domains/main/index/").await;
    let mut parts = Vec::new();
    for pack in made.names("domains/main/packs/").await {
        let (kind, id) = names::pack_of(domain, &pack).unwrap();
        let mut directory = index::read_directory(sealed, domain, kind, id).await.unwrap();
        directory.entries.truncate(1);
        parts.push(directory);
    }
    index::put_index(sealed, domain, &parts).await.unwrap();
    for object in objects {
        made.store.delete(&object).await.unwrap();
    }
    assert_found_in_packs(&made, 3).await;
}

#[tokio::test]
async fn a_collection_meanwhile_is_no_damage() {
    let undisturbed = check(&made().await, Depth::ReadData).await.checked.read_bytes;
    for nth in 1.. {
        let mut made = made().await;
        let (sealed, at) = (made.cluster.sealed.clone(), made.cluster.at.clone());
        let direct = sealed.clone();
        let store = Meanwhile::over(made.store.clone(), nth, async move || {
            replace_all_packs(&direct, &at.domain).await;
        });
        made.cluster.sealed =
            SealedStore::new(store.clone(), sealed.keys().clone(), sealed.random().clone());
        let report = check(&made, Depth::ReadData).await;
        assert!(report.sound && report.backups[0].restorable, "at {nth}:\n{}", said(&report));
        // A copy that has taken the place of one that was read is read, too.
        let read = report.checked.read_bytes;
        assert!((undisturbed..2 * undisturbed).contains(&read), "at {nth}: {read} bytes were read");
        if !store.hook().has_happened() {
            return assert!(nth > 20, "{nth}");
        }
    }
}

#[tokio::test]
async fn a_backup_that_expires_meanwhile_is_no_damage() {
    let mut left_out = 0;
    for nth in 1.. {
        let mut made = made().await;
        let (direct, at) = (made.cluster.sealed.clone(), made.cluster.at.clone());
        let (id, segment) = (made.backup, segment_object(&made.cluster));
        let store = Meanwhile::over(made.store.clone(), nth, async move || {
            let log = ExpiredLog::read(&direct, &at.domain).await.unwrap();
            let more = Expired { backups: vec![id], ..Expired::default() };
            log.append(&direct, &at.domain, more).await.unwrap();
            expired::remove_manifests(&direct, &at.domain).await.unwrap();
            if nth < 10 {
                // Before WAL is looked at.
                direct.store().delete(&segment).await.unwrap();
            }
            replace_all_packs(&direct, &at.domain).await;
        });
        let sealed = made.cluster.sealed.clone();
        made.cluster.sealed =
            SealedStore::new(store.clone(), sealed.keys().clone(), sealed.random().clone());
        let report = check(&made, Depth::ReadData).await;
        assert!(report.sound, "at {nth}:\n{}", said(&report));
        left_out += usize::from(said(&report).contains("it has expired since this began"));
        if !store.hook().has_happened() {
            return assert!(left_out > 5, "{left_out} of {nth}");
        }
    }
}

#[tokio::test]
async fn a_collection_beside_real_damage_hurts_nothing_else() {
    for nth in 1.. {
        let mut made = made().await;
        let pack = made.names("domains/main/packs/data/").await.remove(0);
        made.flip(&pack, 120).await;
        let (direct, at) = (made.cluster.sealed.clone(), made.cluster.at.clone());
        let store = Meanwhile::over(made.store.clone(), nth, async move || {
            replace_all_packs(&direct, &at.domain).await;
        });
        let sealed = made.cluster.sealed.clone();
        made.cluster.sealed =
            SealedStore::new(store.clone(), sealed.keys().clone(), sealed.random().clone());
        let report = check(&made, Depth::ReadData).await;
        let said = said(&report);
        assert_damaged(&report, ": every stored copy of chunk");
        assert_eq!(report.backups[0].bad_files, 1, "at {nth}:\n{said}");
        assert!(!said.contains("its file table") && !said.contains("its map"), "{nth}:\n{said}");
        if !store.hook().has_happened() {
            return assert!(nth > 20, "{nth}");
        }
    }
}

/// A bucket that lists what it cannot give, or gives rubbish.
#[tokio::test]
async fn a_pack_that_is_listed_and_cannot_be_had_is_damage() {
    for kind in [ErrorKind::NotFound, ErrorKind::Corrupt] {
        let mut made = made().await;
        let gets = Calls::of(&[CallKind::Get, CallKind::GetRange]).naming("/packs/data/");
        let store = FailNth::over(made.store.clone(), gets, 1, Lasting::ForEver, kind);
        let sealed = made.cluster.sealed.clone();
        made.cluster.sealed =
            SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
        let report = check(&made, Depth::ReadData).await;
        assert_damaged(&report, ": every stored copy of chunk");
        assert_eq!(report.backups[0].bad_files, 1, "{}", said(&report));
    }
}

#[tokio::test]
async fn a_bad_sector_hurts_what_lies_on_it_and_is_not_noted_for_ever() {
    let at_first = made().await;
    let (sealed, domain) = (&at_first.cluster.sealed, at_first.cluster.domain());
    let pack = at_first.names("domains/main/packs/data/").await.remove(0);
    let (kind, id) = names::pack_of(domain, &pack).unwrap();
    let directory = index::read_directory(sealed, domain, kind, id).await.unwrap();
    let both = directory.entries.iter().map(|entry| u64::from(entry.sealed_len)).sum();
    // Between two chunks, and everywhere.
    for (from_bytes, hurt) in [(both, 0), (1, 1)] {
        let mut made = made().await;
        made.read_through(BadSector::over(made.store.clone(), "/packs/data/", from_bytes));
        let report = check(&made, Depth::ReadData).await;
        let said = said(&report);
        assert_eq!(report.backups[0].bad_files, hurt, "{said}");
        assert_eq!(report.sound, hurt == 0, "{said}");
        let prefix = names::all_damaged(made.cluster.domain());
        assert!(made.cluster.sealed.list(&prefix).await.unwrap().is_empty(), "{said}");
    }
}

/// After a collection the index speaks of packs that are gone, until it is merged.
#[tokio::test]
async fn packs_of_which_nothing_is_needed_may_be_gone() {
    let made = made().await;
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    let mut unneeded = PackBuilder::new(sealed, domain, Kind::DataPack).unwrap();
    let plain = b"of a backup that has expired";
    unneeded.add(sealed.keys().chunk_id(plain), plain, Level::default()).unwrap();
    let pack = unneeded.finish().unwrap().put(sealed).await.unwrap();
    index::put_index(sealed, domain, std::slice::from_ref(&pack)).await.unwrap();
    made.store.delete(&names::pack(domain, pack.pack.kind, pack.pack.id)).await.unwrap();
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound && report.findings.is_empty(), "{}", said(&report));
}

#[tokio::test]
async fn a_log_of_expired_backups_that_does_not_read_is_damage() {
    let made = made().await;
    let log = names::expired(made.cluster.domain());
    let entry = log.entry(0);
    made.cluster.sealed.put(Kind::Expired, &entry, &Expired::default()).await.unwrap();
    assert!(check(&made, Depth::Structure).await.sound);
    made.flip_from_end(&entry, 40).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "the log of expired backups does not read");
    assert_damaged(&report, entry.as_str());
    assert!(report.backups[0].restorable, "{}", said(&report));
}
