//! What an S3 store makes of a server that fails: what is sent again, what is told, and that a put
//! that may be sent once is sent once.

use std::time::{Duration, Instant};

use futures::StreamExt;
use pgrecall_store::{
    Addressing, ByteRange, ErrorKind, Key, Prefix, Put, RetryOptions, S3Credentials, S3Options,
    S3Store, SecretText, ServerSideEncryption, Store, StoreError, UploadChecksum,
};
use pgrecall_testkit::scripted_s3::{Answer, Reply, ScriptedS3};

fn options(server: &ScriptedS3) -> S3Options {
    S3Options {
        endpoint: Some(server.endpoint()),
        region: Some("us-east-1".to_owned()),
        credentials: S3Credentials::Keys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretText::new("hush"),
            session_token: None,
        },
        ..S3Options::default()
    }
}

/// Fast enough for tests, and with room for a few tries.
fn retry() -> RetryOptions {
    RetryOptions {
        attempts_max: 6,
        delay_first: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        total_max: Duration::from_secs(20),
        idle_max: Duration::from_secs(10),
        attempt_idle_max: Duration::from_millis(500),
    }
}

async fn store_of(server: &ScriptedS3) -> S3Store {
    S3Store::open("s3://bucket/folder", &options(server), &retry()).await.unwrap()
}

async fn scripted(script: impl IntoIterator<Item = Reply>) -> (ScriptedS3, S3Store) {
    let server = ScriptedS3::start(script).await;
    let store = store_of(&server).await;
    (server, store)
}

fn key() -> Key {
    "packs/pack-1".parse().unwrap()
}

const PATH: &str = "/bucket/folder/packs/pack-1";

fn ok(body: &str) -> Answer {
    Answer::new(200, body)
}

