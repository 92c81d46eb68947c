//! The store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use pgrecall_store::{
    Addressing, RetryOptions, RootPolicy, S3Credentials, S3Options, SecretText,
    ServerSideEncryption, Store, StoreOptions,
};

use crate::config::settings::{PathStyle, S3, Settings};
use crate::failure::{Failure, Outcome};

/// How the settings want the store opened. Secrets are fetched here.
///
/// # Errors
/// When a secret cannot be had, or S3 settings contradict each other.
pub(crate) fn options(settings: &Settings, root: RootPolicy) -> Outcome<StoreOptions> {
    let s3 = &settings.repository.s3;
    let network = settings.repository_url()?.starts_with("s3:");
    Ok(StoreOptions {
        root,
        retry: RetryOptions {
            attempts_max: s3.retry_attempts,
            total_max: s3.operation_timeout,
            idle_max: s3.retry_budget,
            attempt_idle_max: s3.read_timeout,
            ..RetryOptions::default()
        },
        s3: if network { s3_options(s3, settings.secrets_within)? } else { S3Options::default() },
    })
}

/// Opens the store as the settings say.
///
/// # Errors
/// As [`options`], and when the store cannot be opened.
pub(crate) async fn open(settings: &Settings, root: RootPolicy) -> Outcome<Arc<dyn Store>> {
    open_with(settings, &options(settings, root)?).await
}

/// Opens the store with options of one's own, such as shorter time-outs.
///
/// # Errors
/// When the store cannot be opened.
pub(crate) async fn open_with(
    settings: &Settings,
    options: &StoreOptions,
) -> Outcome<Arc<dyn Store>> {
    Ok(pgrecall_store::open(settings.repository_url()?, options).await?)
}

fn s3_options(s3: &S3, within: Duration) -> Outcome<S3Options> {
    Ok(S3Options {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        addressing: match s3.path_style {
            PathStyle::Auto => Addressing::Auto,
            PathStyle::Always => Addressing::Path,
            PathStyle::Never => Addressing::Virtual,
        },
        credentials: credentials(s3, within)?,
        ca_file: s3.ca_file.clone(),
        connect_timeout: s3.connect_timeout,
        encryption: match s3.sse.as_deref() {
            Some("AES256") => ServerSideEncryption::Aes256,
            Some(_) => ServerSideEncryption::Kms { key_id: s3.sse_kms_key_id.clone() },
            None => ServerSideEncryption::BucketDefault,
        },
        storage_class: s3.storage_class.clone(),
        ..S3Options::default()
    })
}

fn credentials(s3: &S3, within: Duration) -> Outcome<S3Credentials> {
    match (&s3.access_key_id, &s3.secret_access_key) {
        (Some(id), Some(secret)) => {
            let secret = secret.obtain("secret of the S3 access key", within)?;
            Ok(S3Credentials::Keys {
                access_key_id: id.clone(),
                secret_access_key: SecretText::new(secret.expose()),
                session_token: s3.session_token.as_ref().map(|t| SecretText::new(t.expose())),
            })
        }
        (None, None) => Ok(S3Credentials::Chain { profile: s3.profile.clone() }),
        (Some(_), None) => {
            Err(Failure::configuration("repository.s3.access_key_id is set without its secret")
                .hint(
                    "Set secret_access_key_file or secret_access_key_command in [repository.s3] \
                     too, or neither to use the standard AWS chain.",
                ))
        }
        (None, Some(_)) => Err(Failure::configuration(
            "the secret of an S3 access key is set without repository.s3.access_key_id",
        )),
    }
}
