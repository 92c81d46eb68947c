//! Which calls a wrapper is about.

use std::fmt;
use std::sync::Arc;

use pgrecall_store::Act;

/// A method of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallKind {
    /// `put_if_absent`.
    PutIfAbsent,
    /// `put_once`.
    PutOnce,
    /// `get`.
    Get,
    /// `get_range`.
    GetRange,
    /// `head`.
    Head,
    /// `list`.
    List,
    /// `list_folders`.
    ListFolders,
    /// `delete`.
    Delete,
}

impl CallKind {
    /// What errors of this method say was being done.
    #[must_use]
    pub fn act(self) -> Act {
        match self {
            Self::PutIfAbsent | Self::PutOnce => Act::Put,
            Self::Get => Act::Get,
            Self::GetRange => Act::GetRange,
            Self::Head => Act::Head,
            Self::List | Self::ListFolders => Act::List,
            Self::Delete => Act::Delete,
        }
    }
}

type Names = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A choice of calls, by method and by name (the prefix, for listings).
#[derive(Clone)]
pub struct Calls {
    kinds: Vec<CallKind>,
    names: Names,
}

impl Calls {
    /// Every call.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&[])
    }

    /// Calls of these methods; of all, when none is given.
    #[must_use]
    pub fn of(kinds: &[CallKind]) -> Self {
        Self { kinds: kinds.to_vec(), names: Arc::new(|_| true) }
    }

    /// Every put.
    #[must_use]
    pub fn puts() -> Self {
        Self::of(&[CallKind::PutIfAbsent, CallKind::PutOnce])
    }

    /// Everything that reads an object's bytes.
    #[must_use]
    pub fn reads() -> Self {
        Self::of(&[CallKind::Get, CallKind::GetRange])
    }

    /// Only those whose name contains that text.
    #[must_use]
    pub fn naming(self, part: impl Into<String>) -> Self {
        let part = part.into();
        self.named(move |name| name.contains(&part))
    }

    /// Only those whose name is chosen.
    #[must_use]
    pub fn named(self, choose: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let before = self.names;
        Self { kinds: self.kinds, names: Arc::new(move |name| before(name) && choose(name)) }
    }

    /// Whether the call is one of them.
    #[must_use]
    pub fn matches(&self, kind: CallKind, name: &str) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind)) && (self.names)(name)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}
