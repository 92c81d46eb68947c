//! Storing a WAL file: exactly once, durably, and only if it is what its name says.

use std::path::PathBuf;
use std::sync::mpsc;

use pgrecall_pgformat::ArchiveName;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_repo::RepoError;
use pgrecall_repo::archive::{self, Pushed};
use pgrecall_repo::format::header::KeyClass;
use pgrecall_repo::id::Digest;
use pgrecall_repo::object;
use pgrecall_store::Key;

use super::access::{Access, Opened, copies_may_be_wrong};
use super::cache::Reading;
use super::pack::{self, Compression, Packed, ToPack};
use super::patience::Moves;
use super::resolve::Standing;
use super::trailer::{self, Trailer};
use super::{check, heal, resolve};
use crate::catalog::chain;
use crate::clock::Clock;
use crate::cluster::{ClusterFacts, ClusterStore};
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// A file to store.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Where it is.
    pub path: PathBuf,
    /// The cluster whose data directory it comes from.
    pub facts: ClusterFacts,
    /// This host's name, for people.
    pub host: String,
    /// How to compress.
    pub compression: Compression,
    /// Tells the time.
    pub clock: Clock,
}

/// How a push ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushResult {
    /// This push stored the file.
    Created,
    /// The same content was stored before, and is what recovery is served.
    AlreadyThere,
    /// The same content was stored before and had rotted: this push stored it beside, and that is
    /// what recovery is served from now on.
    Healed,
    /// This content lost a collision that a person settled: it is kept, and another one served.
    Lost,
}

/// What a push did. The file is durable in the repository.
#[derive(Debug, Clone)]
pub struct PushOutcome {
    /// How it ended.
    pub result: PushResult,
    /// The file's name.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the object; what the put sent, or would have sent.
    pub stored_bytes: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// What is wrong with the WAL itself, to be told loudly: it is archived all the same.
    pub damage: Vec<String>,
    /// What a segment holds.
    pub summary: Option<SegmentSummary>,
}

/// Stores a segment, `.partial`, `.history` or `.backup` file.
///
/// # Errors
/// `Invalid` when the file is not what its name says; `Conflict` when its name is taken by other
/// content; whatever else keeps it from being durable.
pub async fn push(access: &Access, request: PushRequest) -> Result<PushOutcome, EngineError> {
    let what = format!("archiving {}", request.path.display());
    let pushing = async {
        match push_reading(Reading::Copies, access, &request).await {
            // A new epoch of keys may have begun since the copies were made.
            Err(error @ EngineError::Repo(_))
                if access.cache.is_some() && copies_may_be_wrong(&error) =>
            {
                tracing::debug!("reading everything anew: {error}");
                push_reading(Reading::Anew, access, &request).await
            }
            ended => ended,
        }
    };
    let pushed = access.patience.for_all(&what, pushing).await;
    pushed.map_err(|error| unknown_copy(error, &request))
}

/// What to do where a stored copy does not say what it is: only a person knows whether this server
/// is the one to believe.
fn unknown_copy(error: EngineError, request: &PushRequest) -> EngineError {
    let file = request.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match &error {
        EngineError::Repo(RepoError::Corrupt { object, .. })
            if object.rsplit('/').next().is_some_and(|name| name.starts_with(file)) =>
        {
            let message = format!("what is stored as {file} does not read: {}", chain(&error));
            EngineError::refused(ErrorKind::Corrupt, message).hint(format!(
                "If this server is the true primary, have its copy hold: pgrecall wal resolve \
                 {file} --file {} shows its digest, and what to add.",
                request.path.display()
            ))
        }
        _ => error,
    }
}

