//! Listing a bucket page by page (ListObjectsV2), in byte order of the keys.
//!
//! S3 sends that order by itself. SeaweedFS orders as a file system does, folder by folder, so that
//! `a/x` comes before `a-b`; what it lists is put in order here, one folder in memory at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::EncodingType;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::{Key, Prefix};
use crate::retry::{Again, Failure};
use crate::store::Listed;

use super::S3Store;
use super::fault::Answer;
use crate::s3_options::Listing;

/// Whether this server has to be listed folder by folder, as far as is known.
#[derive(Debug)]
pub(super) struct Order {
    by_folder: AtomicBool,
}

impl Order {
    pub(super) fn new(listing: Listing) -> Self {
        Self { by_folder: AtomicBool::new(listing == Listing::ByFolder) }
    }

    pub(super) fn is_by_folder(&self) -> bool {
        self.by_folder.load(Ordering::Relaxed)
    }

    fn set_by_folder(&self) {
        self.by_folder.store(true, Ordering::Relaxed);
    }
}

/// Looks at who answers, and whether the answer has its end: the SDK takes XML that breaks off for
/// a shorter listing.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) order: Arc<Order>,
    pub(super) is_whole: Arc<AtomicBool>,
    /// How a whole answer ends.
    pub(super) end: &'static str,
}

impl Intercept for Look {
    fn name(&self) -> &'static str {
        "Look"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        if answer.headers().get("server").unwrap_or_default().starts_with("SeaweedFS") {
            self.order.set_by_folder();
        }
        let body = answer.body().bytes().unwrap_or_default();
        let is_whole = body.trim_ascii_end().ends_with(self.end.as_bytes());
        self.is_whole.store(is_whole, Ordering::Relaxed);
        Ok(())
    }
}

/// Objects of one folder alone, or of everything below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Folder,
    Everything,
}

/// One answer, and how to go on.
#[derive(Default)]
struct Page {
    objects: Vec<Listed>,
    /// Folders in this one, by their whole names in the bucket.
    folders: Vec<String>,
    next: Option<String>,
}

pub(super) fn list<'a>(
    store: &'a S3Store,
    prefix: &Prefix,
) -> BoxStream<'a, Result<Listed, StoreError>> {
    let below = format!("{}{prefix}", store.folder);
    stream::once(async move {
        if store.order.is_by_folder() {
            return Ok::<_, StoreError>(by_folder(store, below));
        }
        let mut first = page(store, &below, Depth::Everything, None).await?;
        if first.next.is_none() {
            // All there is: then the order is easily had.
            first.objects.sort_unstable();
            return Ok(stream::iter(first.objects.into_iter().map(Ok)).boxed());
        }
        match store.order.is_by_folder() {
            true => Ok(by_folder(store, below)),
            false => Ok(flat(store, below, first)),
        }
    })
    .try_flatten()
    .boxed()
}

/// Where a flat listing stands: at a page that is here already, after a page, or at the end.
enum Next {
    Here(Page),
    After(String),
    End,
}

fn flat<'a>(
    store: &'a S3Store,
    below: String,
    first: Page,
) -> BoxStream<'a, Result<Listed, StoreError>> {
    stream::unfold((Next::Here(first), None::<Key>), move |(next, last)| {
        let below = below.clone();
        async move {
            let page = match next {
                Next::Here(page) => Ok(page),
                Next::After(token) => page(store, &below, Depth::Everything, Some(token)).await,
                Next::End => return None,
            };
            match page.and_then(|page| ordered(store, page, last)) {
                Ok((page, last)) => {
                    let next = page.next.map_or(Next::End, Next::After);
                    let objects = page.objects.into_iter().map(Ok).collect::<Vec<_>>();
                    Some((stream::iter(objects), (next, last)))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), (Next::End, None))),
            }
        }
    })
    .flatten()
    .boxed()
}

/// Callers merge listings and stop early: an order that is not that of the bytes would make them
/// miss objects.
fn ordered(
    store: &S3Store,
    page: Page,
    mut last: Option<Key>,
) -> Result<(Page, Option<Key>), StoreError> {
    for listed in &page.objects {
        if let Some(last) = &last
            && *last >= listed.key
        {
            store.order.set_by_folder();
            let what = format!("the server lists {} after {last}, out of order", listed.key);
            return Err(StoreError::new(ErrorKind::Unavailable, Act::List, &store.url, what)
                .with_hint("Set the repository's listing to go folder by folder."));
        }
        last = Some(listed.key.clone());
    }
    Ok((page, last))
}

/// What lies in a folder.
enum Entry {
    Object(Listed),
    Folder(String),
}

/// Folders that are asked for ahead of their turn: packs lie in a thousand of them.
const FOLDERS_AT_ONCE: usize = 16;

fn by_folder<'a>(store: &'a S3Store, below: String) -> BoxStream<'a, Result<Listed, StoreError>> {
    below_all(store, vec![Entry::Folder(below)])
        .scan(false, |failed, listed| {
            let is_over = std::mem::replace(failed, listed.is_err());
            std::future::ready((!is_over).then_some(listed))
        })
        .boxed()
}

