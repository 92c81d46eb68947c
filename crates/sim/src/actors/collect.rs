//! A collection, made of the product's steps: sweep what is retired, retire what seems to be of no
//! use, copy what is left of packs that are mostly not, merge the index.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use pgrecall_repo::RepoError;
use pgrecall_repo::backup::end_dead;
use pgrecall_repo::expired::{ExpiredLog, remove_lower_entries, remove_manifests};
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::gc::{
    Live, live_chunks, merge_index, remove_remains, retire, rewrite, rounds, sweep, usage,
};
use pgrecall_repo::id::{BackupId, PackId, RoundId};
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::random::{Random, SharedRandom};
use pgrecall_repo::sealed_store::{SealedStore, Stored};

use super::{Context, Ended, Living, chain};
use crate::chance::Chance;
use crate::door::Phase;
use crate::planted::Plant;

/// What a collection is about to do with backups that seem dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sentences {
    /// Dead ones are ended mostly, and living ones now and then.
    Wrong,
    /// Exactly the dead ones are ended.
    Right,
}

/// Collects once.
///
/// # Errors
/// When it could not go on.
pub async fn run(context: &mut Context) -> Ended {
    collect(context, Sentences::Wrong).await.map_err(|error| chain(&error))
}

/// Collects once.
///
/// # Errors
/// When it could not go on.
pub async fn collect(context: &mut Context, sentences: Sentences) -> Result<String, RepoError> {
    let sealed = context.cluster.sealed.clone();
    let domain = context.cluster.domain().clone();
    let mut judge = Judge {
        living: context.living.clone(),
        chance: context.chance.branch(),
        sentences,
        ends_living: context.habits.ends_living,
    };
    let habits = context.habits;
    let thorough = sentences == Sentences::Right;
    let mut said = Vec::new();
    if thorough || context.chance.happens(500) {
        remove_manifests(&sealed, &domain).await?;
    }
    if thorough || context.chance.happens(habits.sweeps_first) {
        let all = rounds(&sealed, &domain).await?.iter().map(|round| round.id).collect();
        sweep_these(context, all, &mut judge, &mut said).await?;
    }
    if thorough || context.chance.happens(habits.ends_unlisted) {
        end_unlisted(context, &mut judge).await?;
    }
    if thorough || context.chance.happens(800) {
        let live = live_chunks(&sealed, &domain).await?;
        let packs = choose(context, &live, sentences).await?;
        let own = retire_all(context, packs, &mut said).await?;
        let ids = match thorough || context.chance.happens(habits.sweeps_all) {
            true => rounds(&sealed, &domain).await?.iter().map(|round| round.id).collect(),
            false => own,
        };
        sweep_these(context, ids, &mut judge, &mut said).await?;
    }
    if thorough || context.chance.happens(habits.merges) {
        context.enter(Phase::Merge);
        // What is merged does not depend on what is live.
        let index = usage(&sealed, &domain, &Live::default()).await?.index;
        let merged = merge_index(&sealed, &domain, &index.iter().collect::<Vec<_>>()).await?;
        context.enter(Phase::Other);
        said.push(format!("{merged:?}"));
    }
    if thorough || context.chance.happens(habits.tidies) {
        fold_tombstones(context).await?;
    }
    if thorough || context.chance.happens(habits.tidies) {
        remove_lower_entries(&sealed, &domain).await?;
    }
    Ok(said.join("; "))
}

async fn sweep_these(
    context: &Context,
    ids: Vec<RoundId>,
    judge: &mut Judge,
    said: &mut Vec<String>,
) -> Result<(), RepoError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    context.enter(Phase::Sweep);
    // A planted bug follows one round at a time.
    let at_once = if context.plant.is_some() { 1 } else { ids.len().max(1) };
    for ids in ids.chunks(at_once) {
        let is_dead = async |_: &ClusterRef, id| Ok(judge.is_dead(id));
        let (swept, _) = sweep(sealed, domain, ids, Live::default(), is_dead).await?;
        said.extend(swept.iter().map(|(id, swept)| format!("{id}: {swept:?}")));
    }
    context.enter(Phase::Other);
    remove_remains(sealed, domain).await
}

/// Retires packs, if there are any, and gives the rounds.
///
/// # Errors
/// When it could not go on.
pub async fn retire_all(
    context: &Context,
    packs: Vec<PackId>,
    said: &mut Vec<String>,
) -> Result<Vec<RoundId>, RepoError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    if packs.is_empty() {
        return Ok(Vec::new());
    }
    if context.plant != Some(Plant::MarkerNamedAfterPack) {
        said.push(format!("retires {} packs", packs.len()));
        let round = retire(sealed, domain, packs).await?;
        said.push(round.to_string());
        return Ok(vec![round]);
    }
    let mut rounds = Vec::new();
    for pack in packs {
        // Where the name of a round comes from, the id of its pack does.
        let random = Named::over(sealed.random().clone(), *pack.as_bytes());
        let sealed = SealedStore::new(sealed.store().clone(), sealed.keys().clone(), random);
        let round = retire(&sealed, domain, vec![pack]).await?;
        said.push(round.to_string());
        rounds.push(round);
    }
    Ok(rounds)
}

