//! Objects in a bucket of Amazon S3, or of a server that speaks its protocol.
//!
//! The SDK's own retries are off; [`Retry`] does it for everything but `put_once`, which goes
//! through a client that makes a new connection for each request, so that no layer below sends a
//! second time either.

mod as_of;
mod body;
mod client;
mod fault;
mod keeping;
mod list;

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::keeping::{Keeping, LockRequest, Locked};
use crate::key::{Key, Prefix};
use crate::retry::{Again, Failure, Progress, Retry, RetryOptions, SystemTiming, Timing};
use crate::s3_options::{S3Options, ServerSideEncryption, UploadChecksum};
use crate::store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};

pub use as_of::S3AsOf;

use body::{CountUpload, DownloadError, download};
use client::Parts;
use fault::{Answer, Said};

/// A bucket, or a folder of one.
pub struct S3Store {
    url: String,
    bucket: String,
    folder: Prefix,
    options: S3Options,
    retry: Retry,
    parts: Parts,
    client: Client,
    client_once: OnceLock<Client>,
    order: Arc<list::Order>,
}

/// How a put ended, when the server said so.
#[derive(Debug, Clone, Copy)]
enum Settled {
    Created,
    Exists,
}

impl S3Store {
    /// Opens `s3://bucket/folder`. Nothing is asked of the server.
    ///
    /// # Errors
    /// `Invalid` when the URL, the endpoint, the certificate file or the region is missing or
    /// malformed.
    pub async fn open(
        url: &str,
        options: &S3Options,
        retry: &RetryOptions,
    ) -> Result<Self, StoreError> {
        Self::open_with_timing(url, options, retry, Arc::new(SystemTiming::new())).await
    }

