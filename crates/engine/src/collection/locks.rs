//! Longer locks for what is needed. A bucket's default retention locks each object for some days
//! from its put, and deduplication goes on to use what is older: without this, a thief need only
//! wait until the lock of a pack is over that every backup refers to.
//!
//! Packs that are known to go are left out. It looks at the newest version of each name: what
//! somebody has put over an object hides it from here.

use std::collections::HashSet;

use futures::StreamExt as _;
use jiff::Timestamp;
use pgrecall_repo::RepoError;
use pgrecall_repo::id::PackId;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{DefaultLock, ErrorKind as StoreErrorKind, Key, LockRequest, Locked, Prefix};

use crate::cancel::Cancel;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// Objects that are asked about at once.
const REQUESTS_AT_ONCE: usize = 32;

const SECONDS_OF_A_DAY: i64 = 86_400;

/// What is to stay locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockPlan {
    /// The objects: each is asked how long it is locked.
    pub objects: Vec<Key>,
    /// What each is asked and told.
    pub request: LockRequest,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocksExtended {
    /// Objects that were looked at.
    pub objects: u64,
    /// Those whose locks are longer now.
    pub extended: u64,
}

/// Finds what is needed of a domain: all but the packs that are known to go, and what passes. A
/// pack that waits in a round may yet be spared, and is locked.
///
/// # Errors
/// When the store cannot list.
pub async fn plan(
    sealed: &SealedStore,
    domain: &Name,
    clusters: &[ClusterRef],
    going: &HashSet<PackId>,
    request: LockRequest,
) -> Result<LockPlan, EngineError> {
    let mut objects = of_repository(sealed).await?;
    for object in listed(sealed, &names::domain(domain)).await? {
        let passing = [names::all_intents(domain), names::retired(domain)];
        let pack = names::pack_of(domain, &object).map(|(_, id)| id);
        let goes = pack.is_some_and(|id| going.contains(&id));
        if !goes && !passing.iter().any(|folder| object.strip_prefix(folder).is_some()) {
            objects.push(object);
        }
    }
    for cluster in clusters {
        objects.extend(listed(sealed, &names::cluster_prefix(cluster, "")?).await?);
    }
    Ok(LockPlan { objects, request })
}

/// Until when locks are to last: as long from now, by this host's clock, as the bucket locks what
/// is put now. A lock that lasts for half of that is left alone, so that a run every week or so
/// writes to few objects.
///
/// # Errors
/// `Invalid` where the bucket has no default retention, `Denied` where nobody may ask for it; when
/// the store fails.
pub async fn request(sealed: &SealedStore, now: Timestamp) -> Result<LockRequest, EngineError> {
    let url = sealed.store().url();
    let (mode, days) = match sealed.store().keeping().await.map_err(RepoError::from)?.lock {
        DefaultLock::Days { mode, days } => (mode, i64::from(days)),
        DefaultLock::None => {
            let message = format!("{url} locks nothing: it has no default retention");
            return Err(EngineError::refused(ErrorKind::Invalid, message)
                .hint("Turn object lock on with a default retention: docs/s3-policy.md tells why.")
                .hint("Or leave --extend-locks out."));
        }
        DefaultLock::Unknown => {
            let message = format!("how long {url} locks what is put may not be asked");
            return Err(EngineError::refused(ErrorKind::Denied, message)
                .hint("The credentials need GetBucketObjectLockConfiguration."));
        }
    };
    let now_secs = now.as_second();
    let lasts = days.saturating_mul(SECONDS_OF_A_DAY);
    let until_secs = now_secs.saturating_add(lasts);
    Ok(LockRequest { mode, until_secs, enough_secs: now_secs.saturating_add(lasts / 2) })
}

/// What opens a repository at all: its root, its keys, what is known of its store.
async fn of_repository(sealed: &SealedStore) -> Result<Vec<Key>, EngineError> {
    let mut objects = vec![names::root()];
    objects.extend(listed(sealed, &names::wraps()).await?);
    // What a probe has put and might not delete lies there, too.
    let log = names::store_log();
    let found = listed(sealed, log.prefix()).await?;
    objects.extend(found.into_iter().filter(|object| log.number(object).is_some()));
    Ok(objects)
}

async fn listed(sealed: &SealedStore, prefix: &Prefix) -> Result<Vec<Key>, EngineError> {
    Ok(sealed.list(prefix).await?.into_iter().map(|object| object.key).collect())
}

/// Asks about each object, and extends the locks that end too early.
///
/// # Errors
/// The first that was met, after all objects were asked; what was extended stays so.
pub async fn extend(
    sealed: &SealedStore,
    plan: &LockPlan,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<LocksExtended, EngineError> {
    progress.phase("extending locks", None);
    let each = plan.objects.iter().map(|object| async move {
        cancel.check()?;
        match sealed.store().lock(object, plan.request).await {
            Ok(locked) => Ok::<_, EngineError>(u64::from(locked == Locked::Extended)),
            // It has expired, or was merged into another, since it was listed.
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(0),
            Err(error) => Err(RepoError::from(error).into()),
        }
    });
    let mut asked = futures::stream::iter(each).buffer_unordered(REQUESTS_AT_ONCE);
    let (mut extended, mut first) = (0, None);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(one) => extended += one,
            Err(EngineError::Cancelled) => return Err(EngineError::Cancelled),
            Err(error) => first = first.or(Some(error)),
        }
    }
    match first {
        Some(error) => Err(error),
        None => Ok(LocksExtended { objects: plan.objects.len() as u64, extended }),
    }
}
