//! The plan of a collection: what would be done, in bytes and requests. It is a guess by which
//! packs are chosen; whether they may go is looked at again when they do.

use pgrecall_repo::gc::{self, IndexUse, Live};
use pgrecall_repo::id::{BackupId, RoundId};
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::pack;
use pgrecall_repo::sealed_store::SealedStore;

use super::dead::{DeadRule, Sightings, Waiting, under_way};
use super::policy::{Choice, Policy, UnderWay};
use crate::cancel::Cancel;
use crate::catalog::missing;
use crate::error::EngineError;
use crate::progress::Progress;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CollectRequest {
    /// What pays.
    pub policy: Policy,
    /// Who is taken for dead.
    pub dead: DeadRule,
    /// When this host first saw backups under way.
    pub sightings: Sightings,
    /// Told what happens.
    pub progress: Progress,
    /// A wish to stop.
    pub cancel: Cancel,
}

/// A round that an earlier collection has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRound {
    /// The round.
    pub id: RoundId,
    /// Packs that it has retired.
    pub packs: u64,
    /// Backups that it waits for.
    pub waits_for: Vec<BackupId>,
}

/// Requests that a plan will take, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads and listings.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Deletes.
    pub deletes: u64,
}

/// What a collection will do.
#[derive(Debug)]
pub struct CollectPlan {
    /// The domain.
    pub domain: Name,
    /// Backups that are there.
    pub backups: u64,
    /// Chunks that they refer to.
    pub live_chunks: u64,
    /// Packs that are there and not retired.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What becomes of them.
    pub choice: Choice,
    /// Rounds that are open.
    pub rounds: Vec<OpenRound>,
    /// Backups under way.
    pub under_way: Vec<Waiting>,
    /// Index objects that are merged.
    pub merged: Vec<IndexUse>,
    /// What the plan goes by.
    pub policy: Policy,
    /// What it takes, about.
    pub requests: Requests,
    pub(super) live: Live,
}

impl CollectPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.choice.unused.packs.is_empty()
            && self.choice.rewritten.packs.is_empty()
            && self.rounds.is_empty()
            && self.merged.is_empty()
            && self.under_way.iter().all(|waiting| waiting.dead.is_none())
    }

    /// Bytes that will be free once the plan is carried out and nobody is waited for: what is
    /// copied takes room of its own.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        let rewritten = &self.choice.rewritten;
        self.choice.unused.bytes + rewritten.bytes.saturating_sub(rewritten.live_bytes)
    }
}

/// Makes a plan for a domain. Nothing is written but when this host has seen which backups.
///
/// # Errors
/// When anything that has to be known cannot be read (U); the store's failures.
pub async fn plan(
    sealed: &SealedStore,
    domain: &Name,
    request: &mut CollectRequest,
) -> Result<CollectPlan, EngineError> {
    let progress = &request.progress;
    let mut rounds = Vec::new();
    for round in gc::rounds(sealed, domain).await? {
        let look = gc::look_at(sealed, domain, round.id).await?;
        let (packs, waits_for) = look.map_or((0, Vec::new()), |look| (look.packs, look.waits_for));
        let waits_for = waits_for.into_iter().map(|(_, id)| id).collect();
        rounds.push(OpenRound { id: round.id, packs, waits_for });
    }
    let under_way = under_way(sealed, domain, &request.dead, &mut request.sightings).await?;
    progress.phase("reading what backups refer to", None);
    missing::require_none(sealed, domain).await?;
    let live = gc::live_chunks(sealed, domain).await?;
    request.cancel.check()?;
    progress.phase("reading the index", None);
    let usage = gc::usage(sealed, domain, &live).await?;
    request.cancel.check()?;
    let somebody = under_way.iter().any(|waiting| waiting.dead.is_none());
    let some = if somebody { UnderWay::Somebody } else { UnderWay::Nobody };
    let mut policy = request.policy;
    if sealed.keys().new_data_locked().is_some() {
        // What this host cannot open it cannot copy.
        policy.rewrite_below_percent = 0;
    }
    let choice = policy.choose(&usage.packs, some);
    let merged = match warn_of_lost(domain, &usage) {
        true => Vec::new(),
        false => gc::worth_merging(&usage.index).into_iter().cloned().collect(),
    };
    let mut plan = CollectPlan {
        domain: domain.clone(),
        backups: live.backups,
        live_chunks: live.len() as u64,
        packs: usage.packs.len() as u64,
        bytes: usage.packs.iter().map(|used| used.size).sum(),
        choice,
        rounds,
        under_way,
        merged,
        policy,
        requests: Requests::default(),
        live,
    };
    plan.requests = requests(&plan, usage.index.len() as u64);
    Ok(plan)
}

/// Packs that are told of by name.
const LOST_TOLD: usize = 10;

/// Tells of packs that backups need and that are not there. Where there are some the index stays
/// as it is: a merge would leave out what no other object says, the names to look for.
fn warn_of_lost(domain: &Name, usage: &gc::Usage) -> bool {
    for (id, (kind, chunks)) in usage.lost.iter().take(LOST_TOLD) {
        let pack = names::pack(domain, *kind, *id);
        tracing::warn!(
            %pack,
            chunks,
            "a pack is not there, and the index names chunks of it that backups need nowhere else: \
             bring it back; `pgrecall repair` finds other copies, a new backup stores again what \
             the server still has, and `pgrecall verify` says which backups lack something"
        );
    }
    let more = usage.lost.len().saturating_sub(LOST_TOLD);
    if more > 0 {
        tracing::warn!(more, "more such packs are not there");
    }
    !usage.lost.is_empty()
}

/// Objects of one page of a listing.
const PAGE: u64 = 1000;

fn requests(plan: &CollectPlan, index: u64) -> Requests {
    let (unused, rewritten) = (&plan.choice.unused, &plan.choice.rewritten);
    let going = (unused.packs.len() + rewritten.packs.len()) as u64;
    if going == 0 && plan.merged.is_empty() && plan.rounds.is_empty() {
        return Requests::default();
    }
    let rounds = plan.rounds.len() as u64 + u64::from(going > 0);
    let listings = plan.packs.div_ceil(PAGE).max(1);
    let copied = rewritten.live_bytes.div_ceil(pack::PACK_BYTES as u64);
    let merged = plan.merged.len() as u64;
    Requests {
        // Header and directory of each pack that goes; reads of 8 MiB of those that are copied;
        // the index for the copy and for the sweep.
        reads: going * 2
            + rewritten.bytes.div_ceil(8 << 20).max(rewritten.packs.len() as u64)
            + if rewritten.packs.is_empty() { 0 } else { index * 2 }
            + listings * 4
            + rounds * 8
            + merged,
        writes: copied + copied.div_ceil(64) + rounds * 3 + u64::from(merged > 0),
        deletes: going + rounds * 3 + merged,
    }
}
