//! Building the S3 clients of a store; everything that could send by itself is off.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, BehaviorVersion, Builder, Config, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};

use crate::aws::{Connections, Site, Transport, endpoint};
use crate::error::StoreError;
use crate::s3_options::{Addressing, S3Options};

/// What both clients of a store are made of.
#[derive(Clone)]
pub(super) struct Parts {
    config: Config,
    transport: Transport,
}

impl Parts {
    /// Reads settings, environment and files; speaks to nobody, except to the EC2 metadata service
    /// when nothing else names a region.
    pub(super) async fn gather(url: &str, options: &S3Options) -> Result<Self, StoreError> {
        let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        let site = Site {
            name: url,
            endpoint: endpoint(url, options.endpoint.as_deref(), &variables)?,
            region: options.region.as_deref(),
            region_hint: "Set the repository's region, or AWS_REGION.",
            credentials: &options.credentials,
            ca_file: options.ca_file.as_deref(),
        };
        let transport = site.transport()?;
        let identity = site.identity().await?;
        let by_path = match options.addressing {
            Addressing::Path => true,
            Addressing::Virtual => false,
            Addressing::Auto => site.endpoint.is_some(),
        };
        let timeouts = TimeoutConfig::builder().connect_timeout(options.connect_timeout).build();
        let mut config: Builder = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(identity.region)
            .credentials_provider(identity.credentials)
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
        config.set_app_name(AppName::new("pgrecall").ok()).set_endpoint_url(site.endpoint);
        let config = config.http_client(transport.client(Connections::Kept)).build();
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
        let http = self.transport.client(Connections::Fresh);
        Client::from_conf(self.config.to_builder().http_client(http).build())
    }
}
