//! What can go wrong with a store, told by what the caller can do about it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::key::{Key, KeyError};

/// The reaction that an error asks for. Kinds are stable; texts are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such object. A missing bucket or root directory is never told so.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// Somebody else acts on the same thing at the same time.
    Conflict,
    /// What is stored is not what it should be: too large, cut short, no regular file.
    Corrupt,
    /// The store cannot do what is asked.
    Unsupported,
    /// Later it may work: network, overload, a disk that is full, a directory that is not mounted.
    Unavailable,
    /// The store refuses these credentials, or this user.
    Denied,
    /// The caller, or the configuration, asks for something that can never work.
    Invalid,
    /// Something that belongs to it is missing.
    Incomplete,
    /// A fault of this program.
    Internal,
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// Opening the store itself.
    Open,
    /// `put_if_absent` or `put_once`.
    Put,
    /// `get`.
    Get,
    /// `get_range`.
    GetRange,
    /// `head`.
    Head,
    /// `list`.
    List,
    /// `delete`.
    Delete,
    /// `lock`.
    Lock,
    /// Encrypting by a key of a service.
    Encrypt,
    /// Decrypting by one.
    Decrypt,
}

/// One failed act on one object, or on the store as a whole.
#[derive(Debug, Clone)]
pub struct StoreError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    act: Act,
    object: String,
    what: String,
    hint: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of that kind: what was done, to which object (a URL, or a URL and a key), and what
    /// came of it.
    pub fn new(
        kind: ErrorKind,
        act: Act,
        object: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        let (object, what) = (object.into(), what.into());
        Self(Box::new(Inner { kind, act, object, what, hint: None, source: None }))
    }

    /// There is no such object.
    #[must_use]
    pub fn not_found(act: Act, url: &str, key: &Key) -> Self {
        Self::new(ErrorKind::NotFound, act, object_name(url, key), "no such object")
    }

    /// The object is larger than the caller allows.
    #[must_use]
    pub fn too_large(act: Act, url: &str, key: &Key, size: u64, limit_bytes: u64) -> Self {
        let what = format!("{size} bytes, where at most {limit_bytes} are expected");
        Self::new(ErrorKind::Corrupt, act, object_name(url, key), what)
    }

    /// Adds what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Adds what a person may try: a whole sentence.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The reaction that it asks for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether this machine's own file system failed, and not a server.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.errno().is_some()
    }

    /// Whether the disk could not read these very bytes: others may be fine.
    #[must_use]
    pub fn is_media_error(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::IO.raw_os_error())
    }

    fn errno(&self) -> Option<i32> {
        self.0.source.as_ref()?.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    /// What was being done.
    #[must_use]
    pub fn act(&self) -> Act {
        self.0.act
    }

    /// What it was done to: a URL, or a URL and a key.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.0.object
    }

    /// What a person may try: a whole sentence.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// How messages name an object of a store.
pub(crate) fn object_name(url: &str, key: impl fmt::Display) -> String {
    format!("{}/{key}", url.trim_end_matches('/'))
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.act, self.0.object, self.0.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<KeyError> for StoreError {
    fn from(error: KeyError) -> Self {
        Self::new(ErrorKind::Invalid, Act::Open, "object", error.to_string())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get a range of",
            Self::Head => "look at",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Lock => "lock",
            Self::Encrypt => "encrypt by",
            Self::Decrypt => "decrypt by",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_own_level_only() {
        let cause = std::io::Error::other("wire cut");
        let key = Key::parse("a/b").unwrap();
        let error = StoreError::not_found(Act::Get, "file:///x/", &key).caused_by(cause);
        assert_eq!(error.to_string(), "get file:///x/a/b: no such object");
        assert_eq!(error.source().unwrap().to_string(), "wire cut");
        assert_eq!(error.clone().kind(), ErrorKind::NotFound);
    }
}
