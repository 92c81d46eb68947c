//! Settling a collision: two contents of one WAL file, of which a person says which one holds.
//!
//! Both are stored under names with their digests, then the settlement is written down as
//! `<file>.resolved`, and from that moment it holds ([`holder`]). Nothing is deleted or stored
//! over: a settlement that is interrupted has either not happened or is whole.

use bytes::Bytes;
use pgrecall_pgformat::ArchiveName;
use pgrecall_repo::format::document::Resolution;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::id::Digest;
use pgrecall_repo::object::{self, Payload, Proof, frames_of};
use pgrecall_repo::sealed_store::{SealedStore, Stored as Written};
use pgrecall_repo::{RepoError, archive};
use pgrecall_store::Key;

use super::access::{Access, Opened};
use super::cache::Reading;
use super::pack::{Compression, Packed};
use super::push::{self, Prepared, PushRequest, Stored};
use super::trailer::{self, StoredFile, Trailer};
use super::{check, holder};
use crate::catalog::chain;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// The digest's beginning, as in object names.
#[must_use]
pub fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(holder::DIGEST_DIGITS).collect()
}

/// Which content is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The beginning of its digest.
    pub digest: String,
    /// Why.
    pub reason: String,
    /// Who says so, for people.
    pub by: String,
}

/// One content of a file.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its digest, by the id key of today: what was stored before `key rotate --ids` has another
    /// one in its header, and would count as another content.
    pub digest: Digest,
    /// The object that holds it; nothing for a local file that is not stored.
    pub object: Option<Key>,
    /// The object under which a settlement keeps it, or will.
    pub kept: Key,
    /// What is known of it.
    pub trailer: Trailer,
    /// Whether recovery is served this one now.
    pub holds: bool,
}

/// The contents of a file, and the settlement if there is one.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The file's name.
    pub name: String,
    /// The contents, the stored one first.
    pub all: Vec<Content>,
    /// Stored copies that do not read, and why: nobody can tell what they were.
    pub unreadable: Vec<(Key, String)>,
    /// How it was settled before.
    pub settled: Option<Resolution>,
}

/// Where a content goes that has to share its name: `<file>.<16 digits of the digest>`.
pub(super) fn by_digest(key: &Key, digest: &Digest) -> Result<Key, EngineError> {
    holder::beside(key, &short(digest))
}

/// What a settlement means for one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no settlement.
    Unsettled,
    /// It is the one that is served, from this object.
    Holds(Key),
    /// It is kept, and another one is served.
    Lost,
    /// It is to be served from this object, which is not there.
    Missing(Key),
    /// Another one is served, and this one is not kept under its digest.
    NotKept,
}

/// How a content stands after the settlement over its file.
pub(super) async fn standing(
    cluster: &ClusterStore,
    file: &Key,
    content: &Packed,
) -> Result<Standing, EngineError> {
    let Some(settled) = holder::settled(&cluster.sealed, file).await? else {
        return Ok(Standing::Unsettled);
    };
    let of = |kept: Key| match kept == settled.object {
        true => Standing::Holds(kept),
        false => Standing::Lost,
    };
    let plain = content.plain(cluster.sealed.keys()).await?;
    // A content is kept under the digest by the id key of its day.
    for ids in cluster.sealed.keys().all_ids() {
        let kept = by_digest(file, &ids.digest(&plain))?;
        let header = match cluster.sealed.header(&kept).await {
            Ok(header) => header,
            Err(error) if error.is_not_found() && kept == settled.object => {
                return Ok(Standing::Missing(kept));
            }
            Err(error) if error.is_not_found() => continue,
            // The name says what it was.
            Err(RepoError::Corrupt { .. }) => return Ok(of(kept)),
            Err(error) => return Err(error.into()),
        };
        let (keys, generation) = (cluster.sealed.keys(), header.sealing.id_generation);
        if archive::digest_by(keys, generation, &kept, &plain)? == header.digest {
            return Ok(of(kept));
        }
    }
    Ok(Standing::NotKept)
}

