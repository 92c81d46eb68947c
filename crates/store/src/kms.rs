//! A key of AWS KMS, or of a server that speaks its protocol.
//!
//! The SDK's own retries are off; [`Retry`] sends again, within a bounded time. Nothing is read or
//! asked before the first call.

mod fault;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{AppName, BehaviorVersion, Config, StalledStreamProtectionConfig};
use aws_sdk_kms::primitives::Blob;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::aws::answer::Answer;
use crate::aws::{Connections, Site, endpoint};
use crate::error::{Act, ErrorKind, StoreError};
use crate::key_service::{KeyContext, KeyService, ServiceSealed};
use crate::kms_options::KmsOptions;
use crate::retry::{Again, Failure, Retry, SystemTiming, Timing};

/// One key of KMS.
pub struct KmsKey {
    options: KmsOptions,
    /// What messages call it.
    name: String,
    retry: Retry,
    client: OnceCell<Client>,
}

impl fmt::Debug for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsKey({})", self.options.key)
    }
}

impl KmsKey {
    /// The key that the options name. Nothing is asked of the service.
    #[must_use]
    pub fn new(options: KmsOptions) -> Self {
        Self::with_timing(options, Arc::new(SystemTiming::new()))
    }

    /// The same, with a clock for the retries.
    #[must_use]
    pub fn with_timing(options: KmsOptions, timing: Arc<dyn Timing>) -> Self {
        Self {
            name: format!("the KMS key {}", options.key),
            retry: Retry::new(options.retry.clone(), timing),
            client: OnceCell::new(),
            options,
        }
    }

    async fn client(&self) -> Result<&Client, StoreError> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    /// Reads settings, environment and files.
    async fn connect(&self) -> Result<Client, StoreError> {
        let options = &self.options;
        let variables = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"];
        let site = Site {
            name: &self.name,
            endpoint: endpoint(&self.name, options.endpoint.as_deref(), &variables)?,
            region: options.region.as_deref().or_else(|| region_of(&options.key)),
            region_hint: "Name the key by its ARN, set the region of KMS, or AWS_REGION.",
            credentials: &options.credentials,
            ca_file: options.ca_file.as_deref(),
        };
        if let Some(open) = site.endpoint.as_deref().filter(|endpoint| !is_private(endpoint)) {
            let what = format!("the endpoint {open} would have keys sent in the clear");
            return Err(StoreError::new(ErrorKind::Invalid, Act::Open, &self.name, what)
                .with_hint("Use https://; http:// is for this very machine."));
        }
        let transport = site.transport()?;
        let identity = site.identity().await?;
        let timeouts = TimeoutConfig::builder().connect_timeout(options.connect_timeout).build();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(identity.region)
            .credentials_provider(identity.credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_app_name(AppName::new("pgrecall").ok()).set_endpoint_url(site.endpoint);
        Ok(Client::from_conf(config.http_client(transport.client(Connections::Kept)).build()))
    }

    fn stalled(&self, act: Act) -> impl Fn(String) -> StoreError + '_ {
        move |what| StoreError::new(ErrorKind::Unavailable, act, &self.name, what)
    }

    /// A success that lacks what it is about.
    fn empty(&self, act: Act) -> Failure {
        let what = "the answer lacks what was asked for";
        let error = StoreError::new(ErrorKind::Unsupported, act, &self.name, what)
            .with_hint("Is the endpoint that of KMS?");
        Failure { error, again: Again::No }
    }

    async fn encrypt_once(
        &self,
        plain: &[u8],
        context: &KeyContext,
    ) -> Result<ServiceSealed, Failure> {
        let act = Act::Encrypt;
        let client = self.client().await.map_err(|error| Failure { error, again: Again::No })?;
        let request = client
            .encrypt()
            .key_id(&self.options.key)
            .plaintext(Blob::new(plain))
            .encryption_context(context.name, &context.value);
        match request.send().await {
            Ok(output) => match (output.key_id, output.ciphertext_blob) {
                (Some(key), Some(blob)) => Ok(ServiceSealed { key, blob: blob.into_inner() }),
                _ => Err(self.empty(act)),
            },
            Err(error) => Err(Answer::read(&error).kms_failure(act, &self.name)),
        }
    }

