//! What the next backup stores, and that visibility maps come back true.

use pgrecall_testkit::cluster_check::visibility;
use pgrecall_testkit::postgres::{Checksums, Cluster, ClusterOptions, majors};

use crate::ground::{back_up, json, number, output, restored};
use crate::site::{Site, newest_major, switch};

#[test]
fn one_page_in_a_hundred_is_stored_as_such() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    cluster.psql(
        "CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 4) AS v
           FROM generate_series(1, 400000) i",
    );
    cluster.psql("VACUUM (FREEZE, ANALYZE) big");
    let first = back_up(&site, &cluster);
    // Rows of one page each, spread over the table; no index, so the new version goes elsewhere.
    cluster.psql(
        "UPDATE big SET v = upper(v) WHERE ctid IN
           (SELECT format('(%s,1)', b)::tid
              FROM generate_series(0, pg_relation_size('big') / 8192 - 1, 100) b)",
    );
    let second = back_up(&site, &cluster);
    assert_eq!(second["method"], "scan");
    let pages: u64 = cluster.psql("SELECT pg_relation_size('big') / 8192").parse().expect("pages");
    // The table's pages, their new versions, the visibility map, catalogs, and maps.
    let allowed = pages / 100 * 8192 * 3 + 3_000_000;
    assert!(number(&second, "new_bytes") < allowed, "{second}");
    assert!(number(&second, "stored_bytes") < number(&first, "stored_bytes") / 8, "{second}");
    let expected = cluster.psql("SELECT count(*), sum(hashtext(v)) FROM big");
    site.wait_archived(&cluster, &switch(&cluster));
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    assert_eq!(copy.psql("SELECT count(*), sum(hashtext(v)) FROM big"), expected);
}

/// Clearing a bit of a visibility map names no block in WAL. Without checksums setting hints writes
/// no WAL either, and pages change under an LSN that stays.
#[test]
fn visibility_maps_come_back_true_with_checksums_and_without() {
    for major in majors() {
        for checksums in [Checksums::On, Checksums::Off] {
            visibility_map_comes_back_true(major, checksums);
        }
    }
}

fn visibility_map_comes_back_true(major: u32, checksums: Checksums) {
    let site = Site::new();
    let options = ClusterOptions::new(major).archive_command(&site.archive_command());
    let cluster = Cluster::create(ClusterOptions { checksums, ..options });
    cluster.psql("CREATE TABLE t AS SELECT i AS id, 'old' AS v FROM generate_series(1, 50000) i");
    cluster.psql("VACUUM (FREEZE) t");
    back_up(&site, &cluster);
    cluster.psql("UPDATE t SET v = 'new' WHERE id % 7 = 0");
    cluster.psql("DELETE FROM t WHERE id % 11 = 0");
    // Sets hints, now that all of it has committed.
    let rows = "SELECT count(*), sum(id), count(*) FILTER (WHERE v = 'new') FROM t";
    let expected = cluster.psql(rows);
    back_up(&site, &cluster);
    let flags = ["--to-immediate", "--action", "promote"];
    let copy = restored(&site, major, "copy", &flags);
    if checksums == Checksums::Off {
        copy.expect_no_checksums();
    }
    visibility(&copy).expect("every bit is true");
    assert_eq!(copy.psql(rows), expected);
}

#[test]
fn damage_is_named_with_its_block() {
    use std::os::unix::fs::FileExt;
    let site = Site::new();
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 100000) n");
    cluster.psql("CHECKPOINT");
    back_up(&site, &cluster);
    let path = cluster.data_dir().join(cluster.psql("SELECT pg_relation_filepath('t')"));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the table");
    file.write_all_at(&[0xee; 8192], 3 * 8192).expect("rubbish with a high LSN");
    file.write_all_at(&[0x55; 100], 5 * 8192 + 4000).expect("a damaged page");
    for _ in 0..2 {
        let told = back_up(&site, &cluster);
        let damage = told["damage"].as_array().expect("a list");
        assert_eq!(damage.len(), 1, "{told}");
        assert_eq!(damage[0]["blocks"], serde_json::json!([3, 5]), "{told}");
    }
    let ended = output(&site, &cluster, &["backup", "--fast-checkpoint"]);
    assert!(ended.contains("DAMAGED PAGES IN THE DATABASE: 2 in 1 files"), "{ended}");
    assert!(ended.contains(": 2 blocks (3, 5)\n"), "{ended}");

    let listed = json(&site, &cluster, &["list"]);
    let rows = listed["clusters"][0]["backups"].as_array().expect("backups");
    let blocks: Vec<u64> = rows.iter().map(|row| number(row, "damaged_blocks")).collect();
    assert_eq!(blocks, [0, 2, 2, 2], "{listed:#}");
    assert_eq!(number(&rows[1], "damaged_files"), 1, "{listed:#}");
    let listed = output(&site, &cluster, &["list"]);
    assert_eq!(listed.matches("2 pages damaged in the source").count(), 3, "{listed}");
    assert_eq!(listed.matches("good").count(), 1, "{listed}");

    let path = cluster.psql("SELECT pg_relation_filepath('t')");
    let note = format!(
        "This backup holds pages that were damaged in the source already, in 1 files: {path}."
    );
    let planned = output(&site, &cluster, &["plan"]);
    assert!(planned.contains(&format!("note: {note}\n")), "{planned}");
    let sound = rows[0]["id"].as_str().expect("an id");
    for (words, marked) in [(&["plan"][..], true), (&["plan", "--backup", sound], false)] {
        let planned = json(&site, &cluster, words);
        let notes = planned["notes"].as_array().expect("notes");
        assert_eq!(notes.iter().any(|found| *found == note), marked, "{words:?}: {planned:#}");
    }
}