async fn push_reading(
    reading: Reading,
    access: &Access,
    request: &PushRequest,
) -> Result<PushOutcome, EngineError> {
    let began = request.clock.elapsed();
    let size = request.facts.wal_segment_size;
    let name = name_of(request)?;
    // Opening the repository is under way from the first moment, reading and compressing meanwhile.
    let (opening, facts) = (access.clone(), request.facts.clone());
    let opening = AbortOnDrop(tokio::spawn(async move { opening.for_push(reading, facts).await }));
    let (send, keys) = mpsc::channel();
    let opening = async {
        let Opened { cluster, by } = opening.ended().await?;
        // If nobody listens, the file has failed, and that is told there.
        let _ = send.send(cluster.sealed.keys().clone());
        if by == Reading::Copies {
            access.confirm_keys(&cluster).await?;
        }
        Ok(cluster)
    };
    let packing = pack::start(to_pack(name, request), keys);
    let (cluster, packed) = futures::try_join!(opening, packing)?;
    let file = Prepared { name, file: name.file_name(size), packed };
    let damage = match &file.packed.summary {
        Some(summary) => check::after_walk(name, &file.file, summary)?,
        None => Vec::new(),
    };
    let key = wal_place::object(&cluster.at, name, size)?;
    let object = file.seal(&cluster, &key, request)?;
    let stored_bytes = object.len() as u64;
    let result = put(access, &cluster, &key, &file, object, request).await?;
    if let (ArchiveName::Segment(segment), PushResult::Created) = (name, result)
        && let Some(memory) = access.memory(&cluster)
    {
        memory.keep_segment(segment, size, &cluster).await;
    }
    Ok(PushOutcome {
        result,
        bytes: file.packed.size,
        name: file.file,
        stored_bytes,
        elapsed_ms: millis(request.clock.elapsed().saturating_sub(began)),
        damage,
        summary: file.packed.summary,
    })
}

/// Stores a file for a cluster that is open already, and whose caller watches the time.
///
/// # Errors
/// As [`push`].
pub async fn push_open(
    cluster: &ClusterStore,
    request: &PushRequest,
) -> Result<PushResult, EngineError> {
    let name = name_of(request)?;
    let file = prepare(cluster, request, name).await?;
    if let Some(summary) = &file.packed.summary {
        check::after_walk(name, &file.file, summary)?;
    }
    let key = wal_place::object(&cluster.at, name, request.facts.wal_segment_size)?;
    let object = file.seal(cluster, &key, request)?;
    let stored = match file.store(cluster, &key, object.clone()).await {
        // An answer got lost: the same bytes again, and the store knows them.
        Err(EngineError::Repo(RepoError::Unknown { .. })) => {
            file.store(cluster, &key, object).await?
        }
        other => other?,
    };
    told(stored, cluster, &key, &file, request).await
}

/// A file that was read, checked and compressed.
pub(super) struct Prepared {
    pub(super) name: ArchiveName,
    pub(super) file: String,
    pub(super) packed: Packed,
}

impl Prepared {
    pub(super) fn trailer(&self, request: &PushRequest) -> Trailer {
        Trailer {
            version: trailer::VERSION,
            kind: kind_of(self.name),
            name: self.file.clone(),
            plain_bytes: self.packed.size,
            summary: self.packed.summary.clone(),
            host: request.host.clone(),
            pushed: request.clock.now_text(),
        }
    }

    /// The object under this name: seals are bound to names.
    pub(super) fn seal(
        &self,
        cluster: &ClusterStore,
        key: &Key,
        request: &PushRequest,
    ) -> Result<bytes::Bytes, EngineError> {
        let trailer = self.trailer(request);
        let (keys, random) = (cluster.sealed.keys(), cluster.sealed.random());
        let frames = &self.packed.frames;
        let (class, digest) = (class_of(self.name), self.packed.digest);
        Ok(object::seal_archive(keys, class, key, digest, frames, &trailer.encode(), random)?)
    }

    /// Stores the object that this was sealed as.
    pub(super) async fn store(
        &self,
        cluster: &ClusterStore,
        key: &Key,
        object: bytes::Bytes,
    ) -> Result<Stored, EngineError> {
        let plain = async || self.packed.plain(cluster.sealed.keys()).await;
        store(cluster, key, self.packed.digest, object, plain).await
    }
}

