//! Pages and control files that are read in the middle of a write.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_page_is_read_again_and_this_backup_and_the_next_come_back_clean() {
    let sealed = domain().await;
    let files = BTreeMap::from([("base/5/1".to_owned(), relation(64, 0))]);
    let torn = FakeSource { mood: Mood::TornOnce, ..calm(&files) };
    let first = back_up(&sealed, torn, None).await;
    assert!(first.bad.is_empty(), "{:?}", first.bad);
    assert_eq!(restored(&sealed, &first.manifest).await, files);
    let second = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    assert_eq!(restored(&sealed, &second.manifest).await, files);
}

/// Without checksums nobody sees that a page is torn, and one that is newer than the backup is
/// mended by WAL: both are stored as they were read, and must not be taken for what is there later.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_stored_torn_are_stored_right_by_the_next_backup() {
    let newer = Lsn((1 << 40) + 8);
    for (checksums, lsn) in
        [(PageChecksums::Off, Lsn(0)), (PageChecksums::Off, newer), (PageChecksums::On, newer)]
    {
        let sealed = domain().await;
        let options = CopyOptions { checksums, ..options() };
        let pages = (0..300).flat_map(|block| page_of(block, block as u8, lsn));
        let files = BTreeMap::from([("base/5/1".to_owned(), pages.collect::<Vec<u8>>())]);
        let torn = FakeSource { mood: Mood::TornAlways, ..calm(&files) };
        let first = back_up_of(&sealed, at(), options.clone(), torn, None).await;
        let stored = restored(&sealed, &first.manifest).await;
        let (stored, whole) = (&stored["base/5/1"], &files["base/5/1"]);
        for (block, (stored, whole)) in stored.chunks(PAGE).zip(whole.chunks(PAGE)).enumerate() {
            assert_eq!(stored != whole, is_torn(block), "block {block}");
        }
        let expected: Vec<_> = match checksums {
            PageChecksums::Off => vec![],
            PageChecksums::On => {
                let torn = (0..300_u32).filter(|block| is_torn(*block as usize));
                let bad = torn.map(|block| BadPage { block, newer: Some(newer) }).collect();
                vec![("base/5/1".to_owned(), bad)]
            }
        };
        assert_eq!(first.bad, expected);
        let before = Some(&first.manifest);
        let second = back_up_of(&sealed, at(), options.clone(), calm(&files), before).await;
        assert_eq!(second.bad, vec![]);
        assert_eq!(restored(&sealed, &second.manifest).await, files, "{checksums:?} {lsn}");
        let before = Some(&second.manifest);
        let third = back_up_of(&sealed, at(), options, calm(&files), before).await;
        assert_eq!((third.new_bytes, &third.manifest.tables), (0, &second.manifest.tables));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_control_file_is_read_again_and_this_backup_and_the_next_have_it_whole() {
    let sealed = domain().await;
    let files = BTreeMap::from([("base/5/1".to_owned(), relation(64, 0))]);
    let old = include_bytes!("../../../../../../tests/fixtures/pg/16/pg_control").to_vec();
    let new = include_bytes!("../../../../../../tests/fixtures/pg/17/pg_control").to_vec();
    let torn = [&new[..150], &old[150..]].concat();
    let with = |controls: &[&Vec<u8>]| FakeSource {
        controls: Mutex::new(controls.iter().map(|bytes| (*bytes).clone()).collect()),
        ..calm(&files)
    };
    let expected = |control: &Vec<u8>| {
        let mut expected = files.clone();
        expected.insert("global/pg_control".into(), control.clone());
        expected
    };
    let first = back_up(&sealed, with(&[&torn, &torn, &old]), None).await;
    assert_eq!(restored(&sealed, &first.manifest).await, expected(&old));
    let second = back_up(&sealed, with(&[&torn, &new]), Some(&first.manifest)).await;
    assert_eq!(restored(&sealed, &second.manifest).await, expected(&new));
    assert_eq!(restored(&sealed, &first.manifest).await, expected(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_with_a_high_lsn_is_damage_once_the_end_is_known() {
    let sealed = domain().await;
    let mut bytes = relation(64, 0);
    bytes[5 * PAGE..6 * PAGE].fill(0xee);
    let files = BTreeMap::from([("base/5/7".to_owned(), bytes)]);
    let taken = back_up(&sealed, calm(&files), None).await;
    let bad = taken.bad[0].1[0];
    assert_eq!(bad, BadPage { block: 5, newer: Some(Lsn(0xeeee_eeee_eeee_eeee)) });
    assert!(bad.is_damage(Lsn(1 << 41)));
    // Torn while it was written during the backup: WAL mends it.
    assert!(!BadPage { newer: Some(Lsn(1 << 40)), ..bad }.is_damage(Lsn(1 << 41)));
}