    /// As [`open`](Self::open), with a clock for the retries.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_timing(
        url: &str,
        options: &S3Options,
        retry: &RetryOptions,
        timing: Arc<dyn Timing>,
    ) -> Result<Self, StoreError> {
        let (bucket, folder) = take_apart(url)?;
        let parts = Parts::gather(url, options).await?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            bucket,
            folder,
            options: options.clone(),
            retry: Retry::new(retry.clone(), timing),
            client: parts.client(),
            client_once: OnceLock::new(),
            order: Arc::new(list::Order::new(options.listing)),
            parts,
        })
    }

    /// The object's name in the bucket.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.folder)
    }

    fn object(&self, key: &Key) -> String {
        object_name(&self.url, key)
    }

    fn stalled<'a>(&'a self, act: Act, key: &'a Key) -> impl Fn(String) -> StoreError + 'a {
        move |what| StoreError::new(ErrorKind::Unavailable, act, self.object(key), what)
    }

    async fn put(
        &self,
        client: &Client,
        key: &Key,
        body: &Bytes,
        progress: Progress,
    ) -> Result<Settled, Failure> {
        let mut put = client
            .put_object()
            .bucket(&self.bucket)
            .key(self.name(key))
            .if_none_match("*")
            .body(ByteStream::new(SdkBody::from(body.clone())));
        if let UploadChecksum::Crc32c = self.options.checksum {
            put = put.checksum_crc32_c(crc32c_header(body));
        }
        if let Some(class) = &self.options.storage_class {
            put = put.storage_class(class.as_str().into());
        }
        put = match &self.options.encryption {
            ServerSideEncryption::BucketDefault => put,
            ServerSideEncryption::Aes256 => put.server_side_encryption("AES256".into()),
            ServerSideEncryption::Kms { key_id } => {
                put.server_side_encryption("aws:kms".into()).set_ssekms_key_id(key_id.clone())
            }
        };
        let counted = CountUpload::new(body.clone(), progress);
        match put.customize().interceptor(counted).send().await {
            Ok(_) => Ok(Settled::Created),
            Err(error) => match Answer::read(&error) {
                answer if answer.says_exists() => Ok(Settled::Exists),
                answer => Err(answer.failure(Act::Put, self.object(key))),
            },
        }
    }

    async fn get_whole(
        &self,
        key: &Key,
        version: Option<&str>,
        limit_bytes: u64,
        progress: Progress,
    ) -> Result<Bytes, Failure> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.name(key));
        let get = get.set_version_id(version.map(str::to_owned));
        let output = match get.send().await {
            Ok(output) => output,
            Err(error) => return Err(Answer::read(&error).failure(Act::Get, self.object(key))),
        };
        let announced = output.content_length().and_then(|len| u64::try_from(len).ok());
        if let Some(size) = announced
            && size > limit_bytes
        {
            let error = StoreError::too_large(Act::Get, &self.url, key, size, limit_bytes);
            return Err(Failure { error, again: Again::No });
        }
        download(output.body, announced, limit_bytes, &progress)
            .await
            .map_err(|error| self.download_failure(Act::Get, key, error, limit_bytes))
    }

    /// A part that is known to have at least one byte asked for; nothing when the object has none
    /// of them.
    async fn get_part(
        &self,
        key: &Key,
        version: Option<&str>,
        range: &str,
        limit_bytes: u64,
        progress: Progress,
    ) -> Result<Option<RangeRead>, Failure> {
        let act = Act::GetRange;
        let get = self.client.get_object().bucket(&self.bucket).key(self.name(key)).range(range);
        let get = get.set_version_id(version.map(str::to_owned));
        let output = match get.send().await {
            Ok(output) => output,
            Err(error) => match Answer::read(&error) {
                answer if answer.status == Some(416) => return Ok(None),
                answer => return Err(answer.failure(act, self.object(key))),
            },
        };
        let Some(object_size) = output.content_range().and_then(size_of_content_range) else {
            let what = "the server does not tell which part of the object it sent";
            let error = StoreError::new(ErrorKind::Unsupported, act, self.object(key), what);
            return Err(Failure { error, again: Again::No });
        };
        let announced = output.content_length().and_then(|len| u64::try_from(len).ok());
        let bytes = download(output.body, announced, limit_bytes, &progress)
            .await
            .map_err(|error| self.download_failure(act, key, error, limit_bytes))?;
        Ok(Some(RangeRead { bytes, object_size }))
    }

    fn download_failure(
        &self,
        act: Act,
        key: &Key,
        error: DownloadError,
        limit_bytes: u64,
    ) -> Failure {
        let object = self.object(key);
        match error {
            DownloadError::TooLarge => {
                let what = format!("more than the {limit_bytes} bytes that are expected");
                let error = StoreError::new(ErrorKind::Corrupt, act, object, what);
                Failure { error, again: Again::No }
            }
            DownloadError::Short { got, announced } => {
                let what = format!("the answer broke off after {got} of {announced} bytes");
                let error = StoreError::new(ErrorKind::Unavailable, act, object, what);
                Failure { error, again: Again::Yes }
            }
            DownloadError::Broken(cause) => {
                let what = "the answer broke off";
                let error = StoreError::new(ErrorKind::Unavailable, act, object, what)
                    .caused_by(Said(cause.to_string()));
                Failure { error, again: Again::Yes }
            }
        }
    }

    /// One look at an object. A HEAD has no body, so its 404 does not say whether object or bucket
    /// is missing: the bucket is asked for.
    async fn head_once(&self, act: Act, key: &Key) -> Result<ObjectMeta, Failure> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.name(key));
        let answer = match head.send().await {
            Ok(output) => {
                let size = output.content_length().and_then(|len| u64::try_from(len).ok());
                return size.map(|size| ObjectMeta { size }).ok_or_else(|| {
                    let what = "the server does not tell the object's size";
                    let object = self.object(key);
                    let error = StoreError::new(ErrorKind::Unsupported, act, object, what);
                    Failure { error, again: Again::No }
                });
            }
            Err(error) => Answer::read(&error),
        };
        if answer.status != Some(404) || answer.code == "NoSuchBucket" {
            return Err(answer.failure(act, self.object(key)));
        }
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => {
                let error = StoreError::not_found(act, &self.url, key);
                Err(Failure { error, again: Again::No })
            }
            Err(error) => match Answer::read(&error) {
                answer if answer.status == Some(404) => {
                    let what = "the bucket does not exist";
                    let error = StoreError::new(ErrorKind::Invalid, act, &self.url, what);
                    Err(Failure { error, again: Again::No })
                }
                answer => Err(answer.failure(act, &self.url)),
            },
        }
    }

    async fn get_again(
        &self,
        key: &Key,
        version: Option<&str>,
        limit_bytes: u64,
    ) -> Result<Bytes, StoreError> {
        let attempt = |progress| self.get_whole(key, version, limit_bytes, progress);
        self.retry.run(self.stalled(Act::Get, key), attempt).await
    }

    /// The part of an object; nothing when the object has none of the bytes asked for.
    async fn get_range_again(
        &self,
        key: &Key,
        version: Option<&str>,
        range: ByteRange,
    ) -> Result<Option<RangeRead>, StoreError> {
        let act = Act::GetRange;
        let (header, len) = match range {
            ByteRange::At { offset, len } => match offset.checked_add(len) {
                Some(end) => (format!("bytes={offset}-{}", end.saturating_sub(1)), len),
                None => {
                    let what = format!("{range:?} ends beyond 2^64");
                    let object = self.object(key);
                    return Err(StoreError::new(ErrorKind::Invalid, act, object, what));
                }
            },
            ByteRange::Last { len } => (format!("bytes=-{len}"), len),
        };
        // HTTP has no words for an empty range (RFC 9110, 14.1.1).
        if len == 0 {
            return Ok(None);
        }
        let attempt = |progress| self.get_part(key, version, &header, len, progress);
        self.retry.run(self.stalled(act, key), attempt).await
    }

    async fn head_again(&self, act: Act, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.retry.run(self.stalled(act, key), async |_| self.head_once(act, key).await).await
    }
}

