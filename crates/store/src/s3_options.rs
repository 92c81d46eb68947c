//! What a user may say about an S3 store.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

/// How to reach an S3 store, and how objects are to be put there.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The server, as `https://host:port`; without it `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`,
    /// else Amazon's own.
    pub endpoint: Option<String>,
    /// The region; without it `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, and, without an
    /// endpoint, the one of the EC2 instance; with an endpoint `us-east-1`, which most other
    /// servers take.
    pub region: Option<String>,
    /// Where the bucket's name goes.
    pub addressing: Addressing,
    /// Who asks.
    pub credentials: S3Credentials,
    /// A PEM file with the certificate authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// Encryption by the server, beside our own.
    pub encryption: ServerSideEncryption,
    /// The storage class of new objects, such as `STANDARD_IA`; the bucket's default without it.
    pub storage_class: Option<String>,
    /// The checksum header of new objects.
    pub checksum: UploadChecksum,
    /// How objects are listed.
    pub listing: Listing,
    /// The bucket is read as it was at this moment, from the versions that it has kept.
    pub as_of: Option<SystemTime>,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            addressing: Addressing::default(),
            credentials: S3Credentials::default(),
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            encryption: ServerSideEncryption::default(),
            storage_class: None,
            checksum: UploadChecksum::default(),
            listing: Listing::default(),
            as_of: None,
        }
    }
}

/// Where the bucket's name goes in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addressing {
    /// By path when an endpoint is given, else in the host's name.
    #[default]
    Auto,
    /// `https://bucket.host/key`.
    Virtual,
    /// `https://host/bucket/key`.
    Path,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// The standard chain: environment, profile files (`credential_process` and SSO too), web
    /// identity, container, EC2 instance. Nothing is asked before the first request.
    Chain {
        /// The profile; without it `AWS_PROFILE`, else `default`.
        profile: Option<String>,
    },
    /// These keys and nothing else.
    Keys {
        /// The access key's id.
        access_key_id: String,
        /// The access key's secret.
        secret_access_key: SecretText,
        /// The token of temporary keys.
        session_token: Option<SecretText>,
    },
}

impl Default for S3Credentials {
    fn default() -> Self {
        Self::Chain { profile: None }
    }
}

/// Encryption of objects by the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServerSideEncryption {
    /// Whatever the bucket does by itself.
    #[default]
    BucketDefault,
    /// With keys of the server (`AES256`).
    Aes256,
    /// With a key of the key management service (`aws:kms`).
    Kms {
        /// The key's id or ARN; without it the service's default key.
        key_id: Option<String>,
    },
}

/// The checksum header that goes with a put, beside the SHA-256 that signs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UploadChecksum {
    /// `x-amz-checksum-crc32c`: cheap, kept by the server with the object, and what a bucket with
    /// object lock asks for.
    #[default]
    Crc32c,
    /// None, for a server that refuses the header.
    None,
}

/// How objects are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listing {
    /// All at once, a thousand to a request, which S3 sends in byte order of the keys; folder by
    /// folder where the server is known for another order (SeaweedFS, which puts `a/x` before
    /// `a-b`).
    #[default]
    Auto,
    /// A request for each folder: in order whatever the server does, and slower.
    ByFolder,
}

/// A text that never shows in `Debug`, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Hides the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    #[cfg(feature = "s3")]
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}
