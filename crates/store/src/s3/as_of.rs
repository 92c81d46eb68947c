//! A bucket as it was at a moment of the past, from the versions that it has kept: for a repository
//! in which somebody has deleted or replaced objects since.
//!
//! Of each name the last version counts that was there at the moment, and nothing if it was
//! deleted then. The server's clock gave the versions their times, so that nobody who may only put
//! and delete can date anything back. Nothing is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::EncodingType;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use crate::error::{Act, ErrorKind, StoreError};
use crate::keeping::Keeping;
use crate::key::{Key, Prefix};
use crate::retry::{Again, Failure};
use crate::store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};

use super::S3Store;
use super::fault::Answer;
use super::list::{Look, decode, nonsense};

/// A bucket, or a folder of one, as it was.
#[derive(Debug)]
pub struct S3AsOf {
    store: S3Store,
    /// Seconds since 1970: the server tells no finer ones.
    moment_secs: i64,
    /// What is known of names already; the state of the past does not change.
    known: Mutex<HashMap<Key, Option<Version>>>,
}

/// What a name stood for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    id: String,
    size: u64,
}

/// What the listing of versions has told of a name up to the moment.
#[derive(Debug, Default)]
struct Past {
    /// The last version, with its time.
    last: Option<(i64, Version)>,
    /// When it was deleted last, and whether that holds to this day.
    deleted: Option<(i64, bool)>,
}

impl Past {
    fn version(self) -> Option<Version> {
        let (put_secs, version) = self.last?;
        match self.deleted {
            Some((secs, _)) if secs > put_secs => None,
            // Within one second nobody can tell, unless it is the state of today.
            Some((secs, true)) if secs == put_secs => None,
            _ => Some(version),
        }
    }
}

/// One answer: what it says by name, whether of a folder, and where the next one begins.
#[derive(Default)]
struct Page {
    folders: Vec<Prefix>,
    next: Option<(String, Option<String>)>,
}

impl S3AsOf {
    /// The past of a store.
    ///
    /// # Errors
    /// `Unsupported` when the bucket keeps no versions; `Invalid` for a moment before 1970.
    pub async fn open(store: S3Store, moment: SystemTime) -> Result<Self, StoreError> {
        let secs = moment.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        let Some(moment_secs) = secs.ok().and_then(|secs| i64::try_from(secs).ok()) else {
            let what = "there were no buckets at that time";
            return Err(StoreError::new(ErrorKind::Invalid, Act::Open, &store.url, what));
        };
        let opened = Self { store, moment_secs, known: Mutex::default() };
        opened.require_versions().await?;
        Ok(opened)
    }

    /// Without versions nothing of what was is left, and today's state would pass for it.
    async fn require_versions(&self) -> Result<(), StoreError> {
        let store = &self.store;
        let stalled =
            |what: String| StoreError::new(ErrorKind::Unavailable, Act::Open, &store.url, what);
        let attempt = |_| async {
            match store.client.get_bucket_versioning().bucket(&store.bucket).send().await {
                Ok(output) => Ok(output.status().cloned()),
                Err(error) => Err(Answer::read(&error).failure(Act::Open, &store.url)),
            }
        };
        match store.retry.run(stalled, attempt).await? {
            Some(_) => Ok(()),
            None => {
                let what = "the bucket keeps no versions of its objects, so nothing is left of \
                            what was";
                Err(StoreError::new(ErrorKind::Unsupported, Act::Open, &store.url, what))
            }
        }
    }

    /// Every name below a prefix with what it stood for. A server that thinks in folders loses
    /// names where one page ends in a folder and the next begins: it is asked for each folder by
    /// itself.
    async fn list_below(&self, below: &str) -> Result<BTreeMap<Key, Past>, StoreError> {
        let mut names = BTreeMap::new();
        let first = self.page(below, None, None, &mut names).await?;
        if first.next.is_none() {
            return Ok(names);
        }
        if !self.store.order.is_by_folder() {
            return Ok(self.list_versions(below, None).await?.0);
        }
        names.clear();
        let mut waiting = vec![below.to_owned()];
        while let Some(folder) = waiting.pop() {
            let (found, folders) = self.list_versions(&folder, Some("/")).await?;
            names.extend(found);
            let inner = folders.iter().map(|inner| format!("{}{inner}", self.store.folder));
            // Only ever downwards, whatever the server says.
            waiting.extend(inner.filter(|inner| inner.len() > folder.len()));
        }
        Ok(names)
    }

