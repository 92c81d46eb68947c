//! Bringing a WAL file back, or proving that the repository does not have it.
//!
//! PostgreSQL ends recovery where it is told "no such file", so that word is given only after the
//! repository itself, told by its pinned id, has shown that it knows the cluster that asks.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use pgrecall_pgformat::{ArchiveName, SegmentSize};
use pgrecall_repo::archive;
use pgrecall_repo::format::document::Identity;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::object::Proof;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::Key;
use rustix::fs::{FlockOperation, flock};

use super::access::{Access, copies_may_be_wrong};
use super::cache::Reading;
use super::data_directory::DataDirectory;
use super::patience::Moves;
use super::{check, holder};
use crate::clock::Clock;
use crate::cluster::{ClusterFacts, ClusterStore, LostIdentity};
use crate::error::{EngineError, ErrorKind};
use crate::pieces;
use crate::wal_place;

/// A file to bring back.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Its name, as PostgreSQL gives it by `%f`.
    pub name: String,
    /// Where it goes, as PostgreSQL gives it by `%p`.
    pub destination: PathBuf,
    /// The data directory that asks; without one, absence cannot be proven.
    pub asking: Option<DataDirectory>,
    /// Tells the time.
    pub clock: Clock,
}

/// How a fetch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The file is at its destination, whole and authentic.
    Fetched {
        /// Its size.
        bytes: u64,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// The repository proved that it does not have the file.
    ProvenAbsent,
}

/// The first timeline has no ancestors and no history file, so nobody need be asked for it. That
/// matters: PostgreSQL asks for it in the middle of a promotion, when the signal files are gone
/// already (`writeTimeLineHistory` in `timeline.c`).
const FIRST_HISTORY: &str = "00000001.history";

/// Fetches a file. Whatever the name asks for is served: a `.partial` file too, but never in place
/// of its segment.
///
/// # Errors
/// Everything but success and proven absence: a damaged object above all, an unreachable store, a
/// repository that is not the pinned one, a cluster that it does not know.
pub async fn fetch(access: &Access, request: &FetchRequest) -> Result<FetchOutcome, EngineError> {
    let what = format!("fetching {}", request.name);
    access.patience.for_all(&what, fetch_without_limit(access, request)).await
}

async fn fetch_without_limit(
    access: &Access,
    request: &FetchRequest,
) -> Result<FetchOutcome, EngineError> {
    let began = request.clock.elapsed();
    if request.name == FIRST_HISTORY {
        return Ok(FetchOutcome::ProvenAbsent);
    }
    let target = Target::find(access, request).await?;
    let system = target.facts.system_identifier;
    let mut sealed = access.for_fetch(Reading::Copies, system).await?;
    let mut found = target.bring(access, &sealed).await;
    if found.as_ref().err().is_some_and(copies_may_be_wrong) && access.cache.is_some() {
        // A new epoch of keys may have begun since the copies were made.
        sealed = access.for_fetch(Reading::Anew, system).await?;
        found = target.bring(access, &sealed).await;
    }
    let Some(bytes) = found? else {
        prove_absence(access, &sealed, request, &target).await?;
        return Ok(FetchOutcome::ProvenAbsent);
    };
    let elapsed_ms = super::push::millis(request.clock.elapsed().saturating_sub(began));
    Ok(FetchOutcome::Fetched { bytes, elapsed_ms })
}

/// Which object is asked for, and where it goes.
struct Target<'a> {
    name: ArchiveName,
    facts: ClusterFacts,
    at: ClusterRef,
    key: Key,
    destination: &'a Path,
}

impl<'a> Target<'a> {
    async fn find(access: &Access, request: &'a FetchRequest) -> Result<Self, EngineError> {
        let facts = match &request.asking {
            Some(asking) => asking.facts.clone(),
            None => only_lineage(access).await?,
        };
        let size = facts.wal_segment_size;
        let name = parse(&request.name, size)?;
        let at = access.at(facts.system_identifier);
        let key = wal_place::object(&at, name, size)?;
        Ok(Self { name, facts, at, key, destination: &request.destination })
    }

