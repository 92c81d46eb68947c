//! Somebody with an S3 key who does what the product never does: puts over what is there, deletes
//! versions, makes buckets and their policies.

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{BehaviorVersion, Config, Region, retry::RetryConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use aws_sdk_s3::{Client, operation::list_object_versions::ListObjectVersionsOutput};

/// A user of one bucket.
#[derive(Debug, Clone)]
pub struct S3User {
    client: Client,
    bucket: String,
}

/// What a server said to a request: nothing, or the code of an error, such as `AccessDenied`.
pub type Said = Result<(), String>;

/// A version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object.
    pub key: String,
    /// The version.
    pub id: String,
    /// When the server took it, in seconds since 1970.
    pub secs: i64,
    /// Whether it is what a plain get gives.
    pub is_latest: bool,
}

fn said<T, E: ProvideErrorMetadata, R>(answer: Result<T, SdkError<E, R>>) -> Result<T, String> {
    answer.map_err(|error| match &error {
        SdkError::ServiceError(service) => {
            service.err().code().unwrap_or("an error without a code").to_owned()
        }
        _ => "no answer".to_owned(),
    })
}

impl S3User {
    /// Somebody with this key (id and secret), at this server and bucket.
    #[must_use]
    pub fn new(endpoint: &str, (id, secret): (&str, &str), bucket: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(id, secret, None, None, "test"))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self { client: Client::from_conf(config), bucket: bucket.to_owned() }
    }

    /// Makes the bucket so that what is put can be neither changed nor deleted for a day by anybody.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_locked_bucket(&self) -> Said {
        let create = self.client.create_bucket().bucket(&self.bucket);
        said(create.object_lock_enabled_for_bucket(true).send().await)?;
        self.lock_what_is_put(1).await
    }

    /// Has the bucket lock what is put from now on for so many days.
    ///
    /// # Errors
    /// What the server says.
    pub async fn lock_what_is_put(&self, days: i32) -> Said {
        let mode = ObjectLockRetentionMode::Compliance;
        let retention = DefaultRetention::builder().mode(mode).days(days).build();
        let configuration = ObjectLockConfiguration::builder()
            .object_lock_enabled(ObjectLockEnabled::Enabled)
            .rule(ObjectLockRule::builder().default_retention(retention).build())
            .build();
        let put = self.client.put_object_lock_configuration().bucket(&self.bucket);
        said(put.object_lock_configuration(configuration).send().await).map(drop)
    }

    /// Until when an object is locked, in seconds since 1970; nothing where it is not.
    ///
    /// # Panics
    /// When the server does not tell.
    pub async fn locked_until(&self, key: &str) -> Option<i64> {
        let head = self.client.head_object().bucket(&self.bucket).key(key);
        let output = said(head.send().await).expect("the server tells of the object");
        output.object_lock_retain_until_date().map(DateTime::secs)
    }

    /// Sets the bucket's policy, JSON.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put_policy(&self, policy: &str) -> Said {
        let put = self.client.put_bucket_policy().bucket(&self.bucket).policy(policy);
        said(put.send().await).map(drop)
    }

    /// Puts an object whether there is one of that name or not.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put_over(&self, key: &str, body: &[u8]) -> Said {
        let put = self.client.put_object().bucket(&self.bucket).key(key);
        said(put.body(ByteStream::from(body.to_vec())).send().await).map(drop)
    }

    /// Deletes an object, or one version of it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn delete(&self, key: &str, version: Option<&str>) -> Said {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key);
        said(delete.set_version_id(version.map(str::to_owned)).send().await).map(drop)
    }

    /// Begins to keep versions.
    ///
    /// # Errors
    /// What the server says.
    pub async fn keep_versions(&self) -> Said {
        self.set_versioning(BucketVersioningStatus::Enabled).await
    }

    /// Suspends the keeping of versions.
    ///
    /// # Errors
    /// What the server says.
    pub async fn suspend_versioning(&self) -> Said {
        self.set_versioning(BucketVersioningStatus::Suspended).await
    }

    async fn set_versioning(&self, status: BucketVersioningStatus) -> Said {
        let configuration = VersioningConfiguration::builder().status(status).build();
        let put = self.client.put_bucket_versioning().bucket(&self.bucket);
        said(put.versioning_configuration(configuration).send().await).map(drop)
    }

    /// All versions of all objects, the newest of each first; a deletion is none.
    ///
    /// # Panics
    /// When the server does not list them.
    pub async fn versions(&self) -> Vec<ObjectVersion> {
        let (mut versions, mut page) = (Vec::new(), self.page(None, None).await);
        loop {
            versions.extend(page.versions().iter().map(|version| ObjectVersion {
                key: version.key().unwrap_or_default().to_owned(),
                id: version.version_id().unwrap_or_default().to_owned(),
                secs: version.last_modified().map_or(0, DateTime::secs),
                is_latest: version.is_latest().unwrap_or_default(),
            }));
            if page.is_truncated() != Some(true) {
                return versions;
            }
            page = self.page(page.next_key_marker(), page.next_version_id_marker()).await;
        }
    }

    async fn page(&self, key: Option<&str>, version: Option<&str>) -> ListObjectVersionsOutput {
        let list = self.client.list_object_versions().bucket(&self.bucket);
        let list = list.set_key_marker(key.map(str::to_owned));
        let list = list.set_version_id_marker(version.map(str::to_owned));
        said(list.send().await).expect("the server lists versions")
    }
}