    /// The same of one listing; of one folder alone, with the folders in it, by a delimiter.
    async fn list_versions(
        &self,
        below: &str,
        delimiter: Option<&str>,
    ) -> Result<(BTreeMap<Key, Past>, Vec<Prefix>), StoreError> {
        let (mut names, mut folders) = (BTreeMap::<Key, Past>::new(), Vec::new());
        let mut from = None;
        loop {
            let page = self.page(below, delimiter, from.clone(), &mut names).await?;
            folders.extend(page.folders);
            if page.next.is_none() {
                break;
            }
            if page.next == from {
                let what = "the server lists the same versions again and again";
                return Err(nonsense(&self.store, what).error);
            }
            from = page.next;
        }
        folders.sort_unstable();
        folders.dedup();
        Ok((names, folders))
    }

    async fn page(
        &self,
        below: &str,
        delimiter: Option<&str>,
        from: Option<(String, Option<String>)>,
        names: &mut BTreeMap<Key, Past>,
    ) -> Result<Page, StoreError> {
        let store = &self.store;
        let stalled =
            |what: String| StoreError::new(ErrorKind::Unavailable, Act::List, &store.url, what);
        let (key, version) = from.unzip();
        let attempt = |_| async {
            let is_whole = Arc::new(AtomicBool::new(false));
            let (order, end) = (Arc::clone(&store.order), "ListVersionsResult>");
            let look = Look { order, is_whole: Arc::clone(&is_whole), end };
            let answer = store
                .client
                .list_object_versions()
                .bucket(&store.bucket)
                .prefix(below)
                .set_delimiter(delimiter.map(str::to_owned))
                .encoding_type(EncodingType::Url)
                .set_key_marker(key.clone())
                .set_version_id_marker(version.clone().flatten())
                .customize()
                .interceptor(look)
                .send()
                .await;
            match answer {
                Ok(output) if is_whole.load(Ordering::Relaxed) => Ok(output),
                Ok(_) => {
                    let error = stalled("the answer was cut short".to_owned());
                    Err(Failure { error, again: Again::Yes })
                }
                Err(error) => Err(Answer::read(&error).failure(Act::List, &store.url)),
            }
        };
        let output = store.retry.run(stalled, attempt).await?;
        self.read(&output, names).map_err(|failure| failure.error)
    }

    fn read(
        &self,
        output: &ListObjectVersionsOutput,
        names: &mut BTreeMap<Key, Past>,
    ) -> Result<Page, Failure> {
        let store = &self.store;
        let decoded = |name: &str| match output.encoding_type() {
            Some(_) => decode(name),
            None => name.to_owned(),
        };
        let ours = |name: Option<&str>| {
            let name = decoded(name.unwrap_or_default());
            name.strip_prefix(store.folder.as_str()).and_then(|name| Key::parse(name).ok())
        };
        let in_time = |time: &DateTime| Some(time.secs()).filter(|secs| *secs <= self.moment_secs);
        for version in output.versions() {
            let Some(key) = ours(version.key()) else { continue };
            let Some(time) = version.last_modified() else {
                return Err(nonsense(store, "the server lists a version without its time"));
            };
            let Some(secs) = in_time(time) else { continue };
            let past = names.entry(key).or_default();
            // The newest comes first.
            if past.last.as_ref().is_some_and(|(last, _)| *last >= secs) {
                continue;
            }
            let size = version.size().and_then(|size| u64::try_from(size).ok());
            let (Some(size), Some(id)) = (size, version.version_id()) else {
                let what = "the server lists a version without its id or size";
                return Err(nonsense(store, what));
            };
            past.last = Some((secs, Version { id: id.to_owned(), size }));
        }
        for marker in output.delete_markers() {
            let Some(key) = ours(marker.key()) else { continue };
            let Some(time) = marker.last_modified() else {
                return Err(nonsense(store, "the server lists a deletion without its time"));
            };
            let Some(secs) = in_time(time) else { continue };
            let past = names.entry(key).or_default();
            let holds = marker.is_latest().unwrap_or(false);
            if past.deleted.is_none_or(|(last, _)| last < secs) {
                past.deleted = Some((secs, holds));
            }
        }
        let mut page = Page::default();
        for folder in output.common_prefixes() {
            let name = decoded(folder.prefix().unwrap_or_default());
            let ours = name.strip_prefix(store.folder.as_str()).map(Prefix::parse);
            page.folders.extend(ours.and_then(Result::ok));
        }
        page.next = match (output.is_truncated(), output.next_key_marker()) {
            (Some(true), Some(key)) if !key.is_empty() => {
                Some((decoded(key), output.next_version_id_marker().map(str::to_owned)))
            }
            (Some(true), _) => {
                let what = "the server says that there is more, but not how to get it";
                return Err(nonsense(store, what));
            }
            _ => None,
        };
        Ok(page)
    }

