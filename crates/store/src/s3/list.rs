//! Listing a bucket page by page (ListObjectsV2).

use futures::stream::{self, BoxStream, StreamExt};

use aws_sdk_s3::types::EncodingType;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::{Key, Prefix};
use crate::retry::{Again, Failure};
use crate::store::Listed;

use super::S3Store;
use super::fault::Answer;

/// Where a listing stands.
enum Next {
    Start,
    After(String),
    End,
}

/// One answer: its objects, and how to go on.
struct Page {
    objects: Vec<Listed>,
    next: Option<String>,
}

pub(super) fn list<'a>(
    store: &'a S3Store,
    prefix: &Prefix,
) -> BoxStream<'a, Result<Listed, StoreError>> {
    let below = format!("{}{prefix}", store.folder);
    let start = (Next::Start, None::<Key>);
    stream::unfold(start, move |(next, last)| {
        let below = below.clone();
        async move {
            let token = match next {
                Next::Start => None,
                Next::After(token) => Some(token),
                Next::End => return None,
            };
            match page(store, &below, token)
                .await
                .and_then(|page| ordered(store, page, last))
            {
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

async fn page(store: &S3Store, below: &str, token: Option<String>) -> Result<Page, StoreError> {
    let object = object_name(&store.url, "");
    let stalled = |what| StoreError::new(ErrorKind::Unavailable, Act::List, &object, what);
    let attempt = |_| async {
        let answer = store
            .client
            .list_objects_v2()
            .bucket(&store.bucket)
            .prefix(below)
            // Names of other people's making could break the XML.
            .encoding_type(EncodingType::Url)
            .set_continuation_token(token.clone())
            .send()
            .await;
        match answer {
            Ok(output) => read(store, &output),
            Err(error) => Err(Answer::read(&error).failure(Act::List, &object)),
        }
    };
    store.retry.run(stalled, attempt).await
}

fn read(
    store: &S3Store,
    output: &aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output,
) -> Result<Page, Failure> {
    let encoded = output.encoding_type().is_some();
    let mut objects = Vec::with_capacity(output.contents().len());
    for object in output.contents() {
        let name = object.key().unwrap_or_default();
        let name = if encoded {
            decode(name)
        } else {
            name.to_owned()
        };
        // What does not have a name of ours is not ours, such as the empty "folders" that some tools make.
        let Some(Ok(key)) = name.strip_prefix(store.folder.as_str()).map(Key::parse) else {
            continue;
        };
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let Some(size) = size else {
            let what = format!("the server does not tell the size of {key}");
            return Err(nonsense(store, what));
        };
        objects.push(Listed { key, size });
    }
    let next = match output.is_truncated() {
        Some(true) => match output.next_continuation_token() {
            Some(token) if !token.is_empty() => Some(token.to_owned()),
            _ => {
                let what = "the server says that there is more, but not how to get it";
                return Err(nonsense(store, what));
            }
        },
        _ => None,
    };
    Ok(Page { objects, next })
}

fn nonsense(store: &S3Store, what: impl Into<String>) -> Failure {
    let error = StoreError::new(ErrorKind::Unsupported, Act::List, &store.url, what);
    Failure {
        error,
        again: Again::No,
    }
}

/// Callers merge listings and stop early: an order that is not that of the bytes would make them miss objects.
fn ordered(
    store: &S3Store,
    page: Page,
    mut last: Option<Key>,
) -> Result<(Page, Option<Key>), StoreError> {
    for listed in &page.objects {
        if let Some(last) = &last
            && *last >= listed.key
        {
            let what = format!("the server lists {} after {last}, out of order", listed.key);
            return Err(nonsense(store, what).error);
        }
        last = Some(listed.key.clone());
    }
    Ok((page, last))
}

/// Undoes the encoding of a URL; what is none stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
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