/// Reads, checks and compresses a file for a cluster that is open already.
pub(super) async fn prepare(
    cluster: &ClusterStore,
    request: &PushRequest,
    name: ArchiveName,
) -> Result<Prepared, EngineError> {
    let (send, keys) = mpsc::channel();
    let _ = send.send(cluster.sealed.keys().clone());
    let packed = pack::start(to_pack(name, request), keys).await?;
    let file = name.file_name(request.facts.wal_segment_size);
    Ok(Prepared { name, file, packed })
}

/// What is to be done with the file.
fn to_pack(name: ArchiveName, request: &PushRequest) -> ToPack {
    let segment = match name {
        ArchiveName::Segment(segment) | ArchiveName::Partial(segment) => {
            Some((segment, request.facts.wal_segment_size))
        }
        ArchiveName::History(_) | ArchiveName::BackupHistory { .. } => None,
    };
    let facts = request.facts.clone();
    ToPack {
        path: request.path.clone(),
        limit_bytes: check::limit_bytes(name, &facts),
        check: Box::new(move |size, first| check::before_walk(name, size, first, &facts)),
        segment,
        compression: request.compression,
    }
}

fn name_of(request: &PushRequest) -> Result<ArchiveName, EngineError> {
    let file = request.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ArchiveName::parse(file, request.facts.wal_segment_size).map_err(|source| {
        EngineError::Postgres { path: request.path.display().to_string(), source }
    })
}

async fn put(
    access: &Access,
    cluster: &ClusterStore,
    key: &Key,
    file: &Prepared,
    object: bytes::Bytes,
    request: &PushRequest,
) -> Result<PushResult, EngineError> {
    let step = (access.watch(), "storing the file", Moves::In(object.len() as u64));
    let once =
        async || access.patience.for_step(step, file.store(cluster, key, object.clone())).await;
    let began = request.clock.elapsed();
    let stored = match once().await {
        // An answer got lost: the same bytes again, and the store knows them. A store that has
        // used up the time by itself has sent them more than once already.
        Err(EngineError::Repo(RepoError::Unknown { source, .. }))
            if source.kind() == pgrecall_store::ErrorKind::Unavailable
                && request.clock.elapsed().saturating_sub(began) < access.patience.progress / 2 =>
        {
            tracing::warn!("{source}: storing it once more");
            once().await
        }
        other => other,
    };
    let stored = stored.map_err(|error| match error {
        // It was not lost but refused, and that is known.
        EngineError::Repo(RepoError::Unknown { source, .. })
            if source.kind() != pgrecall_store::ErrorKind::Unavailable =>
        {
            EngineError::Repo(RepoError::Store(source))
        }
        other => other,
    })?;
    told(stored, cluster, key, file, request).await
}

/// What became of an object.
pub(super) enum Stored {
    /// It is stored, durably.
    Created,
    /// The same contents were stored before.
    Before {
        /// Why they do not read to their end, where they do not.
        damage: Option<RepoError>,
    },
    /// What has the name does not say what it is.
    Unknown {
        /// Why not.
        damage: RepoError,
    },
    /// Other contents have the name.
    Collision {
        /// Their digest.
        stored: Digest,
    },
}

/// Puts an object whose contents have this digest; where its name is taken, compares what is there.
/// The contents themselves are asked for only if another id key has digested that.
pub(super) async fn store(
    cluster: &ClusterStore,
    key: &Key,
    digest: Digest,
    object: bytes::Bytes,
    plain: impl AsyncFnOnce() -> Result<bytes::Bytes, EngineError>,
) -> Result<Stored, EngineError> {
    let (stored, generation, damage) = match archive::push(&cluster.sealed, key, object).await {
        Ok(Pushed::Created) => return Ok(Stored::Created),
        Ok(Pushed::Taken { stored, generation, damage }) => (stored, generation, damage),
        Err(damage @ RepoError::Corrupt { .. }) => return Ok(Stored::Unknown { damage }),
        Err(error) => return Err(error.into()),
    };
    let keys = cluster.sealed.keys();
    // What an earlier id key digested is digested by that one once more.
    let ours = if generation == keys.id_generation() {
        digest
    } else {
        archive::digest_by(keys, generation, key, &plain().await?)?
    };
    match damage {
        damage if stored == ours => Ok(Stored::Before { damage }),
        None => Ok(Stored::Collision { stored }),
        // To other keys than those of its domain it looks like that.
        Some(damage) => Ok(Stored::Unknown { damage }),
    }
}