    /// Whether anything was there below a prefix.
    async fn had_any(&self, below: &str) -> Result<bool, StoreError> {
        let mut names = BTreeMap::new();
        let first = self.page(below, None, None, &mut names).await?;
        // Of the last name of a page there may be more on the next, but no later version.
        let is_there = |past: &Past| past.last.is_some() && past.deleted.is_none();
        if first.next.is_some() && !names.values().any(is_there) {
            names = self.list_below(below).await?;
        }
        Ok(names.into_values().any(|past| past.version().is_some()))
    }

    fn remember(&self, names: BTreeMap<Key, Past>) -> Vec<Listed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listed = Vec::new();
        for (key, past) in names {
            let version = past.version();
            if let Some(version) = &version {
                listed.push(Listed { key: key.clone(), size: version.size });
            }
            known.insert(key, version);
        }
        listed
    }

    fn recall(&self, key: &Key) -> Option<Option<Version>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// What a name stood for.
    async fn find(&self, act: Act, key: &Key) -> Result<Version, StoreError> {
        let found = match self.recall(key) {
            Some(known) => known,
            None => {
                let below = self.store.name(key);
                let (mut names, _) = self.list_versions(&below, Some("/")).await?;
                names.entry(key.clone()).or_default();
                self.remember(names);
                self.recall(key).flatten()
            }
        };
        found.ok_or_else(|| StoreError::not_found(act, &self.store.url, key))
    }

    fn refusal(&self, act: Act, key: &Key) -> StoreError {
        let what = "the bucket is read as it was in the past, and nothing is written";
        StoreError::new(ErrorKind::Invalid, act, self.store.object(key), what)
            .with_hint("Leave --s3-as-of (repository.s3.as_of) out for commands that write.")
    }
}

#[async_trait]
impl Store for S3AsOf {
    async fn put_if_absent(&self, key: &Key, _: Bytes) -> Put {
        Put::Unknown(self.refusal(Act::Put, key))
    }

    async fn put_once(&self, key: &Key, _: Bytes) -> Put {
        Put::Unknown(self.refusal(Act::Put, key))
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let version = self.find(Act::Get, key).await?;
        self.store.get_again(key, Some(&version.id), limit_bytes).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        let version = self.find(Act::GetRange, key).await?;
        let read = self.store.get_range_again(key, Some(&version.id), range).await?;
        Ok(read.unwrap_or(RangeRead { bytes: Bytes::new(), object_size: version.size }))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let version = self.find(Act::Head, key).await?;
        Ok(ObjectMeta { size: version.size })
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let below = format!("{}{prefix}", self.store.folder);
        stream::once(async move {
            let names = self.list_below(&below).await?;
            Ok::<_, StoreError>(stream::iter(self.remember(names).into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        let below = format!("{}{prefix}", self.store.folder);
        let mut folders = self.list_versions(&below, Some("/")).await?.1;
        for at in (0..folders.len()).rev() {
            // One that has come since is none.
            let Some(folder) = folders.get(at) else { continue };
            if !self.had_any(&format!("{}{folder}", self.store.folder)).await? {
                folders.remove(at);
            }
        }
        Ok(folders)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        Err(self.refusal(Act::Delete, key))
    }

    async fn keeping(&self) -> Result<Keeping, StoreError> {
        self.store.bucket_keeps().await
    }

    fn url(&self) -> String {
        self.store.url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(put: Option<i64>, deleted: Option<(i64, bool)>) -> Option<Version> {
        let version = Version { id: "v".into(), size: 1 };
        Past { last: put.map(|secs| (secs, version)), deleted }.version()
    }

    #[test]
    fn what_was_deleted_by_then_is_not_there() {
        assert!(past(None, None).is_none() && past(None, Some((1, true))).is_none());
        assert!(past(Some(5), None).is_some());
        assert!(past(Some(5), Some((6, false))).is_none());
        assert!(past(Some(5), Some((4, false))).is_some(), "it was put again");
        assert!(past(Some(5), Some((5, false))).is_some(), "nobody can tell, and it may be needed");
        assert!(past(Some(5), Some((5, true))).is_none(), "it is gone to this day");
    }
}
