//! The store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use pgrecall_repo::names;
use pgrecall_repo::random::SharedRandom;
use pgrecall_store::{
    Addressing, Prefix, ProbeReport, RetryOptions, RootPolicy, S3Credentials, S3Options,
    SecretText, ServerSideEncryption, Store, StoreOptions,
};

use crate::config::settings::{PathStyle, S3, Settings};
use crate::failure::{Failure, Kind, Outcome};

/// Racing connections of the probe, and its rounds.
const PROBE_CONNECTIONS: usize = 16;
const PROBE_ROUNDS: u32 = 3;

/// Tries what the store promises, over connections of its own.
///
/// # Errors
/// When the store cannot be opened, or fails.
pub(crate) async fn probe(settings: &Settings) -> Outcome<ProbeReport> {
    let mut stores = Vec::with_capacity(PROBE_CONNECTIONS);
    for _ in 0..PROBE_CONNECTIONS {
        stores.push(open(settings, RootPolicy::MustExist).await?);
    }
    let random = SharedRandom::system();
    let prefix = Prefix::parse(names::store_log().prefix().as_str())
        .map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let mut fill = |buffer: &mut [u8]| random.fill(buffer);
    Ok(pgrecall_store::probe(&stores, &prefix, PROBE_ROUNDS, &mut fill).await?)
}

/// How the settings want the store opened. Secrets are fetched here.
///
/// # Errors
/// When a secret cannot be had, or S3 settings contradict each other.
pub(crate) fn options(settings: &Settings, root: RootPolicy) -> Outcome<StoreOptions> {
    let s3 = &settings.repository.s3;
    let network = settings.repository_url()?.starts_with("s3:");
    if s3.as_of.is_some() && !network {
        return Err(Failure::configuration(
            "only an S3 bucket keeps versions to read the past from",
        )
        .hint("Leave --s3-as-of (repository.s3.as_of) out."));
    }
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
    let url = settings.repository_url()?;
    let opened = pgrecall_store::open(url, options).await?;
    if let Some(moment) = settings.repository.s3.as_of {
        tracing::info!("{url} is read as it was at {moment}; nothing is written");
    }
    Ok(opened)
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
        as_of: s3.as_of.map(Into::into),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::tests::settings_with;

    fn options_of(s3: &str, variables: &[(&str, &str)]) -> Outcome<StoreOptions> {
        let file = format!("[[repository]]\nurl = \"s3://bucket/pg\"\n[repository.s3]\n{s3}");
        options(&settings_with(&file, variables)?, RootPolicy::MustExist)
    }

    #[test]
    fn every_setting_of_s3_reaches_the_store() -> Outcome<()> {
        let text = "endpoint = 'https://s3.example:9000'\nregion = 'eu-1'\npath_style = 'never'\n\
                    ca_file = '/ca.pem'\nconnect_timeout = '7s'\nread_timeout = '8s'\n\
                    operation_timeout = '9min'\nretry_attempts = 11\nretry_budget = '6min'\n\
                    sse = 'aws:kms'\nsse_kms_key_id = 'key-1'\nstorage_class = 'STANDARD_IA'\n\
                    profile = 'backup'\n";
        let StoreOptions { s3, retry, .. } = options_of(text, &[])?;
        assert_eq!(s3.endpoint.as_deref(), Some("https://s3.example:9000"));
        assert_eq!(s3.region.as_deref(), Some("eu-1"));
        assert_eq!(s3.addressing, Addressing::Virtual);
        assert_eq!(s3.ca_file.as_deref(), Some("/ca.pem".as_ref()));
        assert_eq!(s3.connect_timeout, Duration::from_secs(7));
        let kms = ServerSideEncryption::Kms { key_id: Some("key-1".into()) };
        assert_eq!(s3.encryption, kms);
        assert_eq!(s3.storage_class.as_deref(), Some("STANDARD_IA"));
        let S3Credentials::Chain { profile } = &s3.credentials else { panic!("keys") };
        assert_eq!(profile.as_deref(), Some("backup"));
        assert_eq!(retry.attempts_max, 11);
        assert_eq!(retry.attempt_idle_max, Duration::from_secs(8));
        assert_eq!(retry.total_max, Duration::from_secs(540));
        assert_eq!(retry.idle_max, Duration::from_secs(360));
        for (text, addressing) in [("always", Addressing::Path), ("auto", Addressing::Auto)] {
            let s3 = options_of(&format!("path_style = '{text}'\n"), &[])?.s3;
            assert_eq!(s3.addressing, addressing);
        }
        let s3 = options_of("sse = 'AES256'\n", &[])?.s3;
        assert_eq!(s3.encryption, ServerSideEncryption::Aes256);
        Ok(())
    }

    #[test]
    fn keys_come_from_where_they_are_and_never_by_halves() -> Outcome<()> {
        let keys = |s3: &str, variables: &[(&str, &str)]| -> Outcome<(String, bool)> {
            match options_of(s3, variables)?.s3.credentials {
                S3Credentials::Keys { access_key_id, session_token, .. } => {
                    Ok((access_key_id, session_token.is_some()))
                }
                S3Credentials::Chain { .. } => panic!("no keys"),
            }
        };
        let by_command = "access_key_id = 'a'\nsecret_access_key_command = 'echo hush'\n";
        assert_eq!(keys(by_command, &[])?, ("a".to_owned(), false));
        let token = [("PGRECALL_REPOSITORY_S3_SESSION_TOKEN", "of today")];
        assert_eq!(keys(by_command, &token)?, ("a".to_owned(), true));
        for bad in [
            "access_key_id = 'a'\n",
            "secret_access_key_command = 'echo hush'\n",
            "access_key_id = 'a'\nsecret_access_key_command = 'false'\n",
            "access_key_id = 'a'\nsecret_access_key_file = '/nonexistent'\n",
        ] {
            let failure = options_of(bad, &[]).unwrap_err();
            assert_eq!(failure.kind, crate::failure::Kind::Configuration, "{bad}");
        }
        Ok(())
    }
}
