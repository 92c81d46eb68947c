//! What can go wrong with a repository, by what the reader of the message can do about it.

use pgrecall_store::StoreError;
use thiserror::Error;

/// The reaction that an error calls for. Kinds are API, texts are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The thing named is not there, and the store proved it.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// Another process holds or has fenced this.
    Conflict,
    /// Bytes are there and are wrong.
    Corrupt,
    /// Written by a newer version, by one from before the first release, or with a feature this one
    /// lacks.
    Unsupported,
    /// The store did not answer as it should; trying again may help.
    Unavailable,
    /// The store or the key refuses.
    Denied,
    /// The caller asked for something that cannot be.
    Invalid,
    /// Something that has to be there first is missing.
    Incomplete,
    /// A promise of this program was broken.
    Internal,
}

impl From<pgrecall_store::ErrorKind> for ErrorKind {
    fn from(kind: pgrecall_store::ErrorKind) -> Self {
        use pgrecall_store::ErrorKind as Store;
        match kind {
            Store::NotFound => Self::NotFound,
            Store::AlreadyExists => Self::AlreadyExists,
            Store::Conflict => Self::Conflict,
            Store::Corrupt => Self::Corrupt,
            Store::Unsupported => Self::Unsupported,
            Store::Unavailable => Self::Unavailable,
            Store::Denied => Self::Denied,
            Store::Invalid => Self::Invalid,
            Store::Incomplete => Self::Incomplete,
            Store::Internal => Self::Internal,
            _ => Self::Unavailable,
        }
    }
}

/// Bytes that do not decode. The object's name is added by [`RepoError::Corrupt`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The bytes end before the value does.
    #[error("{what} ends early: {needed} bytes wanted, {found} there")]
    Truncated {
        /// The value being read.
        what: &'static str,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that were left.
        found: u64,
    },
    /// A field has a value that it cannot have.
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected {
        /// The field.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A number is above the limit that keeps memory bounded.
    #[error("{what} is {found}, above the limit of {limit}")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// Its limit.
        limit: u64,
        /// Its value.
        found: u64,
    },
    /// Authentication failed: the bytes were changed, moved to another name, or sealed with
    /// another key.
    #[error("{what} does not authenticate")]
    Unauthentic {
        /// Which part of the object.
        what: &'static str,
    },
    /// Written by a version that this one does not know.
    #[error("{what} has version {found}, and this program reads up to {known}")]
    Newer {
        /// The thing with a version.
        what: &'static str,
        /// Its version.
        found: u64,
        /// The highest known one.
        known: u64,
    },
    /// Of a version that was never released, and is read no more.
    #[error("{what} has version {found}, and this program reads from version {known} on")]
    Older {
        /// The thing with a version.
        what: &'static str,
        /// Its version.
        found: u64,
        /// The lowest known one.
        known: u64,
    },
    /// A feature is required that this version does not know.
    #[error("{what} needs the feature {feature:?}, which this version does not have")]
    UnknownFeature {
        /// The thing that needs it.
        what: &'static str,
        /// The feature's name.
        feature: String,
    },
    /// It is sealed for a restore key that is not here. Nothing is wrong with it.
    #[error("it is sealed for the restore key {fingerprint}, which is not here")]
    NoRestoreKey {
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// It is sealed by keys that were not there. It may be whole itself.
    #[error(
        "it is sealed by the keys of epoch {epoch}, and {keys}, which holds them, was not there"
    )]
    NoKeys {
        /// The epoch.
        epoch: u32,
        /// The object that holds its keys.
        keys: String,
    },
    /// Compressed bytes do not inflate.
    #[error("compressed bytes do not inflate: {reason}")]
    Inflate {
        /// What the codec said.
        reason: String,
    },
    /// A JSON document does not parse.
    #[error("{what} is not the document it should be: {reason}")]
    Document {
        /// Which document.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
}

