//! Which backups under way are taken for dead. It decides nothing about safety: one that is ended
//! wrongly cannot commit, and has to be taken again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrecall_repo::backup::{LiveIntent, live_intents};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::sealed_store::SealedStore;

use crate::backup::Host;
use crate::clock::Clock;
use crate::error::EngineError;
use crate::host_file;

/// When this host first saw each backup under way: kept in a file, so that no other host's clock
/// is asked, nor the store's. Who loses the file waits longer.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    file: Option<PathBuf>,
    seen: BTreeMap<BackupId, Timestamp>,
}

impl Sightings {
    /// What the file says; nothing when it is not there or does not read.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_default();
        Self { file: Some(file.to_owned()), ..Self::decode(&bytes) }
    }

    /// What these bytes of a file say; nothing when they do not read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let rows: BTreeMap<String, Timestamp> = serde_json::from_slice(bytes).unwrap_or_default();
        let row = |(id, at): (String, Timestamp)| Some((id.parse().ok()?, at));
        Self { file: None, seen: rows.into_iter().filter_map(row).collect() }
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let rows: BTreeMap<String, Timestamp> =
            self.seen.iter().map(|(id, at)| (id.to_string(), *at)).collect();
        serde_json::to_vec(&rows).unwrap_or_default()
    }

    /// Notes which backups are under way now. What cannot be kept is told in the log only.
    fn note(&mut self, under_way: &[BackupId], now: Timestamp) {
        self.seen.retain(|id, _| under_way.contains(id));
        for id in under_way {
            self.seen.entry(*id).or_insert(now);
        }
        if let Err(error) = self.write() {
            tracing::warn!(%error, "when backups under way were first seen cannot be kept");
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        host_file::write(file, &self.encode())
    }

    /// For how long this host has known of a backup under way.
    fn age(&self, id: BackupId, now: Timestamp) -> SignedDuration {
        self.seen.get(&id).map_or(SignedDuration::ZERO, |seen| now.duration_since(*seen))
    }
}

/// Who is taken for dead.
#[derive(Debug, Clone)]
pub struct DeadRule {
    /// This host and process: a backup of this host whose process is gone is dead.
    pub host: Host,
    /// A backup that this host has known for longer is dead; never, without.
    pub after: Option<Duration>,
    /// The time.
    pub clock: Clock,
}

/// A backup under way, as a collection sees it.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its cluster.
    pub at: ClusterRef,
    /// What it says of itself.
    pub live: LiveIntent,
    /// Why it is taken for dead, if it is.
    pub dead: Option<Dead>,
}

/// Why a backup is taken for dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dead {
    /// It is committed, and has left its intent.
    Committed,
    /// Another has ended it.
    Ended,
    /// Its process is gone.
    Gone {
        /// The host that it was on, and this is.
        host: String,
    },
    /// This host has known it for too long.
    Silent {
        /// For so many days.
        days: i64,
    },
}

impl Dead {
    /// Whether it has come to its end without us.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self, Self::Committed | Self::Ended)
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("it is committed"),
            Self::Ended => f.write_str("it was ended"),
            Self::Gone { host } => write!(f, "its process on {host} is gone"),
            Self::Silent { days } => write!(f, "it has been under way for {days} days"),
        }
    }
}

/// Every backup under way in a domain, with whether it is taken for dead.
///
/// # Errors
/// When the store fails.
pub async fn under_way(
    sealed: &SealedStore,
    domain: &Name,
    rule: &DeadRule,
    sightings: &mut Sightings,
) -> Result<Vec<Waiting>, EngineError> {
    let mut clusters: Vec<ClusterRef> = Vec::new();
    for object in sealed.list(&names::all_intents(domain)).await? {
        if let Some((at, _)) = names::intent_of(domain, &object.key)
            && !clusters.contains(&at)
        {
            clusters.push(at);
        }
    }
    let mut found: Vec<(ClusterRef, LiveIntent)> = Vec::new();
    for at in clusters {
        found.extend(live_intents(sealed, &at).await?.into_iter().map(|live| (at.clone(), live)));
    }
    let ids: Vec<BackupId> = found.iter().map(|(_, live)| live.intent.backup).collect();
    let now = rule.clock.now();
    sightings.note(&ids, now);
    let mut waiting = Vec::with_capacity(found.len());
    for (at, live) in found {
        let dead =
            verdict(sealed, &at, &live, rule, sightings.age(live.intent.backup, now)).await?;
        waiting.push(Waiting { at, live, dead });
    }
    Ok(waiting)
}

async fn verdict(
    sealed: &SealedStore,
    at: &ClusterRef,
    live: &LiveIntent,
    rule: &DeadRule,
    age: SignedDuration,
) -> Result<Option<Dead>, EngineError> {
    match sealed.header(&names::manifest(at, live.intent.backup)).await {
        // A manifest or a tombstone: it has ended, and only the intent is left.
        Ok(header) if header.kind == Kind::Manifest => return Ok(Some(Dead::Committed)),
        Ok(_) => return Ok(Some(Dead::Ended)),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if rule.host.knows_dead(live) {
        return Ok(Some(Dead::Gone { host: rule.host.name.clone() }));
    }
    let long = rule.after.and_then(|after| SignedDuration::try_from(after).ok());
    if long.is_some_and(|long| age > long) {
        return Ok(Some(Dead::Silent { days: age.as_hours() / 24 }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sightings_are_kept_and_forgotten_with_their_backups() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/seen.json");
        let (one, two) = (BackupId::from_bytes([1; 16]), BackupId::from_bytes([2; 16]));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (first, later) = (at("2026-11-01T00:00:00Z"), at("2026-11-11T00:00:00Z"));
        Sightings::read(&file).note(&[one], first);
        let mut seen = Sightings::read(&file);
        seen.note(&[one, two], later);
        let seen = Sightings::read(&file);
        assert_eq!(seen.age(one, later).as_hours(), 240);
        assert_eq!(seen.age(two, later).as_hours(), 0);
        Sightings::read(&file).note(&[two], later);
        assert!(!Sightings::read(&file).seen.contains_key(&one));
        std::fs::write(&file, "no JSON").unwrap();
        assert!(Sightings::read(&file).seen.is_empty());
        assert_eq!(Sightings::default().age(one, later), SignedDuration::ZERO);
    }
}