/// Shows the contents of a file: the stored one, those kept by an earlier settlement, and the local
/// one that `request` names.
///
/// # Errors
/// `NotFound` when nothing is stored under the name; damage; an unreachable store.
pub async fn contents(
    access: &Access,
    name: &str,
    request: &PushRequest,
    local: Local,
) -> Result<Contents, EngineError> {
    let work = async {
        let open = Open::new(access, name, request).await?;
        let (contents, _) = open.contents(request, local).await?;
        Ok(contents)
    };
    access.patience.for_all("looking at the contents", work).await
}

/// Whether `request.path` is a content too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// It is.
    File,
    /// Only stored contents are looked at.
    None,
}

/// Settles which content of a file holds.
///
/// # Errors
/// When there are not two contents, the choice fits none or several of them, or it was settled
/// otherwise before.
pub async fn resolve(
    access: &Access,
    name: &str,
    request: &PushRequest,
    local: Local,
    choice: &Choice,
) -> Result<Contents, EngineError> {
    let work = async {
        let open = Open::new(access, name, request).await?;
        let (before, file) = open.contents(request, local).await?;
        let chosen = choose(&before, choice)?;
        open.settle(request, &before, file.as_ref(), chosen, choice).await?;
        let (after, _) = open.contents(request, Local::None).await?;
        Ok(after)
    };
    access.patience.for_all("settling the collision", work).await
}

fn choose<'a>(contents: &'a Contents, choice: &Choice) -> Result<&'a Content, EngineError> {
    let listed = || {
        let all: Vec<String> = contents.all.iter().map(|content| short(&content.digest)).collect();
        all.join(", ")
    };
    let refuse = |message: String| Err(EngineError::refused(ErrorKind::Invalid, message));
    if contents.all.len() < 2 && contents.unreadable.is_empty() {
        return refuse(format!(
            "there is one content of {} only ({}), and nothing to settle",
            contents.name,
            listed()
        ))
        .map_err(|error| error.hint("Name the other content with --file PATH."));
    }
    let fits = |content: &&Content| content.digest.to_string().starts_with(&choice.digest);
    let fitting: Vec<&Content> = contents.all.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => refuse(format!("no content has a digest {}: there are {}", choice.digest, listed())),
        _ => refuse(format!("several digests begin with {}: {}", choice.digest, listed())),
    }
}

/// A content is kept unless its name, which is of its digest, is another's.
pub(super) fn kept(key: &Key, stored: Stored) -> Result<(), EngineError> {
    match stored {
        Stored::Created | Stored::Before { damage: None } => Ok(()),
        Stored::Before { damage: Some(damage) } | Stored::Unknown { damage } => Err(damage.into()),
        Stored::Collision { stored } => {
            let message = format!("{key} holds other content, {}", short(&stored));
            Err(EngineError::refused(ErrorKind::Corrupt, message))
        }
    }
}

/// The file's objects in an open cluster.
struct Open {
    cluster: ClusterStore,
    name: ArchiveName,
    file: String,
    key: Key,
}

impl Open {
    async fn new(access: &Access, name: &str, request: &PushRequest) -> Result<Self, EngineError> {
        let size = request.facts.wal_segment_size;
        let name = ArchiveName::parse(name, size)
            .map_err(|source| EngineError::Postgres { path: name.to_owned(), source })?;
        let Opened { cluster, .. } = access.for_push(Reading::Anew, request.facts.clone()).await?;
        let key = wal_place::object(&cluster.at, name, size)?;
        Ok(Self { cluster, name, file: name.file_name(size), key })
    }

