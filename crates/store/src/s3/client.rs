//! Building the SDK's clients: credentials, region, certificates; everything that could send by
//! itself is off.

use std::path::Path;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, BehaviorVersion, Builder, Config, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Act, ErrorKind, StoreError};

use crate::s3_options::{Addressing, S3Credentials, S3Options};

/// What both clients of a store are made of.
#[derive(Clone)]
pub(super) struct Parts {
    config: Config,
    transport: Transport,
}

/// How bytes reach the server.
#[derive(Clone)]
enum Transport {
    Plain,
    Tls(TlsContext),
}

/// Which connections a client takes.
#[derive(Clone, Copy)]
enum Connections {
    Kept,
    Fresh,
}

impl Parts {
    /// Reads settings, environment and files; speaks to nobody, except to the EC2 metadata service
    /// when nothing else names a region.
    pub(super) async fn gather(url: &str, options: &S3Options) -> Result<Self, StoreError> {
        let endpoint = endpoint(url, options)?;
        let transport = match &endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => Transport::Plain,
            _ => Transport::Tls(tls_context(url, options)?),
        };
        // Credentials are fetched over TLS with the system's certificates, whatever the store's
        // endpoint is; this client reads them when it is first used.
        let asking = ProviderConfig::without_region()
            .with_http_client(tls_client(TlsContext::default(), Connections::Kept));
        let region = region(url, options, endpoint.as_deref(), &asking).await?;
        let credentials = credentials(options, &region, asking).await;
        let by_path = match options.addressing {
            Addressing::Path => true,
            Addressing::Virtual => false,
            Addressing::Auto => endpoint.is_some(),
        };
        let timeouts = TimeoutConfig::builder().connect_timeout(options.connect_timeout).build();
        let mut config: Builder = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials)
            .force_path_style(by_path)
            .disable_s3_express_session_auth(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // Our own watch over progress looks at whole acts, over several requests.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Servers other than Amazon's choke on the trailers that the SDK's own checksums come
            // in.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_app_name(AppName::new("pgrecall").ok()).set_endpoint_url(endpoint);
        let config = config.http_client(client(&transport, Connections::Kept)).build();
        Ok(Self { config, transport })
    }

    /// A client that keeps connections.
    pub(super) fn client(&self) -> Client {
        Client::from_conf(self.config.clone())
    }

    /// A client that makes a connection for each request. The HTTP layer sends a request again by
    /// itself when a kept connection turns out to be closed (`retry_canceled_requests` of
    /// hyper-util, which the SDK leaves on), never one that went out on a fresh connection.
    pub(super) fn client_once(&self) -> Client {
        let http = client(&self.transport, Connections::Fresh);
        Client::from_conf(self.config.to_builder().http_client(http).build())
    }
}

fn client(transport: &Transport, connections: Connections) -> SharedHttpClient {
    match transport {
        Transport::Plain => {
            let mut builder = aws_smithy_http_client::Builder::new();
            if let Connections::Fresh = connections {
                builder = builder.pool_max_idle_per_host(0);
            }
            builder.build_http()
        }
        Transport::Tls(context) => tls_client(context.clone(), connections),
    }
}

fn tls_client(context: TlsContext, connections: Connections) -> SharedHttpClient {
    let mut builder = aws_smithy_http_client::Builder::new();
    if let Connections::Fresh = connections {
        builder = builder.pool_max_idle_per_host(0);
    }
    builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https()
}

fn endpoint(url: &str, options: &S3Options) -> Result<Option<String>, StoreError> {
    let from_environment = || {
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let Some(endpoint) = options.endpoint.clone().or_else(from_environment) else {
        return Ok(None);
    };
    if endpoint.starts_with("http://") || endpoint.starts_with("https://") {
        return Ok(Some(endpoint));
    }
    let what = format!("the endpoint {endpoint:?} starts neither with https:// nor http://");
    Err(StoreError::new(ErrorKind::Invalid, Act::Open, url, what))
}

async fn region(
    url: &str,
    options: &S3Options,
    endpoint: Option<&str>,
    asking: &ProviderConfig,
) -> Result<Region, StoreError> {
    if let Some(region) = &options.region {
        return Ok(Region::new(region.clone()));
    }
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return Ok(region);
    }
    let mut profile = ProfileFileRegionProvider::builder().configure(asking);
    if let S3Credentials::Chain { profile: Some(name) } = &options.credentials {
        profile = profile.profile_name(name);
    }
    if let Some(region) = profile.build().region().await {
        return Ok(region);
    }
    if endpoint.is_some() {
        return Ok(Region::new("us-east-1"));
    }
    let instance = ImdsRegionProvider::builder().configure(asking).build();
    instance.region().await.ok_or_else(|| {
        StoreError::new(ErrorKind::Invalid, Act::Open, url, "no region is configured")
            .with_hint("Set the repository's region, or AWS_REGION.")
    })
}

async fn credentials(
    options: &S3Options,
    region: &Region,
    asking: ProviderConfig,
) -> SharedCredentialsProvider {
    match &options.credentials {
        S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
            let token = session_token.as_ref().map(|token| token.expose().to_owned());
            let secret = secret_access_key.expose();
            SharedCredentialsProvider::new(Credentials::new(
                access_key_id,
                secret,
                token,
                None,
                "pgrecall configuration",
            ))
        }
        S3Credentials::Chain { profile } => {
            let mut chain =
                DefaultCredentialsChain::builder().configure(asking).region(region.clone());
            if let Some(profile) = profile {
                chain = chain.profile_name(profile);
            }
            SharedCredentialsProvider::new(chain.build().await)
        }
    }
}

fn tls_context(url: &str, options: &S3Options) -> Result<TlsContext, StoreError> {
    let Some(file) = &options.ca_file else {
        return Ok(TlsContext::default());
    };
    let trust = TrustStore::empty().with_pem_certificate(read_certificates(url, file)?);
    TlsContext::builder().with_trust_store(trust).build().map_err(|error| {
        let what = "the TLS settings are refused";
        StoreError::new(ErrorKind::Invalid, Act::Open, url, what).caused_by(error)
    })
}

/// The bytes of a PEM file that holds certificates. The SDK panics on one that it cannot read,
/// hence the look.
fn read_certificates(url: &str, file: &Path) -> Result<Vec<u8>, StoreError> {
    let invalid = |what: String| StoreError::new(ErrorKind::Invalid, Act::Open, url, what);
    let pem = std::fs::read(file).map_err(|error| {
        invalid(format!("the certificate file {} cannot be read", file.display())).caused_by(error)
    })?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = match certificate {
            Ok(certificate) => roots.add(certificate).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        added.map_err(|error| {
            invalid(format!("the certificate file {} is damaged: {error}", file.display()))
        })?;
    }
    if roots.is_empty() {
        return Err(invalid(format!("{} holds no certificate in PEM", file.display())));
    }
    Ok(pem)
}
