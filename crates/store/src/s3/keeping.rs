//! What a bucket keeps, and longer locks for objects in it.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockConfiguration, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode,
};

use crate::error::{Act, ErrorKind, StoreError};
use crate::keeping::{DefaultLock, Keeping, LockMode, LockRequest, Locked, Versions};
use crate::key::Key;
use crate::retry::{Again, Failure};

use super::S3Store;
use super::fault::Answer;

/// Days of a year of S3 ("Years" of a default retention).
const DAYS_OF_A_YEAR: u32 = 365;

impl S3Store {
    pub(super) async fn bucket_keeps(&self) -> Result<Keeping, StoreError> {
        Ok(Keeping { versions: self.versions().await?, lock: self.default_lock().await? })
    }

    async fn versions(&self) -> Result<Versions, StoreError> {
        let attempt = |_| async {
            match self.client.get_bucket_versioning().bucket(&self.bucket).send().await {
                Ok(output) => Ok(match output.status() {
                    Some(BucketVersioningStatus::Enabled) => Versions::Kept,
                    Some(BucketVersioningStatus::Suspended) => Versions::Suspended,
                    _ => Versions::None,
                }),
                Err(error) => match Answer::read(&error) {
                    answer if answer.is_not_known_to_the_server() => Ok(Versions::None),
                    answer => Err(answer.failure(Act::Open, &self.url)),
                },
            }
        };
        unless_denied(self.retry.run(self.silent(), attempt).await, Versions::Unknown)
    }

    async fn default_lock(&self) -> Result<DefaultLock, StoreError> {
        let attempt = |_| async {
            let get = self.client.get_object_lock_configuration().bucket(&self.bucket);
            match get.send().await {
                Ok(output) => Ok(default_of(output.object_lock_configuration())),
                Err(error) => match Answer::read(&error) {
                    // "ObjectLockConfigurationNotFoundError": the bucket has none.
                    answer if answer.code.starts_with("ObjectLockConfiguration") => {
                        Ok(DefaultLock::None)
                    }
                    answer if answer.is_not_known_to_the_server() => Ok(DefaultLock::None),
                    answer => Err(answer.failure(Act::Open, &self.url)),
                },
            }
        };
        unless_denied(self.retry.run(self.silent(), attempt).await, DefaultLock::Unknown)
    }

    fn silent(&self) -> impl Fn(String) -> StoreError + '_ {
        |what| StoreError::new(ErrorKind::Unavailable, Act::Open, &self.url, what)
    }

    pub(super) async fn extend_lock(
        &self,
        key: &Key,
        request: LockRequest,
    ) -> Result<Locked, StoreError> {
        let attempt = |_| self.extend_once(key, request);
        self.retry.run(self.stalled(Act::Lock, key), attempt).await
    }

    async fn extend_once(&self, key: &Key, request: LockRequest) -> Result<Locked, Failure> {
        let failed = |answer: Answer| answer.failure(Act::Lock, self.object(key));
        let head = self.client.head_object().bucket(&self.bucket).key(self.name(key));
        let output = match head.send().await {
            Ok(output) => output,
            Err(error) => match Answer::read(&error) {
                // A HEAD has no body that says so.
                answer if answer.status == Some(404) => {
                    let error = StoreError::not_found(Act::Lock, &self.url, key);
                    return Err(Failure { error, again: Again::No });
                }
                answer => return Err(failed(answer)),
            },
        };
        let until = output.object_lock_retain_until_date().map(DateTime::secs);
        if until.is_some_and(|secs| secs >= request.enough_secs) {
            return Ok(Locked::Enough);
        }
        // A lock of one mode does not become one of another.
        let mode = match output.object_lock_mode() {
            Some(ObjectLockMode::Compliance) => LockMode::Compliance,
            Some(ObjectLockMode::Governance) => LockMode::Governance,
            _ => request.mode,
        };
        let mode = match mode {
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
            LockMode::Governance => ObjectLockRetentionMode::Governance,
        };
        let retention = ObjectLockRetention::builder()
            .mode(mode)
            .retain_until_date(DateTime::from_secs(request.until_secs))
            .build();
        let put = self.client.put_object_retention().bucket(&self.bucket).key(self.name(key));
        let put = put.set_version_id(output.version_id().map(str::to_owned));
        match put.retention(retention).send().await {
            Ok(_) => Ok(Locked::Extended),
            Err(error) => Err(failed(Answer::read(&error))),
        }
    }
}

fn default_of(configuration: Option<&ObjectLockConfiguration>) -> DefaultLock {
    let rule = configuration.and_then(ObjectLockConfiguration::rule);
    let Some(retention) = rule.and_then(|rule| rule.default_retention()) else {
        return DefaultLock::None;
    };
    let mode = match retention.mode() {
        Some(ObjectLockRetentionMode::Compliance) => LockMode::Compliance,
        Some(ObjectLockRetentionMode::Governance) => LockMode::Governance,
        _ => return DefaultLock::None,
    };
    let years = retention.years().map(|years| years.saturating_mul(DAYS_OF_A_YEAR.cast_signed()));
    match retention.days().or(years).and_then(|days| u32::try_from(days).ok()) {
        None | Some(0) => DefaultLock::None,
        Some(days) => DefaultLock::Days { mode, days },
    }
}

fn unless_denied<T>(answer: Result<T, StoreError>, unknown: T) -> Result<T, StoreError> {
    match answer {
        Err(error) if error.kind() == ErrorKind::Denied => Ok(unknown),
        other => other,
    }
}
