//! What clients of Amazon's services, and of servers that speak their protocols, are made of:
//! credentials, region, certificates, connections. Nothing here sends by itself.

pub(crate) mod answer;

use std::path::Path;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Act, ErrorKind, StoreError};
use crate::s3_options::S3Credentials;

/// Where a service is, and who asks it.
pub(crate) struct Site<'a> {
    /// What messages call it.
    pub(crate) name: &'a str,
    /// Its address; Amazon's own without one.
    pub(crate) endpoint: Option<String>,
    /// The region, if somebody has said which.
    pub(crate) region: Option<&'a str>,
    /// What to do where nobody has, and nothing tells it: a whole sentence.
    pub(crate) region_hint: &'static str,
    /// Who asks.
    pub(crate) credentials: &'a S3Credentials,
    /// Whom to trust in place of the system's authorities.
    pub(crate) ca_file: Option<&'a Path>,
}

/// Who asks, and in which region.
pub(crate) struct Identity {
    pub(crate) region: Region,
    pub(crate) credentials: SharedCredentialsProvider,
}

/// How bytes reach the server.
#[derive(Clone)]
pub(crate) enum Transport {
    Plain,
    Tls(TlsContext),
}

/// Which connections a client takes.
#[derive(Clone, Copy)]
pub(crate) enum Connections {
    Kept,
    Fresh,
}

impl Transport {
    /// A client that speaks so.
    pub(crate) fn client(&self, connections: Connections) -> SharedHttpClient {
        match self {
            Self::Plain => {
                let mut builder = aws_smithy_http_client::Builder::new();
                if let Connections::Fresh = connections {
                    builder = builder.pool_max_idle_per_host(0);
                }
                builder.build_http()
            }
            Self::Tls(context) => tls_client(context.clone(), connections),
        }
    }
}

fn tls_client(context: TlsContext, connections: Connections) -> SharedHttpClient {
    let mut builder = aws_smithy_http_client::Builder::new();
    if let Connections::Fresh = connections {
        builder = builder.pool_max_idle_per_host(0);
    }
    builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https()
}

/// The address that was given, else that of the first of these variables that is set.
pub(crate) fn endpoint(
    name: &str,
    given: Option<&str>,
    variables: &[&str],
) -> Result<Option<String>, StoreError> {
    let from_environment = || {
        variables.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let Some(endpoint) = given.map(str::to_owned).or_else(from_environment) else {
        return Ok(None);
    };
    if endpoint.starts_with("http://") || endpoint.starts_with("https://") {
        return Ok(Some(endpoint));
    }
    let what = format!("the endpoint {endpoint:?} starts neither with https:// nor http://");
    Err(StoreError::new(ErrorKind::Invalid, Act::Open, name, what))
}

impl Site<'_> {
    /// How the server is spoken to.
    pub(crate) fn transport(&self) -> Result<Transport, StoreError> {
        match &self.endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => Ok(Transport::Plain),
            _ => Ok(Transport::Tls(self.tls_context()?)),
        }
    }

    /// Reads settings, environment and files; speaks to nobody, except to the EC2 metadata service
    /// when nothing else names a region.
    pub(crate) async fn identity(&self) -> Result<Identity, StoreError> {
        // Credentials are fetched over TLS with the system's certificates, whatever the service's
        // endpoint is; this client reads them when it is first used.
        let asking = ProviderConfig::without_region()
            .with_http_client(tls_client(TlsContext::default(), Connections::Kept));
        let region = self.settled_region(&asking).await?;
        let credentials = self.provider(&region, asking).await;
        Ok(Identity { region, credentials })
    }

    async fn settled_region(&self, asking: &ProviderConfig) -> Result<Region, StoreError> {
        if let Some(region) = self.region {
            return Ok(Region::new(region.to_owned()));
        }
        if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
            return Ok(region);
        }
        let mut profile = ProfileFileRegionProvider::builder().configure(asking);
        if let S3Credentials::Chain { profile: Some(name) } = self.credentials {
            profile = profile.profile_name(name);
        }
        if let Some(region) = profile.build().region().await {
            return Ok(region);
        }
        if self.endpoint.is_some() {
            return Ok(Region::new("us-east-1"));
        }
        let instance = ImdsRegionProvider::builder().configure(asking).build();
        instance.region().await.ok_or_else(|| {
            let what = "no region is configured";
            StoreError::new(ErrorKind::Invalid, Act::Open, self.name, what)
                .with_hint(self.region_hint)
        })
    }

    async fn provider(&self, region: &Region, asking: ProviderConfig) -> SharedCredentialsProvider {
        match self.credentials {
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

    fn tls_context(&self) -> Result<TlsContext, StoreError> {
        let Some(file) = self.ca_file else {
            return Ok(TlsContext::default());
        };
        let trust = TrustStore::empty().with_pem_certificate(read_certificates(self.name, file)?);
        TlsContext::builder().with_trust_store(trust).build().map_err(|error| {
            let what = "the TLS settings are refused";
            StoreError::new(ErrorKind::Invalid, Act::Open, self.name, what).caused_by(error)
        })
    }
}

/// The bytes of a PEM file that holds certificates. The SDK panics on one that it cannot read,
/// hence the look.
fn read_certificates(name: &str, file: &Path) -> Result<Vec<u8>, StoreError> {
    let invalid = |what: String| StoreError::new(ErrorKind::Invalid, Act::Open, name, what);
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
