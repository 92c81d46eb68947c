//! A cluster that was made anew under the name of an old one: both are kept apart, a person says
//! which one is meant, and each comes back with its own rows.

use std::path::Path;

use pgrecall_testkit::postgres::{Cluster, Stop};
use serde_json::Value;

use crate::ground::restored;
use crate::site::{Site, newest_major, switch};

/// A cluster with a backup, and a row that came after it.
fn backed_up(site: &Site, mark: &str) -> Cluster {
    let cluster = site.primary(newest_major());
    cluster.psql(&format!("CREATE TABLE mark AS SELECT '{mark}' AS text"));
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint"];
    site.run(cluster.data_dir(), &words).expect_code(0);
    cluster.psql("INSERT INTO mark SELECT text || ' later' FROM mark");
    let last = switch(&cluster);
    cluster.wait_until("the archiver is done", || {
        cluster.psql("SELECT last_archived_wal FROM pg_stat_archiver") >= last
    });
    cluster
}

fn system_id(cluster: &Cluster) -> String {
    cluster.psql("SELECT system_identifier FROM pg_control_system()")
}

fn json(site: &Site, words: &[&str]) -> Value {
    let output = site.pgrecall(Path::new("/"), words).output().expect("pgrecall runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The system identifiers of a report's clusters, each with its number of backups.
fn clusters(report: &Value) -> Vec<(String, usize)> {
    let clusters = report["clusters"].as_array().expect("clusters");
    let one = |cluster: &Value| {
        let id = &cluster["system_identifier"];
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        (id, cluster["backups"].as_array().expect("backups").len())
    };
    let mut found: Vec<_> = clusters.iter().map(one).collect();
    found.sort();
    found
}

#[test]
fn of_two_clusters_of_one_name_a_person_says_which_is_meant() {
    let site = Site::new();
    let (old, new) = (backed_up(&site, "old"), backed_up(&site, "new"));
    let ids = [system_id(&old), system_id(&new)];
    let mut both: Vec<_> = ids.iter().map(|id| (id.clone(), 1)).collect();
    both.sort();
    assert_eq!(clusters(&json(&site, &["list", "--json"])), both);
    assert_eq!(clusters(&json(&site, &["verify", "--read-data", "--json"])), both);

    let place = site.scratch().path().join("refused");
    let dir = place.to_str().expect("UTF-8");
    for words in [&["plan"][..], &["restore", dir, "--as", "copy"]] {
        let run = site.run(Path::new("/"), words);
        assert!(run.expect_code(3).stderr.contains("different system identifiers"), "{run:?}");
        assert!(run.stderr.contains("hint: Name one with --system-id: "), "{run:?}");
        assert!(ids.iter().all(|id| run.stderr.contains(id)), "{run:?}");
    }
    assert!(!place.exists(), "a refusal writes nothing");
    let nobody = site.run(Path::new("/"), &["plan", "--system-id", "42"]);
    assert!(nobody.expect_code(10).stderr.contains("knows no cluster main 42"), "{nobody:?}");
    assert!(ids.iter().all(|id| nobody.stderr.contains(id)), "{nobody:?}");
    // On the host of one of them its data directory tells.
    let data = new.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &["--pgdata", &data, "plan"]).expect_code(0);

    for (cluster, id, rows) in [(&old, &ids[0], "old,old later"), (&new, &ids[1], "new,new later")]
    {
        cluster.stop(Stop::Fast);
        let only = vec![(id.clone(), 1)];
        assert_eq!(clusters(&json(&site, &["list", "--system-id", id, "--json"])), only);
        assert_eq!(clusters(&json(&site, &["verify", "--system-id", id, "--json"])), only);
        json(&site, &["plan", "--system-id", id, "--json"]);
        let copy = restored(&site, newest_major(), id, &["--system-id", id]);
        assert_eq!(&system_id(&copy), id);
        let found = copy.psql("SELECT string_agg(text, ',' ORDER BY length(text)) FROM mark");
        assert_eq!(found, rows);
    }
}