fn settled(answer: Result<Settled, StoreError>) -> Put {
    match answer {
        Ok(Settled::Created) => Put::Created,
        Ok(Settled::Exists) => Put::Exists,
        Err(error) => Put::Unknown(error),
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        let attempt = |progress| self.put(&self.client, key, &body, progress);
        settled(self.retry.run(self.stalled(Act::Put, key), attempt).await)
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        let client = self.client_once.get_or_init(|| self.parts.client_once());
        let attempt = |progress| self.put(client, key, &body, progress);
        settled(self.retry.run_once(self.stalled(Act::Put, key), attempt).await)
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.get_again(key, None, limit_bytes).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        match self.get_range_again(key, None, range).await? {
            Some(read) => Ok(read),
            None => {
                let object_size = self.head_again(Act::GetRange, key).await?.size;
                Ok(RangeRead { bytes: Bytes::new(), object_size })
            }
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.head_again(Act::Head, key).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        list::list(self, prefix)
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        list::folders(self, prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let attempt = |_| async {
            let delete = self.client.delete_object().bucket(&self.bucket).key(self.name(key));
            match delete.send().await {
                Ok(_) => Ok(()),
                Err(error) => match Answer::read(&error) {
                    answer if answer.says_no_such_object() => Ok(()),
                    answer => Err(answer.failure(Act::Delete, self.object(key))),
                },
            }
        };
        self.retry.run(self.stalled(Act::Delete, key), attempt).await
    }

    async fn keeping(&self) -> Result<Keeping, StoreError> {
        self.bucket_keeps().await
    }

    async fn lock(&self, key: &Key, request: LockRequest) -> Result<Locked, StoreError> {
        self.extend_lock(key, request).await
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}

/// Bucket and folder of `s3://bucket/folder`.
fn take_apart(url: &str) -> Result<(String, Prefix), StoreError> {
    let invalid = |what: String| {
        StoreError::new(ErrorKind::Invalid, Act::Open, url, what)
            .with_hint("Write s3://bucket/folder, or s3://bucket.")
    };
    let Some(path) = url.strip_prefix("s3://") else {
        return Err(invalid("not an S3 URL".to_owned()));
    };
    let (bucket, folder) = path.trim_end_matches('/').split_once('/').unwrap_or((path, ""));
    let bucket = bucket.trim_end_matches('/');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if bucket.is_empty() || !bucket.bytes().all(allowed) {
        return Err(invalid(format!("{bucket:?} is no name of a bucket")));
    }
    let folder = match folder {
        "" => Prefix::root(),
        folder => Key::parse(folder).map_err(|error| invalid(error.to_string()))?.as_prefix(),
    };
    Ok((bucket.to_owned(), folder))
}

/// The size of the whole object in `bytes 0-9/100`.
fn size_of_content_range(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('/')?.1.parse().ok()
}

/// CRC-32C as S3 takes it: base64 of four bytes, the highest first.
fn crc32c_header(body: &[u8]) -> String {
    data_encoding::BASE64.encode(&crc32c::crc32c(body).to_be_bytes())
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("url", &self.url).field("options", &self.options).finish()
    }
}

#[cfg(test)]
mod tests;
