//! What is left of a backup that has lost chunks, as a real server: every row is there that lay in no
//! lost block, and none besides; and what was written since comes back from WAL.

use std::path::Path;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::Cluster;
use serde_json::Value;

use crate::site::{Site, newest_major, switch};
use crate::verifying::{backup, expect, flip, largest};

const ALL: &str =
    "SELECT count(*) || ' ' || sum(n) || ' ' || md5(string_agg(text, '' ORDER BY n)) FROM big";

/// Damages the newest data until nothing but the table is hurt; gives what `verify` says of that.
fn hurt(site: &Site, primary: &Cluster) -> Value {
    let filenode: u64 = primary.psql("SELECT pg_relation_filenode('big')").parse().expect("OID");
    let pack = largest(site, "domains/main/packs/data");
    let len = usize::try_from(pack.metadata().expect("metadata").len()).expect("a size");
    for part in [50, 30, 70, 20, 80, 10, 90] {
        let sound = std::fs::read(&pack).expect("a pack");
        // Some neighbours, so that there is more than one block of many rows.
        for beside in 0..3 {
            flip(&pack, len / 100 * part + beside * 40_000);
        }
        let report = expect(site, primary, &["verify", "--read-data"], 13);
        let touched = report["clusters"][0]["backups"][0]["touched"].clone();
        let [only] = touched.as_array().expect("files").as_slice() else { continue };
        if only["relation"]["filenode"] == filenode && only["relation"]["fork"] == "main" {
            return touched;
        }
        std::fs::remove_file(&pack).expect("removing");
        std::fs::write(&pack, sound).expect("writing");
    }
    panic!("no part of the pack is the table's");
}

/// The rows that the primary has in other blocks than these.
fn rows_elsewhere(primary: &Cluster, touched: &Value) -> String {
    let blocks = touched[0]["relation"]["blocks"].as_array().expect("blocks");
    let lost: Vec<String> = blocks
        .iter()
        .map(|range| format!("block BETWEEN {} AND {}", range["first"], range["last"]))
        .collect();
    let of = format!(
        "(SELECT n, text FROM (SELECT *, (ctid::text::point)[0]::bigint AS block FROM big) AS placed
           WHERE NOT ({})) AS big",
        lost.join(" OR ")
    );
    primary.psql(&ALL.replace("FROM big", &format!("FROM {of}")))
}

fn salvaged(site: &Site, primary: &Cluster, name: &str, target: &str) -> (CheckedCluster, Value) {
    let dir = site.scratch().path().join(name);
    let words = ["restore", dir.to_str().expect("UTF-8"), "--as", "copy", "--salvage", target];
    let said = expect(site, primary, &words, 18);
    let list = std::fs::read_to_string(dir.join("pgrecall-lost.txt")).expect("the list");
    assert!(list.contains(said["lost"][0]["path"].as_str().expect("a path")), "{list}");
    let copy = CheckedCluster::adopt(newest_major(), &dir);
    copy.start();
    (copy, said["lost"].clone())
}

#[test]
fn all_comes_back_that_is_not_lost() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    primary.psql(
        "CREATE TABLE big WITH (autovacuum_enabled = off) AS
           SELECT n, md5(n::text) || md5((-n)::text) AS text FROM generate_series(1, 200000) AS n",
    );
    primary.psql("CREATE TABLE other AS SELECT generate_series(1, 1000) AS n");
    backup(&site, &primary);
    let touched = hurt(&site, &primary);
    let (all, elsewhere) = (primary.psql(ALL), rows_elsewhere(&primary, &touched));
    assert_ne!(all, elsewhere);

    let dir = site.scratch().path().join("refused");
    let refused = site.run(
        Path::new("/"),
        &["restore", dir.to_str().expect("UTF-8"), "--as", "copy", "--to-immediate"],
    );
    refused.expect_code(13);
    assert!(refused.stderr.contains("hint: restore --salvage"), "{}", refused.stderr);

    let (copy, lost) = salvaged(&site, &primary, "salvaged", "--to-immediate");
    for member in ["path", "relation", "ranges", "lost_bytes"] {
        assert_eq!(lost[0][member], touched[0][member], "{lost:#}");
    }
    assert_eq!(copy.psql(ALL), elsewhere);
    assert_eq!(copy.psql("SELECT count(*) FROM other"), "1000");
    drop(copy);

    // Every page is written once more, and stands whole in the WAL.
    primary.psql("UPDATE big SET text = text || '!'");
    let all = primary.psql(ALL);
    site.wait_archived(&primary, &switch(&primary));
    let (copy, lost) = salvaged(&site, &primary, "by-wal", "--to-latest");
    assert_eq!(lost[0]["ranges"], touched[0]["ranges"]);
    copy.wait_until_recovered();
    assert_eq!(copy.psql(ALL), all);
}