    /// Brings the content that holds to the destination; nothing if there is none.
    async fn bring(
        &self,
        access: &Access,
        sealed: &SealedStore,
    ) -> Result<Option<u64>, EngineError> {
        let limit = check::limit_bytes(self.name, &self.facts);
        let mut beside = Beside::open(self.destination)?;
        let read = holder::read(sealed, &self.key, async |object| {
            beside.restart()?;
            archive::fetch(sealed, object, limit, Proof::Seals, |part| beside.write(part)).await?;
            beside.check()?;
            if matches!(self.name, ArchiveName::Segment(_)) && beside.bytes != limit {
                let found = beside.bytes;
                let message = format!("{object} holds {found} bytes, where a segment has {limit}");
                return Err(EngineError::refused(ErrorKind::Corrupt, message));
            }
            Ok(())
        });
        let step = (access.watch(), "reading the file from the repository", Moves::Out(limit));
        match access.patience.for_step(step, read).await {
            Ok(()) => beside.finish().map(Some),
            Err(EngineError::Repo(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse(name: &str, size: SegmentSize) -> Result<ArchiveName, EngineError> {
    ArchiveName::parse(name, size)
        .map_err(|source| EngineError::Postgres { path: name.to_owned(), source })
}

/// The one lineage under the cluster's name, for a person who fetches a file by hand.
async fn only_lineage(access: &Access) -> Result<ClusterFacts, EngineError> {
    let repository = Repository::open(access.store.clone(), access.options.clone()).await?;
    let lineages = ClusterStore::lineages(&repository, &access.cluster).await?;
    let [only] = lineages.as_slice() else {
        let message = format!(
            "cannot tell which cluster asks: no global/pg_control is near, and the repository \
             knows {} system identifiers under the name {}",
            lineages.len(),
            access.cluster
        );
        return Err(EngineError::refused(ErrorKind::Invalid, message)
            .hint("Name the data directory with --pgdata."));
    };
    let cluster = ClusterStore::find(&repository, &access.domain, &access.cluster, *only).await?;
    let sizes = cluster.sealed.list_folders(&wal_place::sizes(&cluster.at)?).await?;
    if sizes.len() > 1 {
        let message = "cannot tell which WAL is meant: no global/pg_control is near, and the \
                       cluster has had segments of more than one size";
        return Err(EngineError::refused(ErrorKind::Invalid, message)
            .hint("Name the data directory with --pgdata."));
    }
    Ok(cluster.facts)
}

/// Returns only if the repository is the pinned one and knows the cluster that asks.
async fn prove_absence(
    access: &Access,
    sealed: &SealedStore,
    request: &FetchRequest,
    target: &Target<'_>,
) -> Result<(), EngineError> {
    let name = &request.name;
    let unproven = |why: String| {
        EngineError::refused(
            ErrorKind::Incomplete,
            format!("{name} was not found, but that it does not exist is NOT PROVEN: {why}"),
        )
    };
    if request.asking.is_none() {
        return Err(unproven("no data directory is known that asks for it".into())
            .hint("Name the data directory with --pgdata."));
    }
    if access.options.id.is_none() {
        return Err(unproven("the configuration pins no repository id".into())
            .hint("`pgrecall init` writes repository.id into the configuration."));
    }
    let identity = names::cluster_object(&target.at, "identity")?;
    let look = async {
        // The store itself, now: a copy of the root on this host proves nothing.
        let root = Repository::read_root(&access.store, &access.options);
        let known = sealed.get::<Identity>(Kind::Identity, &identity);
        // Contents that a settlement kept: the file was there, whatever became of its name.
        let kept = holder::kept(sealed, &target.key);
        let (root, known, kept) = futures::join!(root, known, kept);
        root?;
        match known {
            Ok(_) => Ok((true, kept?)),
            Err(error) => match LostIdentity::of(&error) {
                Some(lost) => Ok((is_known_by_backups(sealed, &target.at, lost).await?, kept?)),
                None => Err(error.into()),
            },
        }
    };
    let step = (access.watch(), "proving that the file does not exist", Moves::Little);
    let (known, kept) = access.patience.for_step(step, look).await?;
    if let Some(example) = kept.first() {
        let count = kept.len();
        let key = &target.key;
        let why = format!(
            "{count} contents of it are kept ({example}), and {key}.resolved, which said which of \
             them holds, is gone"
        );
        return Err(unproven(why).hint(format!("Settle it again: pgrecall wal resolve {name}")));
    }
    if known {
        return Ok(());
    }
    let id = &target.at.lineage;
    Err(unproven(format!(
        "the repository has nothing of cluster {} with system identifier {id}",
        access.cluster
    ))
    .hint("Is this the right repository, and the right --cluster?"))
}

/// Whether there are backups of the cluster, in the domain of these keys: they prove as much as its
/// identity does.
async fn is_known_by_backups(
    sealed: &SealedStore,
    at: &ClusterRef,
    lost: LostIdentity,
) -> Result<bool, EngineError> {
    for folder in sealed.list_folders(&names::domains()).await? {
        let Ok(domain) = folder.name().parse() else { continue };
        let at = ClusterRef { domain, ..at.clone() };
        // Those of other domains do not open.
        if ClusterFacts::by_backups(sealed, &at, lost).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file while it is being written: beside its destination, under a name of its own.
struct Beside<'a> {
    destination: &'a Path,
    path: PathBuf,
    file: File,
    bytes: u64,
    failed: Option<io::Error>,
}

impl<'a> Beside<'a> {
    /// The name is fixed, so that what a killed fetch left is used again; the lock keeps a second
    /// process out.
    fn open(destination: &'a Path) -> Result<Self, EngineError> {
        let mut name = destination.file_name().unwrap_or_default().to_owned();
        name.push(".pgrecall");
        let path = destination.with_file_name(name);
        let fail = |error: io::Error| EngineError::file("write", &path, error);
        for _ in 0..100 {
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(fail)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let message = format!("another process is fetching to {}", destination.display());
                return Err(EngineError::refused(ErrorKind::Conflict, message));
            }
            // Who had the lock before may have given this very file its final name.
            let (ours, there) = (file.metadata().map_err(fail)?, fs::symlink_metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { destination, path, file, bytes: 0, failed: None });
            }
        }
        let message = format!("{} keeps changing under us", path.display());
        Err(EngineError::refused(ErrorKind::Conflict, message))
    }

    /// Begins anew with an empty file.
    fn restart(&mut self) -> Result<(), EngineError> {
        let fail = |error| EngineError::file("write", &self.path, error);
        // Truncated only if there is something: ext4 takes any truncation to nothing for a file
        // being replaced, and writes it out when it is closed (auto_da_alloc).
        if self.file.metadata().map_err(fail)?.len() > 0 {
            self.file.set_len(0).map_err(fail)?;
        }
        self.file.rewind().map_err(fail)?;
        (self.bytes, self.failed) = (0, None);
        Ok(())
    }

    fn write(&mut self, part: &[u8]) {
        if self.failed.is_none() {
            self.failed = pieces::write_all(&self.file, part).err();
            self.bytes += part.len() as u64;
        }
    }

    /// Whether all that was written has arrived.
    fn check(&mut self) -> Result<(), EngineError> {
        match self.failed.take() {
            Some(error) => Err(EngineError::file("write", &self.path, error)),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<u64, EngineError> {
        // PostgreSQL renames the file once more, and syncs it then.
        fs::rename(&self.path, self.destination)
            .map_err(|error| EngineError::file("write", self.destination, error))?;
        self.path = PathBuf::new();
        Ok(self.bytes)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