impl FormatError {
    /// The reaction that this calls for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Newer { .. } | Self::Older { .. } | Self::UnknownFeature { .. } => {
                ErrorKind::Unsupported
            }
            Self::NoRestoreKey { .. } => ErrorKind::Denied,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// Everything that a repository operation can fail with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepoError {
    /// The store failed; its own account says at what and on which object.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object's bytes are wrong.
    #[error("object {object} is damaged")]
    Corrupt {
        /// Its name.
        object: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// An object or document was written by a newer version.
    #[error("{object} cannot be read by this version")]
    Newer {
        /// Its name.
        object: String,
        /// What is new about it.
        source: FormatError,
    },
    /// An object is of a version from before the first release.
    #[error("{object} is of an older, unreleased format")]
    Older {
        /// Its name.
        object: String,
        /// Its version, and the one wanted.
        source: FormatError,
    },
    /// Only a restore key opens an object, and it is not here.
    #[error("{object} cannot be read on this host")]
    NoRestoreKey {
        /// The object's name.
        object: String,
        /// Which key it is.
        source: FormatError,
    },
    /// The keys that open an object were not there. It may be whole.
    #[error("{object} does not open")]
    KeysMissing {
        /// The object's name.
        object: String,
        /// Which keys those are.
        source: FormatError,
    },
    /// A domain's keys were deleted on purpose.
    #[error(
        "the keys of domain {domain} were deleted (key shred) at {at}: nobody reads what it held"
    )]
    Shredded {
        /// The domain.
        domain: String,
        /// When, RFC 3339.
        at: String,
    },
    /// A note of what was found damaged does not read.
    #[error("what was found damaged is not known")]
    NoteUnread {
        /// Why not.
        source: Box<RepoError>,
    },
    /// There is no repository at this place.
    #[error("there is no repository at {url}: it holds no pgrecall.json")]
    NoRepository {
        /// The store's URL.
        url: String,
    },
    /// A repository is there, and it is another one.
    #[error(
        "the repository at {url} has the id {found} in pgrecall.json, and the configuration asks \
         for {expected}"
    )]
    OtherRepository {
        /// The store's URL.
        url: String,
        /// The pinned id.
        expected: String,
        /// The id found.
        found: String,
    },
    /// The repository's crypto suite is not the one asked for.
    #[error("the repository at {url} is {found}, and the configuration asks for {expected}")]
    OtherSuite {
        /// The store's URL.
        url: String,
        /// "encrypted (aes-256-gcm)" or "in the clear".
        expected: &'static str,
        /// As `expected`.
        found: &'static str,
    },
    /// The repository key's fingerprint is not the pinned one.
    #[error(
        "the repository key has the fingerprint {found}, and the configuration pins {expected}"
    )]
    OtherKey {
        /// Pinned.
        expected: String,
        /// Found.
        found: String,
    },
    /// The key or passphrase given opens nothing here.
    #[error("{key} does not open the repository at {url}: {reason}")]
    WrongKey {
        /// "the key file (key …)" or "the passphrase".
        key: String,
        /// The store's URL.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A name is taken by other content.
    #[error("{object} exists with other content: ours has digest {ours}, the stored one {stored}")]
    Collision {
        /// The object's name.
        object: String,
        /// Digest of what was to be stored.
        ours: String,
        /// Digest of what is there.
        stored: String,
    },
    /// A put was neither confirmed nor refused.
    #[error("whether {object} was stored is unknown")]
    Unknown {
        /// The object's name.
        object: String,
        /// The last answer.
        source: StoreError,
    },
    /// This backup was ended by another process (a tombstone, or the log of expired backups).
    #[error("backup {backup} was given up by another process: {reason}")]
    Fenced {
        /// The backup's id.
        backup: String,
        /// What was found.
        reason: String,
    },
    /// A backup's manifest is stored, and what says whether it counts could not be looked at.
    #[error("backup {backup} is stored, but whether another process has given it up is unknown")]
    Unsettled {
        /// The backup's id.
        backup: String,
        /// Why it could not be looked at.
        source: Box<RepoError>,
    },
    /// A part of what says which chunks a backup needs does not read.
    #[error(
        "what backup {backup} of cluster {cluster} needs cannot be told, so nothing is removed"
    )]
    NeedUnknown {
        /// The backup's id.
        backup: String,
        /// Its cluster.
        cluster: String,
        /// What does not read.
        source: Box<RepoError>,
    },
    /// A pack that a backup refers to is missing or has another size.
    #[error("{count} packs that the backup refers to are gone, {example} among them")]
    PacksMissing {
        /// How many.
        count: usize,
        /// One of them.
        example: String,
    },
    /// A chunk is in no usable pack.
    #[error("chunk {chunk} is in no pack of domain {domain}{}", was_in(pack))]
    ChunkMissing {
        /// The chunk's id.
        chunk: String,
        /// The domain searched.
        domain: String,
        /// The pack that an index object names for it, and that is gone.
        pack: Option<String>,
    },
    /// A value given by the caller cannot be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which value.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A prefix of an id fits several backups, or none.
    #[error("{reason}")]
    NoSuchBackup {
        /// What was looked for and what was found.
        reason: String,
    },
}

fn was_in(pack: &Option<String>) -> String {
    pack.as_ref().map_or_else(String::new, |pack| format!(": it was in {pack}, which is gone"))
}

impl RepoError {
    /// The reaction that this calls for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind().into(),
            Self::Corrupt { .. } | Self::KeysMissing { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } | Self::Older { .. } => ErrorKind::Unsupported,
            Self::NoRepository { .. } | Self::NoSuchBackup { .. } => ErrorKind::NotFound,
            Self::OtherRepository { .. } | Self::OtherSuite { .. } | Self::Invalid { .. } => {
                ErrorKind::Invalid
            }
            Self::OtherKey { .. }
            | Self::WrongKey { .. }
            | Self::NoRestoreKey { .. }
            | Self::Shredded { .. } => ErrorKind::Denied,
            Self::Collision { .. } => ErrorKind::AlreadyExists,
            // A refusal is no lost answer, though nobody has said that nothing was stored.
            Self::Unknown { source, .. } => source.kind().into(),
            Self::Fenced { .. } => ErrorKind::Conflict,
            // What it could not read others may, and nothing of the backup is missing.
            Self::Unsettled { source, .. } => match source.kind() {
                ErrorKind::Corrupt | ErrorKind::NotFound => ErrorKind::Conflict,
                kind => kind,
            },
            Self::NeedUnknown { source, .. } | Self::NoteUnread { source } => source.kind(),
            Self::PacksMissing { .. } | Self::ChunkMissing { .. } => ErrorKind::Incomplete,
        }
    }

    pub(crate) fn format(object: impl ToString, source: FormatError) -> Self {
        let object = object.to_string();
        match &source {
            FormatError::Older { .. } => Self::Older { object, source },
            FormatError::NoRestoreKey { .. } => Self::NoRestoreKey { object, source },
            FormatError::NoKeys { .. } => Self::KeysMissing { object, source },
            _ if source.kind() == ErrorKind::Unsupported => Self::Newer { object, source },
            _ => Self::Corrupt { object, source },
        }
    }

    /// True when an object is there and cannot be read, or is not there: nothing that trying again
    /// mends, and where another copy may be good.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Store(source) if source.is_media_error() => true,
            Self::NeedUnknown { source, .. } | Self::NoteUnread { source } => source.is_damage(),
            _ => matches!(
                self.kind(),
                ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound
            ),
        }
    }

    /// The error with its causes on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// True when the store proved that the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }
}
