//! What a store keeps of objects that are deleted or put over, and for how long it lets nobody
//! delete them: versions and object lock of S3.

use std::fmt;

/// What a store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// Whether what is deleted or put over can be read again.
    pub versions: Versions,
    /// What is asked of every object that is put.
    pub lock: DefaultLock,
}

impl Keeping {
    /// What is deleted is gone.
    pub const NOTHING: Self = Self { versions: Versions::None, lock: DefaultLock::None };
}

/// Whether versions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// They are not.
    None,
    /// They are not any more: those of what was put before are still there.
    Suspended,
    /// They are.
    Kept,
    /// These credentials may not ask.
    Unknown,
}

/// Whether the store lets nobody delete what was put lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultLock {
    /// It does not.
    None,
    /// For so many days from its put an object is locked.
    Days {
        /// How fast.
        mode: LockMode,
        /// How long, at least 1.
        days: u32,
    },
    /// These credentials may not ask.
    Unknown,
}

/// Who may take a lock off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody.
    Compliance,
    /// Whoever has the right to.
    Governance,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compliance => "COMPLIANCE",
            Self::Governance => "GOVERNANCE",
        })
    }
}

/// An object that is to be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRequest {
    /// Who may take it off, where the object has no lock yet.
    pub mode: LockMode,
    /// Until when, in seconds since 1970.
    pub until_secs: i64,
    /// A lock that lasts until here is left as it is.
    pub enough_secs: i64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// It was locked for long enough already.
    Enough,
    /// It is locked until then now.
    Extended,
}
