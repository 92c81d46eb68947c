//! Carrying a collection out: open rounds first, then what the plan has chosen. It can be ended at
//! any moment, and anybody can go on with it.

use std::collections::HashSet;

use pgrecall_repo::RepoError;
use pgrecall_repo::backup::end_dead;
use pgrecall_repo::expired::{self, ExpiredLog};
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::gc::{self, IndexUse, Live, Swept};
use pgrecall_repo::id::{BackupId, PackId, RoundId};
use pgrecall_repo::names::{ClusterRef, Name};
use pgrecall_repo::sealed_store::{SealedStore, Stored};

use super::dead::Waiting;
use super::plan::{CollectPlan, CollectRequest};
use crate::error::EngineError;

/// Packs of a round at most: a marker is one document, and every backup reads it.
const PACKS_OF_A_ROUND: usize = 100_000;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs that are gone.
    pub removed_packs: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Packs that turned out to be needed.
    pub spared_packs: u64,
    /// Chunks that were copied.
    pub copied_chunks: u64,
    /// Bytes of the packs that they were copied into.
    pub copied_bytes: u64,
    /// Packs that are retired, and go once these backups have ended.
    pub waiting_packs: u64,
    /// The backups.
    pub waits_for: Vec<BackupId>,
    /// Backups that were taken for dead and are ended.
    pub ended: Vec<BackupId>,
    /// Tombstones that went into the log of expired backups.
    pub folded_tombstones: u64,
    /// Index objects that were merged.
    pub merged_objects: u64,
    /// Index objects that took their place.
    pub index_objects: u64,
}

/// Carries a plan out.
///
/// # Errors
/// When anything that has to be known cannot be read (U), which is named; the store's failures.
/// What was begun stays, and the next collection goes on with it.
pub async fn carry_out(
    sealed: &SealedStore,
    plan: CollectPlan,
    request: &CollectRequest,
) -> Result<Collected, EngineError> {
    let CollectPlan { domain, choice, under_way, merged, live, .. } = plan;
    let mut run = Run { sealed, domain: &domain, request, under_way, done: Collected::default() };
    run.phase("sweeping earlier rounds")?;
    run.end_dead().await?;
    let earlier = gc::rounds(sealed, &domain).await?.iter().map(|round| round.id).collect();
    let live = run.sweep(earlier, live).await?;
    run.fold_tombstones(live.tombstones()).await?;
    let mut going = choice.unused.packs;
    going.extend(run.copy(choice.rewritten.packs, &going, &live).await?);
    run.phase("retiring packs")?;
    let mut rounds = Vec::new();
    for packs in going.chunks(PACKS_OF_A_ROUND) {
        rounds.push(gc::retire(sealed, &domain, packs.to_vec()).await?);
    }
    run.phase("sweeping")?;
    run.sweep(rounds, live).await?;
    gc::remove_remains(sealed, &domain).await?;
    run.phase("merging the index")?;
    let merged: Vec<&IndexUse> = merged.iter().collect();
    let merged = gc::merge_index(sealed, &domain, &merged).await?;
    (run.done.merged_objects, run.done.index_objects) = (merged.before, merged.after);
    Ok(run.done)
}

struct Run<'a> {
    sealed: &'a SealedStore,
    domain: &'a Name,
    request: &'a CollectRequest,
    under_way: Vec<Waiting>,
    done: Collected,
}

impl Run<'_> {
    fn phase(&self, name: &'static str) -> Result<(), EngineError> {
        self.request.cancel.check()?;
        self.request.progress.phase(name, None);
        Ok(())
    }

    /// S1, S12: backups taken for dead, on lists and on none. Who has begun since the plan is not.
    async fn end_dead(&mut self) -> Result<(), EngineError> {
        for Waiting { at, live, dead } in &self.under_way {
            let Some(dead) = dead else { continue };
            let id = live.intent.backup;
            let stands = end_dead(self.sealed, at, id, dead.to_string()).await?;
            if !stands && !dead.has_ended() {
                self.done.ended.push(id);
            }
        }
        Ok(())
    }

    async fn sweep(&mut self, ids: Vec<RoundId>, live: Live) -> Result<Live, EngineError> {
        if ids.is_empty() {
            return Ok(live);
        }
        // Whoever is dead has been ended already.
        let nobody = async |_: &ClusterRef, _: BackupId| Ok::<bool, RepoError>(false);
        let (swept, live) = gc::sweep(self.sealed, self.domain, &ids, live, nobody).await?;
        for (id, swept) in swept {
            match swept {
                Swept::Done { deleted, bytes, spared } => {
                    self.done.removed_packs += deleted;
                    self.done.removed_bytes += bytes;
                    self.done.spared_packs += spared;
                }
                Swept::Waiting(backups) => {
                    let look = gc::look_at(self.sealed, self.domain, id).await?;
                    self.done.waiting_packs += look.map_or(0, |look| look.packs);
                    for (_, backup) in backups {
                        if !self.done.waits_for.contains(&backup) {
                            self.done.waits_for.push(backup);
                        }
                    }
                }
            }
        }
        Ok(live)
    }

    /// S12: ids of tombstones go into the log, which every late manifest is held to, and only then
    /// the tombstones go. Another host may win the entry: then they stay until the next time.
    async fn fold_tombstones(&mut self, stones: &[BackupId]) -> Result<(), EngineError> {
        if !stones.is_empty() {
            let log = ExpiredLog::read(self.sealed, self.domain).await?;
            let more = Expired { backups: stones.to_vec(), ..Expired::default() };
            // Where another host was faster they stay for the next time.
            if log.append(self.sealed, self.domain, more).await? == Stored::Mine {
                self.done.folded_tombstones = stones.len() as u64;
            }
        }
        // By what the log says, whoever has written it.
        expired::remove_manifests(self.sealed, self.domain).await?;
        expired::remove_lower_entries(self.sealed, self.domain).await?;
        Ok(())
    }

    /// Copies what is needed of packs and in none that stays, and gives those that may go then.
    async fn copy(
        &mut self,
        packs: Vec<PackId>,
        unused: &[PackId],
        live: &Live,
    ) -> Result<Vec<PackId>, EngineError> {
        if packs.is_empty() {
            return Ok(packs);
        }
        self.phase("copying what is needed")?;
        let chosen: HashSet<PackId> = packs.iter().copied().collect();
        let unused: HashSet<PackId> = unused.iter().copied().collect();
        let copied = gc::rewrite(self.sealed, self.domain, &chosen, &unused, live).await?;
        self.done.copied_chunks = copied.chunks;
        self.done.copied_bytes = copied.bytes;
        Ok(packs.into_iter().filter(|pack| !copied.bad.contains(pack)).collect())
    }
}
