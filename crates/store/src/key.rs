//! Validated names of objects, and the folders they are listed by.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest key in bytes. S3 allows 1024 for the key and the bucket's prefix together; the rest
/// is the prefix's.
pub const KEY_LEN_MAX: usize = 512;

/// The longest component in bytes: NAME_MAX of Linux file systems.
const COMPONENT_LEN_MAX: usize = 255;

/// The name of an object: components of `[A-Za-z0-9._-]`, joined by `/`, none empty or starting
/// with a dot.
///
/// Names that start with a dot belong to the stores themselves (the directory store's `.tmp`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// The folder that a listing starts from: empty (everything), or a key followed by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

/// Why a text is no key or prefix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no object name: {reason}")]
pub struct KeyError {
    text: String,
    reason: &'static str,
}

impl Key {
    /// Takes a text as a key.
    ///
    /// # Errors
    /// [`KeyError`] tells which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        match check(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(reason) => Err(KeyError::new(text, reason)),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This key, a `/`, and `below` (one component or several).
    ///
    /// # Errors
    /// [`KeyError`] when the result is no key.
    pub fn join(&self, below: &str) -> Result<Self, KeyError> {
        Self::parse(&format!("{self}/{below}"))
    }

    /// The folder of this name: the key and a `/`.
    #[must_use]
    pub fn as_prefix(&self) -> Prefix {
        Prefix(format!("{self}/").into())
    }

    /// The folder that this object lies in.
    #[must_use]
    pub fn parent(&self) -> Prefix {
        match self.0.rsplit_once('/') {
            Some((folder, _)) => Prefix(format!("{folder}/").into()),
            None => Prefix::root(),
        }
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The components, from the left.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// What follows `prefix`, or nothing when the key is not below it.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &Prefix) -> Option<&str> {
        self.0.strip_prefix(prefix.as_str())
    }
}

impl Prefix {
    /// The folder of everything.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// Takes a text as a folder: empty, or a key followed by `/`.
    ///
    /// # Errors
    /// [`KeyError`] tells which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        let Some(folder) = text.strip_suffix('/') else {
            return Err(KeyError::new(text, "a folder ends in a slash"));
        };
        match check(folder) {
            Ok(()) => Ok(Self(text.into())),
            Err(reason) => Err(KeyError::new(text, reason)),
        }
    }

    /// The folder as text: empty, or ending in `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component, without its slash; empty for the folder of everything.
    #[must_use]
    pub fn name(&self) -> &str {
        let folder = self.0.strip_suffix('/').unwrap_or(&self.0);
        folder.rsplit('/').next().unwrap_or(folder)
    }

    /// The object of that name in this folder.
    ///
    /// # Errors
    /// [`KeyError`] when the result is no key.
    pub fn key(&self, name: &str) -> Result<Key, KeyError> {
        Key::parse(&format!("{self}{name}"))
    }

    /// The folder of that name in this folder; `name` without a closing slash.
    ///
    /// # Errors
    /// [`KeyError`] when the result is no folder.
    pub fn join(&self, name: &str) -> Result<Self, KeyError> {
        Ok(self.key(name)?.as_prefix())
    }

    /// Whether the object lies below this folder, at any depth.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(self.as_str())
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > KEY_LEN_MAX {
        return Err("it is longer than 512 bytes");
    }
    for component in text.split('/') {
        if component.is_empty() {
            return Err("a component is empty");
        }
        if component.len() > COMPONENT_LEN_MAX {
            return Err("a component is longer than 255 bytes");
        }
        if component.starts_with('.') {
            return Err("a component starts with a dot");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !component.bytes().all(allowed) {
            return Err(
                "only letters, digits, '.', '_' and '-' of ASCII may stand between slashes",
            );
        }
    }
    Ok(())
}

impl KeyError {
    fn new(text: &str, reason: &'static str) -> Self {
        let text = text.chars().take(KEY_LEN_MAX).collect();
        Self { text, reason }
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl FromStr for Prefix {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Prefix {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

// Key orders and hashes as its text does, so maps by key can be asked with a text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_hide_or_need_quoting_are_refused() {
        let long_component = "a".repeat(256);
        let long_key = ["a".repeat(200), "b".repeat(200), "c".repeat(200)].join("/");
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "a/../b",
            "./a",
            ".tmp",
            "a/.tmp/b",
            "a b",
            "a\0b",
            "a\\b",
            "é",
            "a%2fb",
            "a:b",
            &long_component,
            &long_key,
        ];
        for text in bad {
            assert!(Key::parse(text).is_err(), "{text:?} was accepted");
        }
        for text in ["a", "a/b", "A-Z_0.9", "a..b", "wal/x.partial", &"a".repeat(255)] {
            assert_eq!(Key::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_folder_does_not_contain_its_siblings() {
        let folder = Prefix::parse("a/b/").unwrap();
        assert!(folder.contains(&"a/b/c".parse().unwrap()));
        assert!(!folder.contains(&"a/bc".parse().unwrap()));
        assert!(!folder.contains(&"a/b".parse().unwrap()));
        assert!(Prefix::root().contains(&"a".parse().unwrap()));
        for text in ["a", "/", "a//", "../", ".tmp/"] {
            assert!(Prefix::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn keys_are_taken_apart_and_put_together() {
        let key: Key = "a/b/c".parse().unwrap();
        assert_eq!(key.file_name(), "c");
        assert_eq!(key.parent().as_str(), "a/b/");
        assert_eq!(Key::parse("x").unwrap().parent(), Prefix::root());
        assert_eq!(key.join("d/e").unwrap().as_str(), "a/b/c/d/e");
        assert!(key.join("../x").is_err());
        assert_eq!(key.parent().key("z").unwrap().as_str(), "a/b/z");
        assert_eq!(Prefix::root().join("a").unwrap().as_str(), "a/");
        assert_eq!(key.strip_prefix(&key.parent()), Some("c"));
    }

    #[test]
    fn keys_order_by_their_bytes() {
        let mut keys: Vec<Key> =
            ["a/b", "a-b", "a.b", "a", "B"].iter().map(|t| t.parse().unwrap()).collect();
        keys.sort();
        let texts: Vec<&str> = keys.iter().map(Key::as_str).collect();
        assert_eq!(texts, ["B", "a", "a-b", "a.b", "a/b"]);
    }
}
