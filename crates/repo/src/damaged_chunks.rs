//! Notes of chunks that were found bad, each in an object of its own: backups store such chunks
//! again, and no collection takes a bad copy for one that counts.
//!
//! What a note says that does not read nobody knows any more. It stays where it is, so that nothing
//! expires and nothing is collected, until somebody has read every copy of every chunk again and
//! has put another note that says what is bad, and which notes it replaces.

use std::collections::HashSet;

use futures::StreamExt as _;
use pgrecall_store::{ErrorKind as Refusal, Key};

use crate::error::RepoError;
use crate::format::document::{Damage, DamagedChunk};
use crate::format::header::Kind;
use crate::id::DamageId;
use crate::names::{self, Name};
use crate::sealed_store::SealedStore;

/// Small reads at once.
const READS_AT_ONCE: usize = 16;

/// Chunks of one note: a document has a limit.
const CHUNKS_MAX: usize = 100_000;

/// Times that notes are listed, since those that were replaced go.
const LISTINGS_MAX: u32 = 5;

/// Every note of a domain.
#[derive(Debug, Default)]
pub struct ChunkNotes {
    /// What they say is bad.
    pub chunks: HashSet<DamagedChunk>,
    /// Those that do not read, and that no other replaces.
    pub unread: Vec<UnreadNote>,
    /// Those that do not read any more, and that another has replaced.
    pub replaced: Vec<Key>,
}

/// A note that does not read.
#[derive(Debug)]
pub struct UnreadNote {
    /// Its object.
    pub name: Key,
    /// Its id.
    pub id: DamageId,
    /// Why not.
    pub error: RepoError,
}

impl UnreadNote {
    /// Whether another can stand for it once everything has been read: not where another version of
    /// the program may read it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match &self.error {
            // Such as one that is far too long.
            RepoError::Store(error)
                if error.is_media_error() || error.kind() == Refusal::Corrupt =>
            {
                true
            }
            RepoError::Corrupt { .. } | RepoError::KeysMissing { .. } => true,
            // Listed time after time, and not to be had.
            error => error.is_not_found(),
        }
    }
}

impl ChunkNotes {
    /// Reads all of them.
    ///
    /// # Errors
    /// When the store fails. That one does not read is no failure here.
    pub async fn read(sealed: &SealedStore, domain: &Name) -> Result<Self, RepoError> {
        for _ in 1..LISTINGS_MAX {
            let notes = Self::try_read(sealed, domain).await?;
            // A repair has moved one that was replaced; the listing that follows shows by what.
            if !notes.unread.iter().any(|note| note.error.is_not_found()) {
                return Ok(notes);
            }
        }
        Self::try_read(sealed, domain).await
    }

    async fn try_read(sealed: &SealedStore, domain: &Name) -> Result<Self, RepoError> {
        let listed = sealed.list(&names::all_damaged(domain)).await?;
        let ids = listed
            .into_iter()
            .filter_map(|object| Some((names::damaged_of(domain, &object.key)?, object.key)));
        let mut read = futures::stream::iter(ids)
            .map(|(id, name)| async move {
                let note = sealed.get::<Damage>(Kind::Damage, &name).await;
                (id, name, note)
            })
            .buffered(READS_AT_ONCE);
        let (mut notes, mut replaced) = (Self::default(), HashSet::new());
        while let Some((id, name, note)) = read.next().await {
            match note {
                Ok(note) => {
                    notes.chunks.extend(note.chunks);
                    replaced.extend(note.replaces);
                }
                Err(error) if error.is_damage() => {
                    notes.unread.push(UnreadNote { name, id, error });
                }
                Err(error) => return Err(error),
            }
        }
        let (gone, unread) = notes.unread.into_iter().partition(|note| replaced.contains(&note.id));
        let gone: Vec<UnreadNote> = gone;
        let replaced = gone.into_iter().map(|note| note.name).collect();
        Ok(Self { chunks: notes.chunks, unread, replaced })
    }

    /// What is bad, for those who delete something because of it.
    ///
    /// # Errors
    /// When there is a note that does not read.
    pub fn all(self) -> Result<HashSet<DamagedChunk>, RepoError> {
        match self.unread.into_iter().next() {
            Some(note) => Err(RepoError::NoteUnread { source: Box::new(note.error) }),
            None => Ok(self.chunks),
        }
    }

    /// What is known to be bad, for those who can do with that: what else is bad they may meet.
    #[must_use]
    pub fn known(self) -> HashSet<DamagedChunk> {
        for UnreadNote { name, error, .. } in &self.unread {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(
                object = %name, %error, cause,
                "a note of what was found damaged does not read: `pgrecall verify --read-data` \
                 finds again what it said"
            );
        }
        self.chunks
    }
}

/// Notes chunks found bad, and that the note stands for others that do not read.
///
/// # Errors
/// When the store does not confirm the note.
pub async fn note(
    sealed: &SealedStore,
    domain: &Name,
    chunks: Vec<DamagedChunk>,
    replaces: Vec<DamageId>,
    found: String,
) -> Result<(), RepoError> {
    // The last says what the others are parts of.
    let mut parts = chunks.chunks(CHUNKS_MAX).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            put(sealed, domain, part, Vec::new(), &found).await?;
        } else {
            return put(sealed, domain, part, replaces, &found).await;
        }
    }
    if !replaces.is_empty() {
        put(sealed, domain, &[], replaces, &found).await?;
    }
    Ok(())
}

async fn put(
    sealed: &SealedStore,
    domain: &Name,
    chunks: &[DamagedChunk],
    replaces: Vec<DamageId>,
    found: &str,
) -> Result<(), RepoError> {
    let name = names::damaged(domain, DamageId::random(sealed.random()));
    let note = Damage { chunks: chunks.to_vec(), wal: Vec::new(), found: found.into(), replaces };
    sealed.put(Kind::Damage, &name, &note).await?;
    Ok(())
}
