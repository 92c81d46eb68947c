//! What a user may say about a key of KMS.

use std::path::PathBuf;
use std::time::Duration;

use crate::retry::RetryOptions;
use crate::s3_options::S3Credentials;

/// Which key of KMS, and how to reach it.
#[derive(Debug, Clone)]
pub struct KmsOptions {
    /// The key's id, its ARN, `alias/name`, or the alias's ARN.
    pub key: String,
    /// The server, as `https://host:port`; without it `AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL`,
    /// else Amazon's own.
    pub endpoint: Option<String>,
    /// The region; without it that of the ARN, then as for S3.
    pub region: Option<String>,
    /// Who asks.
    pub credentials: S3Credentials,
    /// A PEM file with the certificate authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How often and how long a request is sent again.
    pub retry: RetryOptions,
}

impl KmsOptions {
    /// A key by Amazon's own KMS and the standard chain of credentials; half a minute is enough for
    /// all that is sent.
    pub fn new(key: impl Into<String>) -> Self {
        let total = Duration::from_secs(30);
        Self {
            key: key.into(),
            endpoint: None,
            region: None,
            credentials: S3Credentials::default(),
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            retry: RetryOptions { total_max: total, idle_max: total, ..RetryOptions::default() },
        }
    }

    /// Bounds what one call takes, its repetitions included.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        let retry = &mut self.retry;
        retry.total_max = time;
        retry.idle_max = time;
        // A request that is never answered leaves time for a second one.
        retry.attempt_idle_max = retry.attempt_idle_max.min(time / 2);
        self.connect_timeout = self.connect_timeout.min(time / 2);
        self
    }
}
