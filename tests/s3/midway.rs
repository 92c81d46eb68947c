//! A bucket that fails in the middle of `init`, `backup`, `restore` and `verify`: storms of 503,
//! and credentials that expire. Each ends with the code and the words for it, harms nothing that
//! was stored, and goes on when the bucket is well again.

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::scripted_s3::{Meddle, Reply, Request};

use crate::elsewhere::leave_what_is_planned;
use crate::ground::{Ground, Host, error, from_then_on, the_first};

const EXPIRED: [&str; 2] = ["the credentials have expired", "Renew the temporary credentials"];

fn expired() -> Meddle {
    error(400, "ExpiredToken")
}

fn puts_pack(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("/packs/")
}

fn puts_manifest(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("/backups/")
}

fn gets_data(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/packs/data/")
}

#[test]
fn a_backup_ends_in_words_when_the_credentials_expire_and_outlasts_a_storm() {
    let ground = Ground::new();
    let server = ground.server();
    let first = ground.listed();
    let before = ground.objects();
    ground.cluster().psql("CREATE TABLE u AS SELECT md5(i::text) FROM generate_series(1, 9999) i");

    server.meddle(from_then_on(puts_pack, expired()));
    let run = ground.try_backup();
    server.meddle(|_| Meddle::No);
    run.expect(16, &EXPIRED);
    assert_eq!(ground.listed(), first, "{}", run.stderr);
    ground.assert_unharmed(&before);

    // The manifest itself: what is not known to be there is not called a backup.
    server.meddle(from_then_on(puts_manifest, error(503, "SlowDown")));
    let run = ground.try_backup();
    server.meddle(|_| Meddle::No);
    run.expect(15, &["SlowDown"]);
    assert_eq!(ground.listed(), first, "{}", run.stderr);
    ground.assert_unharmed(&before);

    server.meddle(the_first(4, puts_pack, error(503, "SlowDown")));
    let run = ground.try_backup();
    run.expect(0, &[]);
    assert_eq!(ground.listed().len(), 2);

    server.meddle(the_first(1, puts_manifest, Meddle::LoseAnswer));
    ground.try_backup().expect(0, &[]);
    server.meddle(|_| Meddle::No);
    assert_eq!(ground.listed().len(), 3, "the answer was lost, and the backup is there once");
    ground.assert_unharmed(&before);
    ground.run(&["verify", "--read-data"]).expect(0, &[]);
}

#[test]
fn a_restore_that_cannot_go_on_leaves_nothing_to_start_and_goes_on_later() {
    let ground = Ground::new();
    leave_what_is_planned(&ground, &["--to-immediate"]);
    let server = ground.server();
    let before = ground.objects();
    for (name, meddle, code, said) in [
        ("expired", expired(), 16, EXPIRED.as_slice()),
        ("storm", error(503, "SlowDown"), 15, &["SlowDown"]),
        ("silent", Meddle::Instead(Reply::Silence), 15, &["no byte moved"]),
    ] {
        let dir = ground.place().join(name);
        let text = dir.display().to_string();
        let words =
            ["restore", text.as_str(), "--as", "copy", "--to-immediate", "--action", "promote"];
        server.meddle(from_then_on(gets_data, meddle));
        let run = ground.run(&words);
        server.meddle(|_| Meddle::No);
        run.expect(code, said);
        assert!(!dir.join("global/pg_control").exists(), "{name}: it could be started");
        assert!(dir.join(".pgrecall-restore").exists(), "{name}: it was not in the middle");
        ground.run(&words).expect(0, &[]);
        assert!(dir.join("global/pg_control").exists());
    }
    // One that is only slow to answer is waited for.
    let dir = ground.place().join("short-storm");
    let text = dir.display().to_string();
    server.meddle(the_first(3, gets_data, error(503, "SlowDown")));
    let words = ["restore", text.as_str(), "--as", "copy", "--to-immediate", "--action", "promote"];
    ground.run(&words).expect(0, &[]);
    let copy = CheckedCluster::adopt(ground.cluster().major(), &dir);
    copy.start();
    copy.wait_until_recovered();
    assert_eq!(copy.psql("SELECT count(*), sum(id) FROM t"), "5000|12502500");
    ground.assert_unharmed(&before);
}

#[test]
fn a_verification_that_cannot_read_does_not_call_it_damage() {
    let ground = Ground::new();
    let server = ground.server();
    let before = ground.objects();
    for (meddle, code, said) in [
        (expired(), 16, EXPIRED.as_slice()),
        (error(503, "SlowDown"), 15, &["SlowDown"]),
        (Meddle::BreakOff, 15, &["broke off"]),
    ] {
        server.meddle(from_then_on(gets_data, meddle));
        let run = ground.run(&["verify", "--read-data"]);
        run.expect(code, said);
        assert!(!run.stdout.to_lowercase().contains("damage"), "{}", run.stdout);
    }
    server.meddle(the_first(3, gets_data, error(503, "SlowDown")));
    ground.run(&["verify", "--read-data"]).expect(0, &[]);
    ground.assert_unharmed(&before);
}

/// Wherever it stops, the same command goes on.
#[test]
fn an_init_that_is_cut_short_anywhere_can_be_run_again() {
    let host = Host::new();
    host.init().expect(0, &[]);
    let total = host.server().requests().len();
    assert!(total > 8, "{total}");
    let storm = (total / 2, error(503, "SlowDown"), 15, ["SlowDown", "try again later"]);
    let expiries = [0, total / 4, total / 2, total - 1];
    let expiries = expiries.map(|nth| (nth, expired(), 16, EXPIRED));
    for (nth, meddle, code, said) in expiries.into_iter().chain([storm]) {
        host.forget();
        let mut seen = 0;
        host.server().meddle(move |_| {
            seen += 1;
            if seen > nth { meddle.clone() } else { Meddle::No }
        });
        let run = host.init();
        host.server().meddle(|_| Meddle::No);
        assert_eq!(run.code, Some(code), "from request {nth} on: {}", run.stderr);
        run.expect(code, &said);
        let again = host.init();
        assert_eq!(again.code, Some(0), "after request {nth}: {}", again.stderr);
    }
}