/// Everything that these are or have below them, in order.
fn below_all<'a>(store: &'a S3Store, all: Vec<Entry>) -> BoxStream<'a, Result<Listed, StoreError>> {
    let opened = stream::iter(all).map(move |entry| below_one(store, entry));
    opened.buffered(FOLDERS_AT_ONCE).try_flatten().boxed()
}

async fn below_one(
    store: &S3Store,
    entry: Entry,
) -> Result<BoxStream<'_, Result<Listed, StoreError>>, StoreError> {
    match entry {
        Entry::Object(listed) => Ok(stream::iter([Ok(listed)]).boxed()),
        Entry::Folder(folder) => Ok(below_all(store, entries(store, &folder).await?)),
    }
}

/// What lies directly in a folder, in order.
async fn entries(store: &S3Store, folder: &str) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    let mut token = None;
    loop {
        let page = page(store, folder, Depth::Folder, token).await?;
        let folders = page.folders.into_iter().map(|name| (name.clone(), Entry::Folder(name)));
        entries.extend(folders);
        entries.extend(
            page.objects
                .into_iter()
                .map(|listed| (format!("{}{}", store.folder, listed.key), Entry::Object(listed))),
        );
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    entries.dedup_by(|a, b| a.0 == b.0);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The folders of one folder, by a delimiter: what lies in them is not listed.
pub(super) async fn folders(store: &S3Store, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
    let below = format!("{}{prefix}", store.folder);
    let entries = entries(store, &below).await?;
    let names = entries.iter().filter_map(|entry| match entry {
        Entry::Folder(name) => name.strip_prefix(store.folder.as_str()),
        Entry::Object(_) => None,
    });
    Ok(names.filter_map(|name| Prefix::parse(name).ok()).collect())
}

async fn page(
    store: &S3Store,
    below: &str,
    depth: Depth,
    token: Option<String>,
) -> Result<Page, StoreError> {
    let object = object_name(&store.url, below.strip_prefix(store.folder.as_str()).unwrap_or(""));
    let stalled = |what: String| StoreError::new(ErrorKind::Unavailable, Act::List, &object, what);
    let attempt = |_| async {
        let is_whole = Arc::new(AtomicBool::new(false));
        let look = Look {
            order: Arc::clone(&store.order),
            is_whole: Arc::clone(&is_whole),
            end: "ListBucketResult>",
        };
        let answer = store
            .client
            .list_objects_v2()
            .bucket(&store.bucket)
            .prefix(below)
            .set_delimiter((depth == Depth::Folder).then(|| "/".to_owned()))
            // Names of other people's making could break the XML.
            .encoding_type(EncodingType::Url)
            .set_continuation_token(token.clone())
            .customize()
            .interceptor(look)
            .send()
            .await;
        match answer {
            Ok(output) if is_whole.load(Ordering::Relaxed) => read(store, below, &output),
            Ok(_) => {
                let error = stalled("the answer was cut short".to_owned());
                Err(Failure { error, again: Again::Yes })
            }
            Err(error) => Err(Answer::read(&error).failure(Act::List, &object)),
        }
    };
    store.retry.run(stalled, attempt).await
}

fn read(store: &S3Store, below: &str, output: &ListObjectsV2Output) -> Result<Page, Failure> {
    let decoded = |name: &str| match output.encoding_type() {
        Some(_) => decode(name),
        None => name.to_owned(),
    };
    let mut page = Page::default();
    for object in output.contents() {
        let name = decoded(object.key().unwrap_or_default());
        // What does not have a name of ours is not ours, such as the empty "folders" that some
        // tools make.
        let Some(Ok(key)) = name.strip_prefix(store.folder.as_str()).map(Key::parse) else {
            continue;
        };
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let Some(size) = size else {
            let what = format!("the server does not tell the size of {key}");
            return Err(nonsense(store, what));
        };
        page.objects.push(Listed { key, size });
    }
    for folder in output.common_prefixes() {
        let name = decoded(folder.prefix().unwrap_or_default());
        let ours = name.strip_prefix(store.folder.as_str()).map(Prefix::parse);
        // Only ever downwards, whatever the server says.
        if matches!(ours, Some(Ok(_))) && name.len() > below.len() && name.starts_with(below) {
            page.folders.push(name);
        }
    }
    page.next = match output.is_truncated() {
        Some(true) => match output.next_continuation_token() {
            Some(token) if !token.is_empty() => Some(token.to_owned()),
            _ => {
                let what = "the server says that there is more, but not how to get it";
                return Err(nonsense(store, what));
            }
        },
        _ => None,
    };
    Ok(page)
}

pub(super) fn nonsense(store: &S3Store, what: impl Into<String>) -> Failure {
    let error = StoreError::new(ErrorKind::Unsupported, Act::List, &store.url, what);
    Failure { error, again: Again::No }
}

/// Undoes the encoding of a URL; what is none stays as it is.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn names_come_back_from_their_encoding() {
        assert_eq!(decode("a%2Fb/c.d-e_f"), "a/b/c.d-e_f");
        assert_eq!(decode("a+b%20c%"), "a b c%");
        assert_eq!(decode("%zz%2"), "%zz%2");
    }
}