    async fn contents(
        &self,
        request: &PushRequest,
        local: Local,
    ) -> Result<(Contents, Option<Prepared>), EngineError> {
        let (mut all, mut unreadable): (Vec<Content>, Vec<_>) = (Vec::new(), Vec::new());
        let settled = match holder::settled(&self.cluster.sealed, &self.key).await {
            Ok(settled) => settled,
            Err(error) if error.is_proven_damage() => {
                unreadable.push((holder::settlement_of(&self.key)?, chain(&error)));
                None
            }
            Err(error) => return Err(error),
        };
        let is_known = unreadable.is_empty();
        let held = settled.as_ref().map_or(&self.key, |settled| &settled.object);
        let kept = holder::kept(&self.cluster.sealed, &self.key).await?;
        for object in [held, &self.key].into_iter().chain(&kept) {
            let (stored, digest) = match self.stored(object).await {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err(error) if error.is_proven_damage() => {
                    let told = (object.clone(), chain(&error));
                    if !unreadable.contains(&told) {
                        unreadable.push(told);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_kept = *object != self.key;
            match all.iter_mut().find(|content| content.digest == digest) {
                Some(content) if is_kept && content.object.as_ref() == Some(&self.key) => {
                    (content.kept, content.object) = (object.clone(), Some(object.clone()));
                }
                Some(_) => {}
                None => {
                    let (holds, trailer) = (object == held && is_known, stored.trailer);
                    let kept =
                        if is_kept { object.clone() } else { by_digest(&self.key, &digest)? };
                    let object = Some(object.clone());
                    all.push(Content { digest, holds, object, kept, trailer });
                }
            }
        }
        if all.is_empty() && unreadable.is_empty() {
            let message = format!("nothing is stored under the name {}", self.file);
            return Err(EngineError::refused(ErrorKind::NotFound, message));
        }
        let file = match local {
            Local::File => Some(push::prepare(&self.cluster, request, self.name).await?),
            Local::None => None,
        };
        if let Some(file) = &file
            && all.iter().all(|content| content.digest != file.packed.digest)
        {
            let trailer = file.trailer(request);
            let (digest, holds) = (file.packed.digest, false);
            let kept = by_digest(&self.key, &digest)?;
            all.push(Content { digest, object: None, kept, trailer, holds });
        }
        let settled = settled.map(|settled| settled.resolution);
        Ok((Contents { name: self.file.clone(), all, unreadable, settled }, file))
    }

    /// The digest of a stored content by the id key of today.
    async fn digest_of(&self, object: &Key, stored: &StoredFile) -> Result<Digest, EngineError> {
        let keys = self.cluster.sealed.keys();
        if stored.id_generation == keys.id_generation() {
            return Ok(stored.digest);
        }
        let mut digester = keys.digester();
        let limit = check::limit_bytes(self.name, &self.cluster.facts);
        let sealed = &self.cluster.sealed;
        archive::fetch(sealed, object, limit, Proof::Hash, |part| digester.update(part)).await?;
        Ok(digester.finish())
    }

    async fn stored(&self, key: &Key) -> Result<Option<(StoredFile, Digest)>, EngineError> {
        match trailer::read(&self.cluster.sealed, key).await {
            Ok(stored) => {
                let digest = self.digest_of(key, &stored).await?;
                Ok(Some((stored, digest)))
            }
            Err(EngineError::Repo(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn settle(
        &self,
        request: &PushRequest,
        contents: &Contents,
        file: Option<&Prepared>,
        chosen: &Content,
        choice: &Choice,
    ) -> Result<(), EngineError> {
        for content in &contents.all {
            match &content.object {
                Some(object) => match self.keep_stored(object, content).await {
                    // It lies under the file's own name still.
                    Err(error) if error.is_proven_damage() && content.kept != chosen.kept => {
                        tracing::warn!(%object, "{}: it stays where it is", chain(&error));
                    }
                    kept => kept?,
                },
                None => {
                    let Some(file) = file else { continue };
                    let key = &content.kept;
                    let object = file.seal(&self.cluster, key, request)?;
                    kept(key, file.store(&self.cluster, key, object).await?)?;
                }
            }
        }
        let resolution = Resolution {
            object: chosen.kept.to_string(),
            reason: choice.reason.clone(),
            by: format!("{} on {} at {}", choice.by, request.host, request.clock.now_text()),
            heals: false,
        };
        write_down(&self.cluster, &self.key, &resolution).await
    }

    /// Keeps a stored content under its digest: read, authenticated, and sealed for its new name.
    async fn keep_stored(&self, object: &Key, content: &Content) -> Result<(), EngineError> {
        let key = &content.kept;
        if object == key {
            return Ok(());
        }
        let sealed = &self.cluster.sealed;
        let limit = check::limit_bytes(self.name, &self.cluster.facts);
        let mut plain = Vec::new();
        archive::fetch(sealed, object, limit, Proof::Hash, |part| plain.extend_from_slice(part))
            .await?;
        let level = Compression::DEFAULT.level;
        let frames: Vec<_> = frames_of(&plain).map(|part| Payload::compress(part, level)).collect();
        let trailer = content.trailer.encode();
        let (keys, random) = (sealed.keys(), sealed.random());
        let digest = keys.digest(&plain);
        let class = push::class_of(self.name);
        let object = object::seal_archive(keys, class, key, digest, &frames, &trailer, random)?;
        let plain = async || Ok(Bytes::from(plain));
        kept(key, push::store(&self.cluster, key, digest, object, plain).await?)
    }
}

/// Puts the settlement over a file.
pub(super) async fn write_down(
    cluster: &ClusterStore,
    file: &Key,
    resolution: &Resolution,
) -> Result<(), EngineError> {
    let (sealed, key) = (&cluster.sealed, holder::settlement_of(file)?);
    let before = match sealed.put(Kind::Resolution, &key, resolution).await {
        Ok(Written::Mine) => return Ok(()),
        Ok(Written::Other) => holder::settled(sealed, file).await,
        Err(error) => Err(error.into()),
    };
    let replaces = match &before {
        // Saying the same again, for another reason or at another time, is fine.
        Ok(Some(before)) if before.resolution.object == resolution.object => return Ok(()),
        // A push has decided nothing, it said that one content is stored twice. Until the next put
        // has arrived the older copy is served, which does not read.
        Ok(Some(before)) => before.resolution.heals,
        Ok(None) => false,
        // A person says it anew, whatever it was.
        Err(error) => error.is_proven_damage(),
    };
    let before = match replaces && !resolution.heals {
        true => match replace(sealed, file, &key, resolution).await? {
            Written::Mine => return Ok(()),
            Written::Other => holder::settled(sealed, file).await,
        },
        false => before,
    };
    let before = before?.map(|settled| settled.resolution);
    let (what, by, reason) = match before {
        Some(before) => (before.object, before.by, before.reason),
        None => ("nothing".into(), "nobody".into(), "none".into()),
    };
    let file = file.file_name();
    let message = format!("{file} was settled before, to be {what}, by {by}: {reason}");
    Err(EngineError::refused(ErrorKind::Conflict, message))
}

/// Puts a settlement in the place of another. Until it has arrived, what lies under the plain name
/// is served.
async fn replace(
    sealed: &SealedStore,
    file: &Key,
    key: &Key,
    resolution: &Resolution,
) -> Result<Written, EngineError> {
    // Whatever ends this, a time limit too, the reader knows what to do.
    tracing::warn!(
        settlement = %key,
        "a settlement is replaced; if this does not end well, run it again at once"
    );
    if let Err(error) = sealed.store().delete(key).await.map_err(RepoError::from) {
        return match error.kind() {
            ErrorKind::Denied => Err(error.into()),
            _ => Err(unsettled_now(file, "MAY NOT BE THERE NOW", &error.into())),
        };
    }
    let put = sealed.put(Kind::Resolution, key, resolution).await;
    put.map_err(|error| unsettled_now(file, "IS NOT THERE NOW", &error.into()))
}

/// The old settlement is gone, or may be, and the new one did not arrive.
fn unsettled_now(file: &Key, how: &str, error: &EngineError) -> EngineError {
    let message = format!(
        "the settlement of {file} {how}; without it recovery is served what lies under that name: \
         {}",
        chain(error)
    );
    EngineError::refused(error.kind(), message)
        .hint("Run the same command again at once, and restore nothing before it has ended well.")
}
