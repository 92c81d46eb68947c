//! The key management service that the settings name.

use std::sync::Arc;
use std::time::Duration;

use pgrecall_repo::keys::Unlock;
use pgrecall_store::{KmsKey, KmsOptions, S3Credentials};

use crate::config::settings::{Encryption, SECRETS_WITHIN, Settings};

/// The KMS key that opens the repository for this host, if that is what does: where there is no key
/// file.
pub(crate) fn in_force(settings: &Settings) -> Option<&str> {
    let repository = &settings.repository;
    let is_encrypted = repository.encryption != Encryption::Clear;
    // A file that cannot be looked at is no missing one.
    let has_file = || repository.key_file.try_exists().unwrap_or(true);
    repository.kms.key.as_deref().filter(|_| is_encrypted && !has_file())
}

/// A key of KMS, reached as the settings say. Nothing is asked of it yet.
pub(crate) fn unlock(settings: &Settings, key: &str) -> Unlock {
    Unlock::Kms(Arc::new(KmsKey::new(options(settings, key))))
}

fn options(settings: &Settings, key: &str) -> KmsOptions {
    let kms = &settings.repository.kms;
    let options = KmsOptions {
        endpoint: kms.endpoint.clone(),
        region: kms.region.clone(),
        credentials: S3Credentials::Chain { profile: kms.profile.clone() },
        ca_file: kms.ca_file.clone(),
        ..KmsOptions::new(key)
    };
    options.within(kms.timeout.min(hurried(settings.secrets_within)))
}

/// Where PostgreSQL waits, somewhat less than it may go without progress: else it would be the
/// repository's store of which that is told.
fn hurried(within: Duration) -> Duration {
    if within < SECRETS_WITHIN { within * 4 / 5 } else { within }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::tests::settings_with;
    use crate::failure::Outcome;

    #[test]
    fn every_setting_of_kms_reaches_the_service() -> Outcome<()> {
        let text = "[[repository]]\nkms_key = 'alias/x'\n[repository.kms]\n\
                    endpoint = 'https://kms.example'\nregion = 'eu-1'\nprofile = 'backup'\n\
                    ca_file = '/ca.pem'\ntimeout = '7s'\n";
        let mut settings = settings_with(text, &[])?;
        assert_eq!(in_force(&settings), Some("alias/x"));
        let made = options(&settings, "alias/x");
        assert_eq!(made.key, "alias/x");
        assert_eq!(made.endpoint.as_deref(), Some("https://kms.example"));
        assert_eq!(made.region.as_deref(), Some("eu-1"));
        assert_eq!(made.ca_file.as_deref(), Some("/ca.pem".as_ref()));
        let S3Credentials::Chain { profile } = &made.credentials else { panic!("keys") };
        assert_eq!(profile.as_deref(), Some("backup"));
        assert_eq!(made.retry.total_max, Duration::from_secs(7));
        settings.secrets_within = Duration::from_secs(5);
        assert_eq!(options(&settings, "alias/x").retry.total_max, Duration::from_secs(4));
        Ok(())
    }

    #[test]
    fn a_key_file_goes_before_kms_and_kms_before_a_passphrase() -> Outcome<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = folder.path().join("main.key");
        let text = format!(
            "[[repository]]\nkey_file = '{}'\nkms_key = 'alias/x'\npassphrase_command = 'echo x'\n",
            key.display()
        );
        let settings = settings_with(&text, &[])?;
        let unlock = super::super::repository::unlock(&settings)?;
        assert_eq!(format!("{unlock:?}"), "Unlock::Kms(alias/x)");
        std::fs::write(&key, "no key").expect("a file");
        assert_eq!(in_force(&settings), None);
        let failure = super::super::repository::unlock(&settings).expect_err("a key file is read");
        assert!(failure.to_string().contains("main.key"), "{failure}");
        Ok(())
    }
}
