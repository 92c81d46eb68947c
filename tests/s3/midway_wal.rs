//! A bucket that fails `wal push` at the segment's own put, and `wal fetch` at its own get, behind
//! a root that reads well.

use pgrecall_testkit::postgres::Stop;
use pgrecall_testkit::scripted_s3::{Meddle, Reply, Request};

use crate::ground::{Ground, error, every, the_first};

/// A stopped server with a segment that is archived.
struct Case {
    ground: Ground,
    segment: String,
    object: String,
}

impl Case {
    fn new() -> Self {
        let ground = Ground::new();
        let cluster = ground.cluster();
        cluster.psql("INSERT INTO t VALUES (0)");
        let segment = cluster.psql("SELECT pg_walfile_name(pg_switch_wal())");
        let object = ground.wait_archived(&segment);
        cluster.stop(Stop::Fast);
        Self { ground, segment, object }
    }

    /// Whether a request is this one for the segment's object.
    fn is(&self, method: &'static str) -> impl Fn(&Request) -> bool + Send + Clone + 'static {
        let end = format!("/{}", self.segment);
        move |request| request.method == method && request.path.ends_with(&end)
    }

    fn push(&self) -> crate::ground::Run {
        self.ground.run(&["wal", "push", &format!("pg_wal/{}", self.segment)])
    }
}

#[test]
fn a_put_of_a_segment_that_fails_is_told_and_done_when_it_can_be() {
    let case = Case::new();
    let server = case.ground.server();
    let stored = case.ground.objects()[&case.object].clone();
    server.set_object(&case.object, None);
    let before = case.ground.objects();
    let close = || Meddle::Instead(Reply::Close);
    for (name, meddle, code, said) in [
        ("500", error(500, "InternalError"), 15, "InternalError"),
        ("503", error(503, "SlowDown"), 15, "SlowDown"),
        ("409", error(409, "ConditionalRequestConflict"), 12, "another request for this name"),
        ("403", error(403, "AccessDenied"), 16, "access is denied"),
        ("expired credentials", error(400, "ExpiredToken"), 16, "the credentials have expired"),
        ("a closed connection", close(), 15, "broke off"),
        ("silence", Meddle::Instead(Reply::Silence), 15, "no byte moved"),
    ] {
        server.meddle(every(case.is("PUT"), meddle));
        let run = case.push();
        run.expect(code, &[said, &case.segment]);
        assert!(case.ground.object(&case.segment).is_none(), "{name}: it is not stored");
        case.ground.assert_unharmed(&before);
    }
    // Once or twice is no failure, and what was done without an answer is known again.
    for (name, meddle) in [
        ("500", error(500, "InternalError")),
        ("503", error(503, "SlowDown")),
        ("409", error(409, "ConditionalRequestConflict")),
        ("a closed connection", close()),
        ("a lost answer", Meddle::LoseAnswer),
    ] {
        server.set_object(&case.object, None);
        server.meddle(the_first(2, case.is("PUT"), meddle));
        let run = case.push();
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert!(!run.stderr.contains("OTHER CONTENT"), "{name}: {}", run.stderr);
        case.ground.assert_unharmed(&before);
        let now = &case.ground.objects()[&case.object];
        assert!(now.len().abs_diff(stored.len()) < 1000, "{name}: {} bytes", now.len());
    }
    server.meddle(|_| Meddle::No);
    let fetch = ["wal", "fetch", &case.segment, "pg_wal/RECOVERYXLOG"];
    case.ground.run(&fetch).expect(0, &[]);
    let data = case.ground.cluster().data_dir().join("pg_wal");
    let read = |name: &str| std::fs::read(data.join(name)).expect("a segment");
    assert!(read("RECOVERYXLOG") == read(&case.segment), "it came back as it was");
    assert_eq!(server.count("DELETE", &case.segment), 0);
}

#[test]
fn a_get_of_a_segment_that_fails_is_no_absence() {
    let case = Case::new();
    let server = case.ground.server();
    let before = case.ground.objects();
    let cluster = case.ground.cluster();
    let target = cluster.data_dir().join("pg_wal/RECOVERYXLOG");
    let fetch = || case.ground.run(&["wal", "fetch", &case.segment, "pg_wal/RECOVERYXLOG"]);
    for (name, meddle, said) in [
        ("half a body", Meddle::BreakOff, "broke off"),
        ("a body that stops", Meddle::Stall, "no byte moved"),
        ("403", error(403, "AccessDenied"), "access is denied"),
        ("503", error(503, "SlowDown"), "SlowDown"),
        ("expired credentials", error(400, "ExpiredToken"), "the credentials have expired"),
        ("a 404 of anything but S3", error(404, "NotFound"), "says nothing about the object"),
    ] {
        server.meddle(every(case.is("GET"), meddle));
        fetch().expect(126, &[said, &case.segment]);
        cluster.append_to("standby.signal", "");
        let run = fetch();
        std::fs::remove_file(cluster.data_dir().join("standby.signal")).expect("removed");
        run.expect(1, &[said, "wal fetch FAILED on a standby"]);
        assert!(!target.exists(), "{name}: a file is left");
    }
    for meddle in [Meddle::BreakOff, error(503, "SlowDown"), Meddle::Instead(Reply::Close)] {
        server.meddle(the_first(2, case.is("GET"), meddle.clone()));
        let run = fetch();
        assert_eq!(run.code, Some(0), "{meddle:?}: {}", run.stderr);
        let segment = cluster.data_dir().join("pg_wal").join(&case.segment);
        let read = |path| std::fs::read(path).expect("a segment");
        assert!(read(&target) == read(&segment), "{meddle:?}: it came back as it was");
        std::fs::remove_file(&target).expect("fetched");
    }
    case.ground.assert_unharmed(&before);
}
