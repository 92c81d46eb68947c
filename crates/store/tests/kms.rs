//! A key of KMS against a server that answers as told: what each answer means, what is sent again,
//! and how long that goes on.

use std::time::{Duration, Instant};

use pgrecall_store::{
    ErrorKind, KeyContext, KeyService, KmsKey, KmsOptions, S3Credentials, SecretText, StoreError,
};
use pgrecall_testkit::scripted_s3::{Answer, Reply, ScriptedS3};

const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234-abcd";

fn context() -> KeyContext {
    KeyContext { name: "pgrecall-repository", value: "this one".into() }
}

fn options(server: &ScriptedS3, time: Duration) -> KmsOptions {
    let options = KmsOptions {
        endpoint: Some(server.endpoint()),
        credentials: S3Credentials::Keys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: SecretText::new("hush-hush"),
            session_token: None,
        },
        ..KmsOptions::new(KEY)
    };
    options.within(time)
}

fn key(server: &ScriptedS3, time: Duration) -> KmsKey {
    KmsKey::new(options(server, time))
}

fn error(status: u16, code: &str) -> Reply {
    let body = format!("{{\"__type\":\"{code}\",\"message\":\"told by the script\"}}");
    Reply::Answer(Answer::new(status, body).with("Content-Type", "application/x-amz-json-1.1"))
}

fn good(body: &str) -> Reply {
    Reply::Answer(Answer::new(200, body).with("Content-Type", "application/x-amz-json-1.1"))
}

const LONG: Duration = Duration::from_secs(60);

async fn refused(replies: Vec<Reply>) -> (StoreError, usize) {
    let server = ScriptedS3::start(replies).await;
    let error = key(&server, LONG).decrypt(b"blob", &context()).await.unwrap_err();
    let requests = server.requests().len();
    (error, requests)
}

#[tokio::test]
async fn what_is_asked_names_key_context_and_region_and_nothing_more() {
    let plain = "{\"KeyId\":\"k\",\"Plaintext\":\"c2VjcmV0\"}";
    let sealed = format!("{{\"KeyId\":\"{KEY}\",\"CiphertextBlob\":\"YmxvYg==\"}}");
    let server = ScriptedS3::start(vec![good(&sealed), good(plain)]).await;
    let key = key(&server, LONG);
    let made = key.encrypt(b"secret", &context()).await.unwrap();
    assert_eq!((made.key.as_str(), made.blob.as_slice()), (KEY, &b"blob"[..]));
    let opened = key.decrypt(&made.blob, &context()).await.unwrap();
    assert_eq!(opened.as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
    let requests = server.requests();
    for (request, operation) in requests.iter().zip(["Encrypt", "Decrypt"]) {
        let target = format!("TrentService.{operation}");
        assert_eq!(request.header("x-amz-target"), Some(target.as_str()));
        let signed = request.header("authorization").unwrap();
        assert!(signed.contains("/eu-central-1/kms/"), "{signed}");
        let body = String::from_utf8_lossy(&request.body);
        assert!(body.contains(&format!("\"KeyId\":\"{KEY}\"")), "{body}");
        assert!(body.contains("{\"pgrecall-repository\":\"this one\"}"), "{body}");
    }
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn each_refusal_is_told_as_what_it_is_and_not_sent_again() {
    for (status, code, kind, words) in [
        (400, "AccessDeniedException", ErrorKind::Denied, "access is denied"),
        (400, "DisabledException", ErrorKind::Denied, "the key is disabled"),
        (400, "KMSInvalidStateException", ErrorKind::Denied, "the key's state"),
        (400, "NotFoundException", ErrorKind::Invalid, "KMS knows no such key"),
        (400, "InvalidArnException", ErrorKind::Invalid, "no key's name"),
        (400, "ValidationException", ErrorKind::Invalid, "no key's name"),
        (400, "InvalidKeyUsageException", ErrorKind::Invalid, "not for this use"),
        (400, "UnrecognizedClientException", ErrorKind::Denied, "does not know these credentials"),
        (400, "ExpiredTokenException", ErrorKind::Denied, "have expired"),
        (403, "InvalidSignatureException", ErrorKind::Denied, "the signature is refused"),
        (403, "SomethingNew", ErrorKind::Denied, "access is denied"),
        (404, "", ErrorKind::Invalid, "HTTP 404"),
    ] {
        let (error, requests) = refused(vec![error(status, code)]).await;
        assert_eq!((error.kind(), requests), (kind, 1), "{code}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("decrypt by the KMS key {KEY}: ")), "{text}");
        assert!(text.contains(words), "{code}: {text}");
        assert!(error.hint().is_some(), "{code} has no hint");
    }
}

#[tokio::test]
async fn what_another_key_has_made_is_no_error() {
    for code in ["InvalidCiphertextException", "IncorrectKeyException"] {
        let server = ScriptedS3::start(vec![error(400, code)]).await;
        let opened = key(&server, LONG).decrypt(b"blob", &context()).await.unwrap();
        assert_eq!(opened, None);
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let plain = "{\"KeyId\":\"k\",\"Plaintext\":\"c2VjcmV0\"}";
    let script = vec![
        error(400, "ThrottlingException"),
        error(500, "KMSInternalException"),
        error(400, "KeyUnavailableException"),
        Reply::Close,
        Reply::HalfBody { answer: Answer::new(200, plain), sent_bytes: 9 },
        error(503, ""),
        good(plain),
    ];
    let requests = script.len();
    let server = ScriptedS3::start(script).await;
    let opened = key(&server, LONG).decrypt(b"blob", &context()).await.unwrap();
    assert_eq!(opened.as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
    assert_eq!(server.requests().len(), requests);
}

#[tokio::test]
async fn patience_ends_in_time() {
    let time = Duration::from_secs(2);
    for script in [vec![Reply::Silence; 9], vec![], vec![Reply::Close; 1000]] {
        let server = ScriptedS3::start(script).await;
        let began = Instant::now();
        let error = key(&server, time).decrypt(b"blob", &context()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(began.elapsed() < time + Duration::from_secs(1), "{:?}", began.elapsed());
    }
    // Nobody listens there.
    let server = ScriptedS3::start(vec![]).await;
    let options = options(&server, time);
    drop(server);
    tokio::task::yield_now().await;
    let began = Instant::now();
    let error = KmsKey::new(options).encrypt(b"x", &context()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < time + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_without_what_was_asked_for_is_no_secret() {
    let (error, _) = refused(vec![good("{}")]).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn no_secret_is_in_what_is_shown() {
    let server = ScriptedS3::start(vec![error(400, "AccessDeniedException")]).await;
    let key = key(&server, LONG);
    let error = key.encrypt(b"secret bits", &context()).await.unwrap_err();
    let shown = format!("{key:?} {error:?} {error} {:?}", options(&server, LONG));
    for secret in ["secret bits", "hush-hush", "c2VjcmV0"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
