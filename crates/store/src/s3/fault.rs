//! What an answer of an S3 server means for a caller, in words.
//!
//! Codes: Amazon S3 API reference, "Error responses" and "Conditional requests".

pub(super) use crate::aws::answer::{Answer, Said};

use crate::aws::answer::{Meaning, by_common_code};
use crate::error::{Act, ErrorKind};
use crate::retry::Failure;

impl Answer {
    /// Whether the server says that the object is not there. A 404 of anything but S3, or a missing
    /// bucket, is no such answer.
    pub(super) fn says_no_such_object(&self) -> bool {
        self.status == Some(404) && matches!(self.code.as_str(), "NoSuchKey" | "NoSuchVersion")
    }

    /// Whether this server has never heard of the request.
    pub(super) fn is_not_known_to_the_server(&self) -> bool {
        self.code == "NotImplemented" || matches!(self.status, Some(405 | 501))
    }

    /// Whether the server says that the name is taken.
    pub(super) fn says_exists(&self) -> bool {
        self.status == Some(412)
    }

    /// The failure for a caller, and whether to send again.
    pub(super) fn failure(&self, act: Act, object: impl Into<String>) -> Failure {
        let mut meaning = self.meaning();
        meaning.hint = match (meaning.hint, act) {
            (Some(HINT_DENIED), Act::Put) => Some(HINT_PUT_DENIED),
            (Some(HINT_DENIED), Act::Delete) => Some(HINT_DELETE_DENIED),
            (Some(HINT_DENIED), Act::Lock) => Some(HINT_LOCK_DENIED),
            (hint, _) => hint,
        };
        self.told(meaning, act, object)
    }

    fn meaning(&self) -> Meaning {
        let Some(status) = self.status else {
            return self.unanswered();
        };
        if let Some(meaning) = by_code(&self.code) {
            return meaning;
        }
        if let Some(region) = &self.region
            && matches!(status, 301 | 307 | 400)
        {
            let what = format!("the region is wrong: the server says {region}");
            return Meaning::stop(ErrorKind::Invalid, what, Some(HINT_REGION));
        }
        by_status(status)
    }
}

const HINT_REGION: &str = "Set the repository's region to the bucket's.";
const HINT_DENIED: &str = "Without the right to list the bucket S3 answers 403 for names that do \
     not exist: the credentials need ListBucket and GetObject.";
const HINT_PUT_DENIED: &str = "The credentials need PutObject for this name.";
const HINT_LOCK_DENIED: &str =
    "The credentials need GetObject, GetObjectRetention and PutObjectRetention for this name.";
const HINT_DELETE_DENIED: &str = "The credentials need DeleteObject for this name; those of a \
     database's host had better not have it.";

fn by_code(code: &str) -> Option<Meaning> {
    let stop = |kind, what: &str, hint| Some(Meaning::stop(kind, what, hint));
    match code {
        "NoSuchKey" | "NoSuchVersion" => stop(ErrorKind::NotFound, "no such object", None),
        "NoSuchBucket" => {
            let hint =
                Some("Make the bucket first, and check its name, the endpoint and the region.");
            stop(ErrorKind::Invalid, "the bucket does not exist", hint)
        }
        "InvalidObjectState" => {
            let hint = Some("Bring the object back from the archive storage class first.");
            stop(ErrorKind::Unavailable, "the object lies in an archive storage class", hint)
        }
        "NotImplemented" => {
            let hint = Some("The server must support conditional puts (If-None-Match).");
            stop(ErrorKind::Unsupported, "the server does not support this request", hint)
        }
        "EntityTooLarge" => stop(ErrorKind::Invalid, "the server takes no object so large", None),
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody" => Some(Meaning::again("the server received damaged bytes")),
        code => by_common_code(code),
    }
}

fn by_status(status: u16) -> Meaning {
    match status {
        // A part of a success that could not be read.
        200..=299 => Meaning::again("the answer was cut short, or made no sense"),
        301 | 308 => {
            let what = format!("HTTP {status}: the bucket lives elsewhere");
            Meaning::stop(ErrorKind::Invalid, what, Some(HINT_REGION))
        }
        401 | 403 => {
            let what = format!("HTTP {status}: access is denied");
            Meaning::stop(ErrorKind::Denied, what, Some(HINT_DENIED))
        }
        404 => {
            let hint = Some("Is the endpoint that of an S3 server?");
            let what = "HTTP 404 without S3's code, which says nothing about the object";
            Meaning::stop(ErrorKind::Invalid, what, hint)
        }
        409 => Meaning {
            kind: ErrorKind::Conflict,
            ..Meaning::again("HTTP 409: another request for this name is under way")
        },
        501 => {
            let hint = Some("The server must support conditional puts (If-None-Match).");
            Meaning::stop(ErrorKind::Unsupported, "HTTP 501: not supported by the server", hint)
        }
        307 | 408 | 425 | 429 | 500.. => {
            Meaning::again(format!("HTTP {status}: the server cannot do it now"))
        }
        _ => Meaning::stop(ErrorKind::Invalid, format!("HTTP {status}: refused"), None),
    }
}