/// Randomness whose first sixteen bytes are not random.
struct Named {
    first: Mutex<Option<[u8; 16]>>,
    then: SharedRandom,
}

impl Named {
    fn over(then: SharedRandom, first: [u8; 16]) -> SharedRandom {
        SharedRandom::new(Self { first: Mutex::new(Some(first)), then })
    }
}

impl Random for Named {
    fn fill(&self, buffer: &mut [u8]) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.take() {
            Some(bytes) if buffer.len() == bytes.len() => buffer.copy_from_slice(&bytes),
            _ => self.then.fill(buffer),
        }
    }
}

/// Packs to retire: those of no use, by a guess that need not be right; now and then others.
async fn choose(
    context: &mut Context,
    live: &Live,
    sentences: Sentences,
) -> Result<Vec<PackId>, RepoError> {
    let sealed = context.cluster.sealed.clone();
    let domain = context.cluster.domain().clone();
    let uses = usage(&sealed, &domain, live).await?.packs;
    let mut packs: Vec<PackId> =
        uses.iter().filter(|used| used.live_chunks == 0).map(|used| used.id).collect();
    if sentences == Sentences::Right {
        return Ok(packs);
    }
    let retires_half = context.habits.retires_half;
    if retires_half > 0 && context.chance.happens(retires_half) {
        return Ok(half(&mut context.chance, uses.iter().map(|used| used.id).collect()));
    }
    let others: Vec<PackId> =
        uses.iter().filter(|used| used.live_chunks > 0).map(|used| used.id).collect();
    if context.chance.happens(300) && !others.is_empty() {
        let some = others[context.chance.place(others.len())];
        if context.chance.happens(600) {
            let packs = HashSet::from([some]);
            rewrite(&sealed, &domain, &packs, &HashSet::new(), live).await?;
        }
        packs.push(some);
    }
    Ok(packs)
}

/// Any half of them, but one at least.
pub fn half(chance: &mut Chance, mut packs: Vec<PackId>) -> Vec<PackId> {
    let half = packs.len() / 2;
    while packs.len() > half.max(1) {
        packs.swap_remove(chance.place(packs.len()));
    }
    packs
}

/// Intents of dead backups on no list are ended, too.
async fn end_unlisted(context: &Context, judge: &mut Judge) -> Result<(), RepoError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    let listed = sealed.list(&names::all_intents(domain)).await?;
    let intents: Vec<(ClusterRef, BackupId)> =
        listed.iter().filter_map(|object| names::intent_of(domain, &object.key)).collect();
    for (at, id) in intents {
        if judge.is_dead(id) {
            end_dead(sealed, &at, id, "its process is gone".into()).await?;
        }
    }
    Ok(())
}

/// Tombstones may stay for ever, or go once the log has their ids.
async fn fold_tombstones(context: &Context) -> Result<(), RepoError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    let mut tombstones = Vec::new();
    for object in sealed.list(&names::manifests(domain)).await? {
        let Some((_, id)) = names::manifest_of(domain, &object.key) else { continue };
        match sealed.header(&object.key).await {
            Ok(header) if header.kind == Kind::Tombstone => tombstones.push((object.key, id)),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if tombstones.is_empty() {
        return Ok(());
    }
    if context.plant != Some(Plant::TombstoneRemoved) {
        let log = ExpiredLog::read(sealed, domain).await?;
        let ids = tombstones.iter().map(|(_, id)| *id).collect();
        let more = Expired { backups: ids, ..Expired::default() };
        if log.append(sealed, domain, more).await? != Stored::Mine {
            return Ok(());
        }
        // A number that was freed may have been won: the highest entry holds.
        let log = ExpiredLog::read(sealed, domain).await?;
        tombstones.retain(|(_, id)| log.entry().backups.contains(id));
    }
    for (name, _) in tombstones {
        sealed.store().delete(&name).await?;
    }
    Ok(())
}

/// Who says which backups are dead: no clock and no list of processes can be trusted.
struct Judge {
    living: Living,
    chance: Chance,
    sentences: Sentences,
    ends_living: u64,
}

impl Judge {
    fn is_dead(&mut self, id: BackupId) -> bool {
        let living = self.living.lock().is_ok_and(|living| living.contains_key(&id.to_string()));
        match self.sentences {
            Sentences::Right => !living,
            Sentences::Wrong => self.chance.happens(if living { self.ends_living } else { 700 }),
        }
    }
}
