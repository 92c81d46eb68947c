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