fn error(status: u16, code: &str) -> Reply {
    Reply::Answer(Answer::error(status, code, "told by the script"))
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unknown(put: Put) -> StoreError {
    match put {
        Put::Unknown(error) => error,
        other => panic!("expected unknown, not {other:?}"),
    }
}

#[tokio::test]
async fn a_put_asks_for_absence_and_carries_its_headers() {
    let server = ScriptedS3::start([Reply::Answer(ok(""))]).await;
    let options = S3Options {
        encryption: ServerSideEncryption::Kms { key_id: Some("key-7".to_owned()) },
        storage_class: Some("STANDARD_IA".to_owned()),
        ..options(&server)
    };
    let store = S3Store::open("s3://bucket/folder", &options, &retry()).await.unwrap();
    assert!(matches!(store.put_if_absent(&key(), "123456789".into()).await, Put::Created));
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", PATH));
    assert_eq!(request.body, b"123456789");
    for (name, value) in [
        ("if-none-match", "*"),
        ("content-length", "9"),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-7"),
        // SHA-256 of the body, which the signature covers.
        (
            "x-amz-content-sha256",
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        ),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    for name in ["x-amz-trailer", "transfer-encoding", "content-encoding"] {
        assert_eq!(request.header(name), None, "servers other than Amazon's choke on {name}");
    }
    assert!(!format!("{request:?}").contains("hush"));
}

#[tokio::test]
async fn addressing_checksum_and_encryption_can_be_chosen() {
    let server = ScriptedS3::start([Reply::Answer(ok(""))]).await;
    let options = S3Options {
        addressing: Addressing::Path,
        encryption: ServerSideEncryption::Aes256,
        checksum: UploadChecksum::None,
        ..options(&server)
    };
    let store = S3Store::open("s3://bucket", &options, &retry()).await.unwrap();
    assert!(matches!(store.put_once(&key(), "x".into()).await, Put::Created));
    let request = server.requests().remove(0);
    assert_eq!(request.path, "/bucket/packs/pack-1");
    assert_eq!(request.header("x-amz-server-side-encryption"), Some("AES256"));
    assert_eq!(request.header("x-amz-checksum-crc32c"), None);
}

#[tokio::test]
async fn a_put_is_sent_again_until_it_is_settled() {
    let again = [
        error(503, "SlowDown"),
        error(500, "InternalError"),
        error(409, "ConditionalRequestConflict"),
        error(400, "RequestTimeout"),
        Reply::Close,
    ];
    let script = again.clone().into_iter().chain([Reply::Answer(ok(""))]);
    let (server, store) = scripted(script).await;
    assert!(matches!(store.put_if_absent(&key(), "body".into()).await, Put::Created));
    assert_eq!(server.count("PUT", PATH), 6);
    assert!(server.requests().iter().all(|request| request.body == b"body"));

    let script = again.into_iter().chain([error(412, "PreconditionFailed")]);
    let (server, store) = scripted(script).await;
    assert!(matches!(store.put_if_absent(&key(), "body".into()).await, Put::Exists));
    assert_eq!(server.count("PUT", PATH), 6);
}

#[tokio::test]
async fn a_put_that_is_never_settled_is_unknown() {
    let (server, store) = scripted((0..20).map(|_| error(503, "SlowDown"))).await;
    let error = unknown(store.put_if_absent(&key(), "body".into()).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("SlowDown"), "{}", chain(&error));
    assert_eq!(server.count("PUT", PATH), 6, "as many requests as allowed");
}

#[tokio::test]
async fn put_once_sends_one_request_whatever_comes_back() {
    let replies = [
        (error(500, "InternalError"), ErrorKind::Unavailable),
        (error(503, "SlowDown"), ErrorKind::Unavailable),
        (error(409, "ConditionalRequestConflict"), ErrorKind::Conflict),
        (error(403, "AccessDenied"), ErrorKind::Denied),
        (error(400, "RequestTimeout"), ErrorKind::Unavailable),
        (error(400, "ExpiredToken"), ErrorKind::Denied),
        (error(403, "RequestTimeTooSkewed"), ErrorKind::Denied),
        (Reply::Close, ErrorKind::Unavailable),
        (Reply::CloseMidRequest, ErrorKind::Unavailable),
        (Reply::Silence, ErrorKind::Unavailable),
        (Reply::HalfBody { answer: ok("0123456789"), sent_bytes: 4 }, ErrorKind::Unavailable),
        (
            Reply::Answer(Answer::new(307, "").with("Location", "http://127.0.0.1:1/")),
            ErrorKind::Unavailable,
        ),
    ];
    for (reply, kind) in replies {
        for size in [10, 3 << 20] {
            // Were it sent again, that would be settled.
            let (server, store) = scripted([reply.clone(), Reply::Answer(ok(""))]).await;
            let body = vec![7; size];
            let put = store.put_once(&key(), body.into()).await;
            if let Reply::HalfBody { .. } = reply
                && matches!(put, Put::Created)
            {
                // The status came whole, and nobody needs the body of an answer to a put.
            } else {
                let error = unknown(put);
                assert_eq!(error.kind(), kind, "{reply:?}: {}", chain(&error));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(server.count("PUT", PATH), 1, "{reply:?} with {size} bytes");
        }
    }
}

#[tokio::test]
async fn put_once_never_goes_out_on_a_kept_connection() {
    let script = (0..10).map(|_| Reply::AnswerThenClose(ok("")));
    let (server, store) = scripted(script).await;
    for n in 0..10 {
        let key: Key = format!("packs/pack-{n}").parse().unwrap();
        assert!(matches!(store.put_once(&key, vec![1; 100_000].into()).await, Put::Created));
        assert_eq!(server.count("PUT", key.as_str()), 1);
    }
    assert_eq!(server.connections(), 10);

    // Nor when the server keeps connections, and closes one as the next request arrives on it.
    let script = (0..10).flat_map(|_| [Reply::Answer(ok("")), Reply::Close]);
    let (server, store) = scripted(script).await;
    for n in 0..20 {
        let key: Key = format!("packs/pack-{n:02}").parse().unwrap();
        let put = store.put_once(&key, "body".into()).await;
        assert_eq!(matches!(put, Put::Created), n % 2 == 0, "{n}: {put:?}");
        assert_eq!(server.count("PUT", key.as_str()), 1);
    }
    let connections: Vec<usize> = server.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, (0..20).collect::<Vec<_>>(), "a connection was used twice");
}

#[tokio::test]
async fn a_stale_kept_connection_does_not_fail_a_get() {
    let script = (0..10).map(|_| Reply::AnswerThenClose(ok("body")));
    let (server, store) = scripted(script).await;
    for _ in 0..10 {
        assert_eq!(store.get(&key(), 100).await.unwrap(), "body");
    }
    assert!(server.count("GET", PATH) <= 10);
}

#[tokio::test]
async fn a_get_is_sent_again_and_half_a_body_is_no_body() {
    let whole = ok("0123456789");
    let half = |sent_bytes| Reply::HalfBody { answer: whole.clone(), sent_bytes };
    let script = [
        error(500, "InternalError"),
        half(0),
        half(9),
        Reply::Silence,
        Reply::Answer(whole.clone()),
    ];
    let (server, store) = scripted(script).await;
    assert_eq!(store.get(&key(), 100).await.unwrap(), "0123456789");
    assert_eq!(server.count("GET", PATH), 5);

    let (_server, store) = scripted((0..10).map(|_| half(5))).await;
    let error = store.get(&key(), 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("broke off"), "{}", chain(&error));
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_while_bytes_move_and_no_longer() {
    let slow = Reply::Slow(Duration::from_millis(300), ok("body"));
    let (server, store) = scripted([slow]).await;
    assert_eq!(store.get(&key(), 100).await.unwrap(), "body");
    assert_eq!(server.count("GET", PATH), 1);

    let server = ScriptedS3::start((0..50).map(|_| Reply::Silence)).await;
    let retry = RetryOptions {
        idle_max: Duration::from_millis(1200),
        attempt_idle_max: Duration::from_millis(300),
        ..retry()
    };
    let store = S3Store::open("s3://bucket/folder", &options(&server), &retry).await.unwrap();
    let start = Instant::now();
    let error = store.get(&key(), 100).await.unwrap_err();
    let time = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(time > Duration::from_millis(800) && time < Duration::from_secs(3), "{time:?}");
    assert!((3..=5).contains(&server.count("GET", PATH)), "{}", server.count("GET", PATH));
}

#[tokio::test]
async fn refusals_are_told_in_words_and_not_sent_again() {
    let wrong_region = Answer::error(400, "AuthorizationHeaderMalformed", "expecting eu-west-3")
        .with("x-amz-bucket-region", "eu-west-3");
    let moved = Answer::error(301, "PermanentRedirect", "elsewhere")
        .with("x-amz-bucket-region", "eu-west-3");
    let cases = [
        (error(403, "AccessDenied"), ErrorKind::Denied, "access is denied", "ListBucket"),
        (error(403, "SignatureDoesNotMatch"), ErrorKind::Denied, "signature", "secret key"),
        (error(403, "InvalidAccessKeyId"), ErrorKind::Denied, "does not know", "AWS_ACCESS_KEY_ID"),
        (error(400, "ExpiredToken"), ErrorKind::Denied, "have expired", "Renew"),
        (error(403, "RequestTimeTooSkewed"), ErrorKind::Denied, "clocks", "NTP"),
        (Reply::Answer(wrong_region), ErrorKind::Invalid, "eu-west-3", "region"),
        (Reply::Answer(moved), ErrorKind::Invalid, "eu-west-3", "region"),
        (error(404, "NoSuchBucket"), ErrorKind::Invalid, "bucket does not exist", "bucket"),
        (error(501, "NotImplemented"), ErrorKind::Unsupported, "not support", "If-None-Match"),
        (Reply::Answer(Answer::new(404, "<html>")), ErrorKind::Invalid, "404", "endpoint"),
    ];
    for (reply, kind, words, hint) in cases {
        let (server, store) = scripted([reply.clone(), Reply::Answer(ok("body"))]).await;
        let error = store.get(&key(), 100).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reply:?}: {}", chain(&error));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some_and(|told| told.contains(hint)), "{:?}", error.hint());
        assert_eq!(server.count("GET", PATH), 1, "{reply:?}");

        let (server, store) = scripted([reply.clone(), Reply::Answer(ok(""))]).await;
        let error = unknown(store.put_if_absent(&key(), "body".into()).await);
        assert_eq!(error.kind(), kind, "{reply:?}");
        assert_eq!(server.count("PUT", PATH), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn only_s3s_own_word_makes_an_object_absent() {
    let (_server, store) = scripted([error(404, "NoSuchKey")]).await;
    assert_eq!(store.get(&key(), 10).await.unwrap_err().kind(), ErrorKind::NotFound);

    let (_server, store) = scripted([error(404, "NoSuchKey")]).await;
    let range = store.get_range(&key(), ByteRange::Last { len: 5 }).await;
    assert_eq!(range.unwrap_err().kind(), ErrorKind::NotFound);

    // HEAD has no body: the bucket is asked for, and only if it is there the object is not.
    let not_found = || Reply::Answer(Answer::new(404, ""));
    let (server, store) = scripted([not_found(), Reply::Answer(ok(""))]).await;
    assert_eq!(store.head(&key()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.count("HEAD", "/bucket/") + server.count("HEAD", "/bucket"), 1);
    let (_server, store) = scripted([not_found(), not_found()]).await;
    assert_eq!(store.head(&key()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let denied = Reply::Answer(Answer::new(403, ""));
    let (_server, store) = scripted([not_found(), denied.clone()]).await;
    assert_eq!(store.head(&key()).await.unwrap_err().kind(), ErrorKind::Denied);

    let (_server, store) = scripted([denied]).await;
    assert_eq!(store.head(&key()).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn an_oversized_object_is_refused_before_its_bytes_come() {
    let announced = Answer::new(200, vec![0; 5 << 20]);
    let (server, store) = scripted([Reply::HalfBody { answer: announced, sent_bytes: 10 }]).await;
    let error = store.get(&key(), 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(server.count("GET", PATH), 1);

    // A range must not bring more than was asked for either.
    let lie = Answer::new(206, "0123456789").with("Content-Range", "bytes 0-3/100");
    let (_server, store) = scripted([Reply::Answer(lie)]).await;
    let error = store.get_range(&key(), ByteRange::At { offset: 0, len: 4 }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");

    // Nor the whole object instead of a part.
    let (_server, store) = scripted([Reply::Answer(ok("0123456789"))]).await;
    let error = store.get_range(&key(), ByteRange::At { offset: 0, len: 4 }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

fn page(keys: &[&str], next: Option<&str>) -> Reply {
    let contents: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><Size>7</Size></Contents>"))
        .collect();
    let truncated = next.is_some();
    let next = next.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let next = next.unwrap_or_default();
    let body = format!(
        "<ListBucketResult><EncodingType>url</EncodingType>\
         <IsTruncated>{truncated}</IsTruncated>{next}{contents}</ListBucketResult>"
    );
    Reply::Answer(Answer::new(200, body).with("Content-Type", "application/xml"))
}

fn folder_page(keys: &[&str], folders: &[&str]) -> Reply {
    let Reply::Answer(mut answer) = page(keys, None) else { unreachable!() };
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    let body = String::from_utf8(answer.body).unwrap();
    answer.body =
        body.replace("</ListBucketResult>", &format!("{folders}</ListBucketResult>")).into();
    Reply::Answer(answer)
}

async fn listed(store: &S3Store) -> (Vec<String>, Option<StoreError>) {
    let prefix = Prefix::parse("packs/").unwrap();
    let mut names = Vec::new();
    let mut list = store.list(&prefix);
    while let Some(next) = list.next().await {
        match next {
            Ok(listed) => names.push(listed.key.to_string()),
            Err(error) => {
                assert!(list.next().await.is_none(), "a listing ends at its error");
                return (names, Some(error));
            }
        }
    }
    (names, None)
}

#[tokio::test]
async fn a_listing_goes_page_by_page_and_survives_failures_in_between() {
    let (server, store) = scripted([
        page(&["folder/packs/a", "folder/packs/a%20b", "folder/packs%2Fb"], Some("t=1/+")),
        error(503, "SlowDown"),
        Reply::Close,
        page(&[], Some("two")),
        page(&["folder/packs/c/", "folder/packs/d"], None),
    ])
    .await;
    let (names, error) = listed(&store).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(names, ["packs/a", "packs/b", "packs/d"], "what is not ours is passed over");
    let requests = server.requests();
    assert!(requests[0].query.contains("prefix=folder%2Fpacks%2F"), "{}", requests[0].query);
    assert!(requests[3].query.contains("continuation-token=t%3D1%2F%2B"), "{}", requests[3].query);
}

#[tokio::test]
async fn a_listing_that_makes_no_sense_is_an_error() {
    // All on one page: then it is simply sorted.
    let (_server, store) = scripted([page(&["folder/packs/b", "folder/packs/a"], None)]).await;
    let (names, error) = listed(&store).await;
    assert!(error.is_none() && names == ["packs/a", "packs/b"], "{names:?} {error:?}");

    // On several pages it cannot be; the next listing goes folder by folder.
    let (server, store) = scripted([
        page(&["folder/packs/b/x"], Some("more")),
        page(&["folder/packs/b-c"], None),
        folder_page(&["folder/packs/b-c"], &["folder/packs/b/", "folder/elsewhere/"]),
        folder_page(&["folder/packs/b/x"], &[]),
    ])
    .await;
    let (names, error) = listed(&store).await;
    assert_eq!((names.len(), error.unwrap().kind()), (1, ErrorKind::Unavailable));
    let (names, error) = listed(&store).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(names, ["packs/b-c", "packs/b/x"]);
    assert_eq!(server.requests().len(), 4);

    let (_server, store) = scripted([page(&["folder/packs/b"], Some(""))]).await;
    assert_eq!(listed(&store).await.1.unwrap().kind(), ErrorKind::Unsupported);

    // XML that breaks off, in an answer that is whole as far as HTTP can tell, is no shorter
    // listing.
    let start = "<ListBucketResult><IsTruncated>false</IsTruncated>";
    let one = "<Contents><Key>folder/packs/a</Key><Size>1</Size></Contents>";
    for half in [format!("{start}{one}"), start.to_owned(), format!("{start}<Contents><Key>f")] {
        let half = Reply::Answer(Answer::new(200, half).with("Content-Type", "application/xml"));
        let (server, store) = scripted((0..10).map(|_| half.clone())).await;
        let (names, error) = listed(&store).await;
        assert_eq!((names.len(), error.unwrap().kind()), (0, ErrorKind::Unavailable));
        assert_eq!(server.requests().len(), 6);
    }

    let (_server, store) = scripted([error_reply("NoSuchBucket")]).await;
    assert_eq!(listed(&store).await.1.unwrap().kind(), ErrorKind::Invalid);
}

fn error_reply(code: &str) -> Reply {
    error(404, code)
}

#[tokio::test]
async fn a_delete_is_repeated_until_it_is_answered() {
    let gone = Reply::Answer(Answer::new(204, ""));
    let (server, store) = scripted([error(503, "SlowDown"), Reply::Close, gone]).await;
    store.delete(&key()).await.unwrap();
    assert_eq!(server.count("DELETE", PATH), 3);

    let (_server, store) = scripted([error(404, "NoSuchKey")]).await;
    store.delete(&key()).await.unwrap();
    let (_server, store) = scripted([error(404, "NoSuchBucket")]).await;
    assert_eq!(store.delete(&key()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let (_server, store) = scripted([error(403, "AccessDenied")]).await;
    assert_eq!(store.delete(&key()).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn nobody_listening_is_unavailable_within_the_budget() {
    let server = ScriptedS3::start([]).await;
    let options = options(&server);
    drop(server);
    tokio::task::yield_now().await;
    let store = S3Store::open("s3://bucket/folder", &options, &retry()).await.unwrap();
    let error = store.get(&key(), 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    let error = unknown(store.put_once(&key(), "x".into()).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
}

#[tokio::test]
async fn plain_http_to_a_tls_endpoint_is_told() {
    let server = ScriptedS3::start([]).await;
    let options = S3Options {
        endpoint: Some(server.endpoint().replace("http://", "https://")),
        ..options(&server)
    };
    let store = S3Store::open("s3://bucket/folder", &options, &retry()).await.unwrap();
    let error = store.get(&key(), 10).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn opening_asks_nobody_and_is_quick() {
    let server = ScriptedS3::start([]).await;
    store_of(&server).await;
    let start = Instant::now();
    for _ in 0..20 {
        store_of(&server).await;
    }
    let each = start.elapsed() / 20;
    assert_eq!(server.connections(), 0);
    assert!(each < Duration::from_millis(20), "opening takes {each:?}");
}
