//! A bucket in memory, as far as S3 is used here, and what is put between it and whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Answer, Reply, Request};

/// What happens to one request to a bucket.
#[derive(Debug, Clone)]
pub enum Meddle {
    /// Nothing: it is answered as it should be.
    No,
    /// This comes in place of the answer, and the bucket sees nothing of the request.
    Instead(Reply),
    /// What is asked for is done, and the connection closed without an answer.
    LoseAnswer,
    /// The answer breaks off in the middle of its body, and the connection with it.
    BreakOff,
    /// The answer stops in the middle of its body, and the connection stays.
    Stall,
}

type Meddler = Box<dyn FnMut(&Request) -> Meddle + Send>;

/// Objects by their names, whatever the bucket is called.
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) meddler: Meddler,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), meddler: Box::new(|_| Meddle::No) }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Bucket {
    /// The reply to a request that has arrived whole.
    pub(super) fn reply(&mut self, meddle: Meddle, request: &Request) -> Reply {
        if let Meddle::Instead(reply) = meddle {
            return reply;
        }
        let answer = self.answer(request);
        let sent_bytes = answer.body.len() / 2;
        match meddle {
            Meddle::No | Meddle::Instead(_) => Reply::Answer(answer),
            Meddle::LoseAnswer => Reply::Close,
            Meddle::BreakOff => Reply::HalfBody { answer, sent_bytes },
            Meddle::Stall => Reply::Stall { answer, sent_bytes },
        }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let path = request.path.trim_start_matches('/');
        let name = path.split_once('/').map_or("", |(_, name)| name).to_owned();
        match (request.method.as_str(), name.as_str()) {
            ("GET", "") => self.list(request),
            ("HEAD", "") => Answer::new(200, ""),
            ("GET" | "HEAD", _) => match self.objects.get(&name) {
                Some(object) => part(object, request.header("range")),
                None => Answer::error(404, "NoSuchKey", "The specified key does not exist."),
            },
            ("PUT", _) if request.header("if-none-match").is_some() => {
                if self.objects.contains_key(&name) {
                    let message = "At least one of the preconditions did not hold";
                    return Answer::error(412, "PreconditionFailed", message);
                }
                self.objects.insert(name, request.body.clone());
                Answer::new(200, "")
            }
            ("DELETE", _) => {
                self.objects.remove(&name);
                Answer::new(204, "")
            }
            _ => Answer::error(501, "NotImplemented", "this bucket cannot do that"),
        }
    }

    /// ListObjectsV2, all on one page.
    fn list(&self, request: &Request) -> Answer {
        let parameter = |name: &str| {
            let mut pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%2F", "/"))
        };
        let prefix = parameter("prefix").unwrap_or_default();
        let delimiter = parameter("delimiter");
        let (mut contents, mut folders) = (String::new(), BTreeSet::new());
        for (name, object) in self.objects.range(prefix.clone()..) {
            let Some(rest) = name.strip_prefix(&prefix) else { break };
            let folder = delimiter.as_ref().and_then(|delimiter| rest.split_once(delimiter));
            if let Some((folder, _)) = folder {
                folders.insert(format!("{prefix}{folder}/"));
                continue;
            }
            let size = object.len();
            contents
                .push_str(&format!("<Contents><Key>{name}</Key><Size>{size}</Size></Contents>"));
        }
        for folder in folders {
            let folder = format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
            contents.push_str(&folder);
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        );
        Answer::new(200, body).with("Content-Type", "application/xml")
    }
}

/// The whole object, or the range of it that is asked for.
fn part(object: &[u8], range: Option<&str>) -> Answer {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Answer::new(200, object);
    };
    let len = object.len();
    let number = |text: &str| text.parse::<usize>().ok();
    let (start, end) = match range.split_once('-') {
        Some(("", last)) => (len.saturating_sub(number(last).unwrap_or(0)), len),
        Some((first, last)) => {
            (number(first).unwrap_or(0), number(last).map_or(len, |last| len.min(last + 1)))
        }
        None => (0, len),
    };
    if start >= end {
        return Answer::error(416, "InvalidRange", "The requested range is not satisfiable");
    }
    let content_range = format!("bytes {start}-{}/{len}", end - 1);
    Answer::new(206, &object[start..end]).with("Content-Range", &content_range)
}
