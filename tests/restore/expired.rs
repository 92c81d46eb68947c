//! After an expiry: what stays is restored to any moment that was promised, and what is gone is
//! told apart from what is damaged.

use std::path::Path;

use serde_json::Value;

use crate::fresh::Restored;
use crate::site::{Site, newest_major, switch};

fn on(site: &Site, pgdata: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let text = pgdata.to_string_lossy().into_owned();
    let mut all = vec!["--pgdata", &text];
    all.extend_from_slice(words);
    all.push("--json");
    let output = site.pgrecall(pgdata, &all).output().expect("pgrecall runs");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), value)
}

#[test]
fn what_an_expiry_leaves_is_restored_and_what_it_took_is_no_damage() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let pgdata = primary.data_dir().to_owned();
    primary.psql("CREATE TABLE steps (n int)");
    let (mut moments, mut files) = (Vec::new(), Vec::new());
    for step in 0..3 {
        primary.psql(&format!("INSERT INTO steps VALUES ({step}0)"));
        let (code, _) = on(&site, &pgdata, &["backup", "--fast-checkpoint"]);
        assert_eq!(code, Some(0));
        primary.psql(&format!("INSERT INTO steps VALUES ({step}1)"));
        moments.push(primary.psql("SELECT pg_current_wal_lsn()"));
        primary.psql(&format!("INSERT INTO steps VALUES ({step}2)"));
        files.push(switch(&primary));
        site.wait_archived(&primary, &files[step]);
    }
    let keep = ["expire", "--keep-last", "2"];
    let (code, dry) = on(&site, &pgdata, &[&keep[..], &["--dry-run"]].concat());
    assert_eq!((code, dry["removed_backups"].as_u64()), (Some(0), Some(0)));
    assert!(dry["wal_objects"].as_u64() > Some(0), "{dry}");
    assert!(files.iter().all(|file| site.object(file).is_some()), "a dry run removes nothing");
    let (code, done) = on(&site, &pgdata, &keep);
    assert_eq!((code, done["removed_backups"].as_u64()), (Some(0), Some(1)), "{done}");
    assert_eq!(done["wal_objects"], dry["wal_objects"]);
    assert_eq!(done["removed_wal_objects"], dry["wal_objects"]);
    let left: Vec<bool> = files.iter().map(|file| site.object(file).is_some()).collect();
    assert_eq!(left, [false, true, true]);
    let (code, listed) = on(&site, &pgdata, &["list"]);
    let backups = listed["clusters"][0]["backups"].as_array().expect("backups");
    assert_eq!((code, backups.len()), (Some(0), 2));
    let (code, verified) = on(&site, &pgdata, &["verify", "--read-data"]);
    assert_eq!((code, verified["sound"].as_bool()), (Some(0), Some(true)), "{verified}");
    // Before the oldest one that stays nothing can be had, and that is said before a byte moves.
    let (code, _) = on(&site, &pgdata, &["plan", "--to-lsn", &moments[0]]);
    assert_eq!(code, Some(18));
    for (lsn, rows) in [(&moments[1], "0,1,2,10,11"), (&moments[2], "0,1,2,10,11,12,20,21")] {
        let flags = ["--to-lsn", lsn, "--exclusive", "--action", "promote"];
        let copy = Restored::started(&site, newest_major(), "copy", &flags);
        copy.wait_until_recovered();
        let found = copy.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM steps");
        assert_eq!(found, rows, "to {lsn}");
    }
    let (code, _) = on(&site, &pgdata, &["backup", "--fast-checkpoint"]);
    assert_eq!(code, Some(0), "the next one shares what is stored");
}
