//! Opening S3 stores; what they do on the wire is tested against servers, in `tests/`.

use super::*;
use crate::s3_options::{S3Credentials, SecretText};

fn options() -> S3Options {
    S3Options {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        credentials: S3Credentials::Keys {
            access_key_id: "id".to_owned(),
            secret_access_key: SecretText::new("hush-secret"),
            session_token: Some(SecretText::new("hush-token")),
        },
        ..S3Options::default()
    }
}

#[test]
fn urls_are_taken_apart() {
    let (bucket, folder) = take_apart("s3://b-1/x/y/").unwrap();
    assert_eq!((bucket.as_str(), folder.as_str()), ("b-1", "x/y/"));
    let (bucket, folder) = take_apart("s3://b").unwrap();
    assert_eq!((bucket.as_str(), folder.as_str()), ("b", ""));
    assert_eq!(take_apart("s3://b/").unwrap().0, "b");
    for url in ["s3://", "s3:///x", "s3://b/../x", "s3://b/.x", "s3://b?x/y", "http://b"] {
        assert_eq!(take_apart(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
    }
}

#[tokio::test]
async fn secrets_stay_hidden() {
    let store = S3Store::open("s3://b/x", &options(), &RetryOptions::default()).await.unwrap();
    let shown = format!("{store:?} {}", store.url());
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("s3://b/x"));
}

#[tokio::test]
async fn a_bad_certificate_file_is_told_not_met_with_a_panic() {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("pgrecall-ca-{:016x}.pem", getrandom::u64().unwrap()));
    let tls = S3Options {
        endpoint: Some("https://127.0.0.1:1".to_owned()),
        ca_file: Some(file.clone()),
        ..options()
    };
    for (content, word) in [
        (None, "cannot be read"),
        (Some("no certificate here"), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "is damaged"),
        (Some("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"), "is damaged"),
    ] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let error = S3Store::open("s3://b", &tls, &RetryOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(word), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn checksums_are_in_the_form_that_s3_takes() {
    // The check value of CRC-32C, for "123456789", is E3069283.
    assert_eq!(crc32c_header(b"123456789"), "4waSgw==");
    assert_eq!(size_of_content_range("bytes 0-9/100"), Some(100));
    assert_eq!(size_of_content_range("bytes */100"), Some(100));
    assert_eq!(size_of_content_range("bytes 0-9/*"), None);
}
