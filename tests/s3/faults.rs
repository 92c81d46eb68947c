//! An S3 store that misbehaves, and the exit codes and words of `wal push` and `wal fetch`: above 125
//! where recovery must not end, 1 on a standby, 1 to 125 for the archiver.

use std::fs;
use std::path::Path;

use pgrecall_testkit::scripted_s3::{Answer, Reply, ScriptedS3};

use crate::unreached::{Limits, SEGMENT, run, site};

/// What every request meets, what is said, and the exit code of `wal push`.
struct Fault {
    name: &'static str,
    reply: Reply,
    said: &'static [&'static str],
    push_code: i32,
}

fn error(status: u16, code: &str) -> Answer {
    Answer::error(status, code, "told by the script")
}

fn faults() -> Vec<Fault> {
    let root = r#"{"format":"pgrecall repository","version":1,"features":[],"id":"#;
    vec![
        Fault {
            name: "403",
            reply: Reply::Answer(error(403, "AccessDenied")),
            said: &["AccessDenied"],
            push_code: 16,
        },
        Fault {
            name: "503",
            reply: Reply::Answer(error(503, "SlowDown")),
            said: &["SlowDown"],
            push_code: 15,
        },
        Fault {
            name: "500",
            reply: Reply::Answer(error(500, "InternalError")),
            said: &["InternalError"],
            push_code: 15,
        },
        Fault { name: "silence", reply: Reply::Silence, said: &["pgrecall.json"], push_code: 15 },
        Fault {
            name: "half a body",
            reply: Reply::HalfBody { answer: Answer::new(200, root), sent_bytes: root.len() / 2 },
            said: &["pgrecall.json"],
            push_code: 15,
        },
        Fault {
            name: "closed connections",
            reply: Reply::Close,
            said: &["pgrecall.json"],
            push_code: 15,
        },
        Fault {
            name: "expired credentials",
            reply: Reply::Answer(error(400, "ExpiredToken")),
            said: &["expired"],
            push_code: 16,
        },
        Fault {
            name: "a wrong region",
            reply: Reply::Answer(
                error(301, "PermanentRedirect").with("x-amz-bucket-region", "eu-central-1"),
            ),
            said: &["the region is wrong: the server says eu-central-1"],
            push_code: 17,
        },
        Fault {
            name: "no bucket",
            reply: Reply::Answer(error(404, "NoSuchBucket")),
            said: &["NoSuchBucket", "Make the bucket first"],
            push_code: 17,
        },
        Fault {
            name: "another root",
            reply: Reply::Answer(Answer::new(200, "<html>captive portal</html>")),
            said: &["pgrecall.json"],
            push_code: 13,
        },
    ]
}

fn expect(fault: &Fault, folder: &Path, words: &str, code: i32) -> String {
    let (found, said) = run(folder, words);
    assert_eq!(found, Some(code), "{}: {words}: {said}", fault.name);
    for part in fault.said {
        assert!(said.contains(part), "{}: {words}: no {part:?} in {said}", fault.name);
    }
    said
}

/// What a store that lets every put win is asked by `init`: for the root, and then for each round
/// of the probe.
fn every_put_wins() -> Vec<Reply> {
    let missing = || Reply::Answer(error(404, "NoSuchKey"));
    let mut script = vec![missing()];
    for _ in 0..3 {
        script.push(missing());
        let won = Answer::new(200, "").with("ETag", "\"0123456789abcdef0123456789abcdef\"");
        script.extend(vec![Reply::Answer(won); 16]);
        script.push(Reply::Answer(Answer::new(204, "")));
    }
    script
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_which_two_racing_puts_win_gets_no_repository() {
    let server = ScriptedS3::start(every_put_wins()).await;
    let site = site(&server.endpoint(), Limits::Short);
    let folder = site.path();
    let line = format!(
        "--config {0}/new/new.toml init --repo s3://bucket/pg --s3-endpoint {1} --s3-region us-east-1 \
         --cluster main --pgdata {0}/pgdata",
        folder.display(),
        server.endpoint()
    );
    let (code, said) = tokio::task::block_in_place(|| run(folder, &line));
    assert_eq!(code, Some(14), "{said}");
    for part in [
        "the store at s3://bucket/pg does not keep what a repository needs: nothing was made there",
        "of racing puts exactly one wins; seen in round 0: 16 puts of one name were told \"created\"",
        "hint: Use another store, or a newer version of its server",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!folder.join("new").exists(), "neither key nor configuration is written");
    let puts: Vec<_> = server.requests().into_iter().filter(|r| r.method == "PUT").collect();
    assert_eq!(puts.len(), 48, "{puts:?}");
    assert!(puts.iter().all(|put| put.path.starts_with("/bucket/pg/store/probe-")), "{puts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_told_what_it_must_hear() {
    let fetch = format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG");
    let push = format!("wal push pg_wal/{SEGMENT}");
    for fault in faults() {
        let server = ScriptedS3::start(vec![fault.reply.clone(); 200]).await;
        let site = site(&server.endpoint(), Limits::Short);
        let folder = site.path();
        let signal = folder.join("pgdata/standby.signal");
        tokio::task::block_in_place(|| {
            expect(&fault, folder, &push, fault.push_code);
            expect(&fault, folder, &fetch, 126);
            fs::write(&signal, "").expect("standby.signal");
            let said = expect(&fault, folder, &fetch, 1);
            assert!(said.contains("wal fetch FAILED on a standby"), "{}: {said}", fault.name);
            // A standby that archives (archive_mode = always) is no exception to the archiver.
            expect(&fault, folder, &push, fault.push_code);
        });
        assert!(!folder.join("pgdata/pg_wal/RECOVERYXLOG").exists(), "{}", fault.name);
        assert!(!server.requests().is_empty());
        assert_eq!(server.requests().iter().filter(|r| r.method == "DELETE").count(), 0);
    }
}