async fn told(
    stored: Stored,
    cluster: &ClusterStore,
    key: &Key,
    file: &Prepared,
    request: &PushRequest,
) -> Result<PushResult, EngineError> {
    if matches!(stored, Stored::Created) {
        return Ok(PushResult::Created);
    }
    match (resolve::standing(cluster, key, &file.packed).await?, stored) {
        (Standing::Holds(kept), _) => heal::keep_sound(cluster, &kept, file, request).await,
        (Standing::Lost, _) => Ok(PushResult::Lost),
        (Standing::Unsettled, Stored::Before { damage }) => {
            match heal::what_rotted(cluster, key, file, damage).await? {
                None => Ok(PushResult::AlreadyThere),
                Some(why) => heal::heal(cluster, key, file, request, why).await,
            }
        }
        (Standing::Missing(kept), _) => {
            heal::keep(cluster, &kept, file, request).await?;
            Ok(PushResult::Healed)
        }
        (Standing::NotKept, Stored::Before { .. }) => {
            // It could not be read when another one was settled on.
            let kept = resolve::by_digest(key, &file.packed.digest)?;
            heal::keep(cluster, &kept, file, request).await?;
            Ok(PushResult::Lost)
        }
        (_, Stored::Collision { stored }) => {
            Err(collision(cluster, key, file, stored, request).await)
        }
        (_, Stored::Unknown { damage }) => Err(damage.into()),
        (_, Stored::Created) => Ok(PushResult::Created),
    }
}

/// Names both contents: their digests, hosts and timelines.
async fn collision(
    cluster: &ClusterStore,
    key: &Key,
    file: &Prepared,
    stored: Digest,
    request: &PushRequest,
) -> EngineError {
    let there = match trailer::read(&cluster.sealed, key).await {
        Ok(there) => format!(
            "pushed by {} at {}, {}",
            there.trailer.host,
            there.trailer.pushed,
            there.trailer.timelines()
        ),
        Err(error) => format!("its trailer does not read: {error}"),
    };
    let message = format!(
        "{} is stored already with OTHER CONTENT: stored {} ({there}); this one {} (host {}, {})",
        file.file,
        resolve::short(&stored),
        resolve::short(&file.packed.digest),
        request.host,
        file.trailer(request).timelines()
    );
    EngineError::refused(ErrorKind::Conflict, message)
        .hint(
            "Two servers write one timeline: find out which one is the true primary, and stop the \
             other.",
        )
        .hint(format!(
            "Then settle it: pgrecall wal resolve {} --file {} shows both contents.",
            file.file,
            request.path.display()
        ))
}

fn kind_of(name: ArchiveName) -> pgrecall_pgformat::segment::ArchiveNameKind {
    use pgrecall_pgformat::segment::ArchiveNameKind as Kind;
    match name {
        ArchiveName::Segment(_) => Kind::Segment,
        ArchiveName::Partial(_) => Kind::Partial,
        ArchiveName::History(_) => Kind::History,
        ArchiveName::BackupHistory { .. } => Kind::BackupHistory,
    }
}

/// Histories are read by whoever lists and plans, and on a host without the restore key too.
pub(super) const fn class_of(name: ArchiveName) -> KeyClass {
    match name {
        ArchiveName::Segment(_) | ArchiveName::Partial(_) => KeyClass::Data,
        ArchiveName::History(_) | ArchiveName::BackupHistory { .. } => KeyClass::Meta,
    }
}

pub(super) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A task that does not outlive who waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<Result<T, EngineError>>);

impl<T> AbortOnDrop<T> {
    async fn ended(mut self) -> Result<T, EngineError> {
        (&mut self.0).await.unwrap_or_else(|error| {
            let message = format!("the task that opens the repository died: {error}");
            Err(EngineError::refused(ErrorKind::Internal, message))
        })
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