    async fn decrypt_once(
        &self,
        blob: &[u8],
        context: &KeyContext,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let act = Act::Decrypt;
        let client = self.client().await.map_err(|error| Failure { error, again: Again::No })?;
        let request = client
            .decrypt()
            // Without it KMS takes the key that the blob names: whoever can write to the store
            // could put one of a key of his own there.
            .key_id(&self.options.key)
            .ciphertext_blob(Blob::new(blob))
            .encryption_context(context.name, &context.value);
        match request.send().await {
            Ok(output) => match output.plaintext {
                Some(plain) => Ok(Some(Zeroizing::new(plain.into_inner()))),
                None => Err(self.empty(act)),
            },
            Err(error) => match Answer::read(&error) {
                answer if answer.says_not_of_this_key() => Ok(None),
                answer => Err(answer.kms_failure(act, &self.name)),
            },
        }
    }
}

#[async_trait]
impl KeyService for KmsKey {
    fn key(&self) -> &str {
        &self.options.key
    }

    /// An alias may stand for any key. Copies of a key in several regions share the id at the end
    /// of their ARNs.
    fn may_be(&self, full_name: &str) -> bool {
        let configured = self.options.key.as_str();
        is_alias(configured) || id_of(configured) == id_of(full_name)
    }

    async fn encrypt(
        &self,
        plain: &[u8],
        context: &KeyContext,
    ) -> Result<ServiceSealed, StoreError> {
        let attempt = |_| self.encrypt_once(plain, context);
        self.retry.run(self.stalled(Act::Encrypt), attempt).await
    }

    async fn decrypt(
        &self,
        blob: &[u8],
        context: &KeyContext,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let attempt = |_| self.decrypt_once(blob, context);
        self.retry.run(self.stalled(Act::Decrypt), attempt).await
    }
}

/// The region in `arn:aws:kms:REGION:ACCOUNT:key/ID`.
fn region_of(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    let is_arn = parts.next() == Some("arn");
    let region = parts.nth(2)?;
    (is_arn && !region.is_empty()).then_some(region)
}

fn is_alias(key: &str) -> bool {
    key.starts_with("alias/") || key.contains(":alias/")
}

/// The id at the end of a key's ARN, or the id itself.
fn id_of(key: &str) -> &str {
    key.rsplit_once(":key/").map_or(key, |(_, id)| id)
}

/// Whether what is sent to this endpoint stays unseen: over TLS, or on this machine.
fn is_private(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return true };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ is a user's name, and no host.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> KmsKey {
        KmsKey::new(KmsOptions::new(text))
    }

    #[test]
    fn a_key_is_known_by_its_id_and_an_alias_may_be_any() {
        let arn = "arn:aws:kms:eu-central-1:123456789012:key/1234-abcd";
        let copy = "arn:aws:kms:us-east-1:123456789012:key/1234-abcd";
        let other = "arn:aws:kms:eu-central-1:123456789012:key/5678";
        for name in [arn, copy, "1234-abcd"] {
            assert!(key(name).may_be(arn) && !key(name).may_be(other), "{name}");
        }
        for name in ["alias/backup", "arn:aws:kms:eu-central-1:123456789012:alias/backup"] {
            assert!(key(name).may_be(arn) && key(name).may_be(other), "{name}");
        }
    }

    #[test]
    fn an_arn_names_its_region() {
        assert_eq!(region_of("arn:aws:kms:eu-central-1:1:key/x"), Some("eu-central-1"));
        assert_eq!(region_of("arn:aws-cn:kms:cn-north-1:1:alias/x"), Some("cn-north-1"));
        for none in ["alias/backup", "1234-abcd", "arn:aws:kms", "arn:aws:kms::1:key/x", ""] {
            assert_eq!(region_of(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_secret_goes_over_tls_or_stays_on_the_machine() {
        for fine in [
            "https://kms.example",
            "http://127.0.0.1:5000",
            "http://localhost/x",
            "http://[::1]:5000",
        ] {
            assert!(is_private(fine), "{fine}");
        }
        for open in [
            "http://kms.example",
            "http://127.0.0.1.example",
            "http://localhost@kms.example:80",
            "http://10.0.0.1",
            "http://",
        ] {
            assert!(!is_private(open), "{open}");
            let options = KmsOptions { endpoint: Some(open.into()), ..KmsOptions::new("k") };
            let context = KeyContext { name: "a", value: "b".into() };
            let error = KmsKey::new(options).encrypt(b"secret", &context).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{open}");
        }
    }
}
