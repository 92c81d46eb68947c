//! Where every object of a repository lives. The only place that puts names together.

use std::fmt;
use std::str::FromStr;

use pgrecall_store::{Key, Prefix};

use crate::error::{FormatError, RepoError};
use crate::format::header::Kind;
use crate::id::{BackupId, DamageId, IndexId, KeyId, PackId, RoundId};

/// A name that a user gave (of a cluster or a domain): 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting
/// with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = RepoError;

    fn from_str(text: &str) -> Result<Self, RepoError> {
        let sound = (1..=64).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if sound {
            return Ok(Self(text.to_owned()));
        }
        Err(RepoError::Invalid {
            what: format!("the name {text:?}"),
            reason: "a name is 1 to 64 letters, digits, dots, underscores and hyphens, and starts \
                     with a letter or digit"
                .into(),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cluster of one lineage: the user's name for it, its system identifier, and the domain that it
/// shares keys and chunks in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRef {
    /// The domain.
    pub domain: Name,
    /// The cluster's name.
    pub cluster: Name,
    /// The system identifier, in decimal.
    pub lineage: String,
}

/// Every part of a name is validated before it gets here, and all together are too short for the
/// limit: a domain and a cluster have at most 64 bytes each, a lineage (decimal digits, or a
/// component of a name that was listed) 255.
#[expect(clippy::expect_used, reason = "parts are valid, and together below KEY_LEN_MAX")]
fn key(text: String) -> Key {
    Key::parse(&text).expect("names are put together from valid parts")
}

#[expect(clippy::expect_used, reason = "parts are valid, and together below KEY_LEN_MAX")]
fn prefix(text: String) -> Prefix {
    Prefix::parse(&text).expect("names are put together from valid parts")
}

/// `pgrecall.json`.
#[must_use]
pub fn root() -> Key {
    key("pgrecall.json".into())
}

/// `keys/<key-id>`.
#[must_use]
pub fn wrap(id: KeyId) -> Key {
    key(format!("keys/{id}"))
}

/// `keys/`: wraps, and the log of keys below `keys/log/`.
#[must_use]
pub fn wraps() -> Prefix {
    prefix("keys/".into())
}

/// A numbered log: entries are `<prefix><n>` in 16 hex digits, and the highest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogName(Prefix);

impl LogName {
    /// Where the entries are.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.0
    }

    /// One entry.
    #[must_use]
    pub fn entry(&self, number: u64) -> Key {
        key(format!("{}{number:016x}", self.0.as_str()))
    }

    /// The number of an entry; nothing for other names.
    #[must_use]
    pub fn number(&self, entry: &Key) -> Option<u64> {
        number(entry.strip_prefix(&self.0)?)
    }
}

fn number(text: &str) -> Option<u64> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 16 && text.bytes().all(hex))
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
}

/// `keys/log/`.
#[must_use]
pub fn key_log() -> LogName {
    LogName(prefix("keys/log/".into()))
}

/// `store/`.
#[must_use]
pub fn store_log() -> LogName {
    LogName(prefix("store/".into()))
}

/// `domains/<domain>/`, the folder of all that a domain shares.
#[must_use]
pub fn domain(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/"))
}

/// `domains/<domain>/keys/`, by epoch.
#[must_use]
pub fn domain_keys(domain: &Name) -> LogName {
    LogName(prefix(format!("domains/{domain}/keys/")))
}

/// `domains/<domain>/keys/shredded`: that its keys were deleted on purpose. It lies where who looks
/// for keys finds it.
#[must_use]
pub fn shredded(domain: &Name) -> Key {
    key(format!("domains/{domain}/keys/shredded"))
}

/// `domains/<domain>/expired/`.
#[must_use]
pub fn expired(domain: &Name) -> LogName {
    LogName(prefix(format!("domains/{domain}/expired/")))
}

/// `clusters/<name>/<system-id>/damaged/`: what was found damaged of its WAL.
///
/// # Errors
/// When the lineage is no valid name.
pub fn damaged_wal(at: &ClusterRef) -> Result<LogName, RepoError> {
    Ok(LogName(cluster_prefix(at, "damaged")?))
}

/// `quarantine/<name>`: what does not read, moved out of the way; `quarantine/<name>.2` and so on
/// for what is moved from the same name later. Nothing reads it.
///
/// # Errors
/// When the name is too long for that.
pub fn quarantine(name: &Key, number: u32) -> Result<Key, RepoError> {
    let text = match number {
        0 | 1 => format!("quarantine/{name}"),
        later => format!("quarantine/{name}.{later}"),
    };
    Key::parse(&text).map_err(|error| RepoError::Invalid {
        what: format!("the name {text}"),
        reason: error.to_string(),
    })
}

/// The folder of a pack kind.
fn pack_folder(kind: Kind) -> &'static str {
    if kind == Kind::MetaPack { "meta" } else { "data" }
}

/// `domains/<domain>/packs/<data|meta>/<two characters>/<pack-id>`.
#[must_use]
pub fn pack(domain: &Name, kind: Kind, id: PackId) -> Key {
    let text = id.to_string();
    let folder = text.get(..2).unwrap_or_default();
    key(format!("domains/{domain}/packs/{}/{folder}/{text}", pack_folder(kind)))
}

/// `domains/<domain>/packs/`.
#[must_use]
pub fn packs(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/packs/"))
}

/// The kind and id of a pack by its name.
#[must_use]
pub fn pack_of(domain: &Name, name: &Key) -> Option<(Kind, PackId)> {
    let rest = name.strip_prefix(&packs(domain))?;
    let (folder, rest) = rest.split_once('/')?;
    let kind = match folder {
        "data" => Kind::DataPack,
        "meta" => Kind::MetaPack,
        _ => return None,
    };
    let id: PackId = rest.split_once('/')?.1.parse().ok()?;
    (pack(domain, kind, id) == *name).then_some((kind, id))
}

/// A part of a round of collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundPart {
    /// `retired/<round>`: the packs that it is about.
    Marker,
    /// `retired/<round>.intents`: backups that may not have seen the marker.
    Intents,
    /// `retired/<round>.verdict`: the packs that go.
    Verdict,
}

impl RoundPart {
    const ALL: [Self; 3] = [Self::Marker, Self::Intents, Self::Verdict];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Marker => "",
            Self::Intents => ".intents",
            Self::Verdict => ".verdict",
        }
    }
}

/// An object of a round.
#[must_use]
pub fn round(domain: &Name, id: RoundId, part: RoundPart) -> Key {
    key(format!("domains/{domain}/retired/{id}{}", part.suffix()))
}

/// The round and the part of it by a name.
#[must_use]
pub fn round_of(domain: &Name, name: &Key) -> Option<(RoundId, RoundPart)> {
    let rest = name.strip_prefix(&retired(domain))?;
    let (id, suffix) = rest.split_at_checked(rest.find('.').unwrap_or(rest.len()))?;
    let part = RoundPart::ALL.into_iter().find(|part| part.suffix() == suffix)?;
    Some((id.parse().ok()?, part))
}

/// `domains/<domain>/intents/`, of all clusters.
#[must_use]
pub fn all_intents(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/intents/"))
}

/// The cluster and backup of an intent by its name; nothing for its `.start`.
#[must_use]
pub fn intent_of(domain: &Name, name: &Key) -> Option<(ClusterRef, BackupId)> {
    backup_below(domain, &all_intents(domain), name)
}

/// `domains/<domain>/index/<id>`.
#[must_use]
pub fn index(domain: &Name, id: IndexId) -> Key {
    key(format!("domains/{domain}/index/{id}"))
}

/// `domains/<domain>/index/`.
#[must_use]
pub fn indexes(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/index/"))
}

/// `domains/<domain>/damaged/<id>`.
#[must_use]
pub fn damaged(domain: &Name, id: DamageId) -> Key {
    key(format!("domains/{domain}/damaged/{id}"))
}

/// The note of damage that an object is, if it is one.
#[must_use]
pub fn damaged_of(domain: &Name, name: &Key) -> Option<DamageId> {
    name.strip_prefix(&all_damaged(domain))?.parse().ok()
}

/// `domains/<domain>/damaged/`.
#[must_use]
pub fn all_damaged(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/damaged/"))
}

/// `domains/<domain>/retired/`: what gc is about to remove.
#[must_use]
pub fn retired(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/retired/"))
}

/// `domains/<domain>/backups/<cluster>/<system-id>/<backup-id>`: a manifest or a tombstone.
#[must_use]
pub fn manifest(at: &ClusterRef, id: BackupId) -> Key {
    key(format!("domains/{}/backups/{}/{}/{id}", at.domain, at.cluster, at.lineage))
}

/// `domains/<domain>/backups/`.
#[must_use]
pub fn manifests(domain: &Name) -> Prefix {
    prefix(format!("domains/{domain}/backups/"))
}

/// `domains/<domain>/backups/<cluster>/<system-id>/`.
#[must_use]
pub fn manifests_of(at: &ClusterRef) -> Prefix {
    prefix(format!("domains/{}/backups/{}/{}/", at.domain, at.cluster, at.lineage))
}

/// The cluster and backup of a manifest by its name.
#[must_use]
pub fn manifest_of(domain: &Name, name: &Key) -> Option<(ClusterRef, BackupId)> {
    backup_below(domain, &manifests(domain), name)
}

/// Reads `<cluster>/<system-id>/<backup-id>` below a folder of the domain.
fn backup_below(domain: &Name, folder: &Prefix, name: &Key) -> Option<(ClusterRef, BackupId)> {
    let rest = name.strip_prefix(folder)?;
    let mut parts = rest.split('/');
    let (cluster, lineage, id) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let cluster = cluster.parse().ok()?;
    let at = ClusterRef { domain: domain.clone(), cluster, lineage: lineage.to_owned() };
    Some((at, id.parse().ok()?))
}

/// `domains/<domain>/intents/<cluster>/<system-id>/<backup-id>`.
#[must_use]
pub fn intent(at: &ClusterRef, id: BackupId) -> Key {
    key(format!("domains/{}/intents/{}/{}/{id}", at.domain, at.cluster, at.lineage))
}

/// The intent's `.start`.
#[must_use]
pub fn start(at: &ClusterRef, id: BackupId) -> Key {
    key(format!("domains/{}/intents/{}/{}/{id}.start", at.domain, at.cluster, at.lineage))
}

/// The cluster and backup of a `.start` by its name.
#[must_use]
pub fn start_of(domain: &Name, name: &Key) -> Option<(ClusterRef, BackupId)> {
    let intent = Key::parse(name.as_str().strip_suffix(".start")?).ok()?;
    intent_of(domain, &intent)
}

/// `domains/<domain>/intents/<cluster>/<system-id>/`.
#[must_use]
pub fn intents(at: &ClusterRef) -> Prefix {
    prefix(format!("domains/{}/intents/{}/{}/", at.domain, at.cluster, at.lineage))
}

/// `domains/`.
#[must_use]
pub fn domains() -> Prefix {
    prefix("domains/".into())
}

/// `clusters/`.
#[must_use]
pub fn clusters() -> Prefix {
    prefix("clusters/".into())
}

/// `clusters/<name>/`.
#[must_use]
pub fn cluster(name: &Name) -> Prefix {
    prefix(format!("clusters/{name}/"))
}

/// `clusters/<name>/<system-id>/<rest>`; `rest` is the engine's (identity, timelines, WAL).
///
/// # Errors
/// When `rest` is not a valid name.
pub fn cluster_object(at: &ClusterRef, rest: &str) -> Result<Key, RepoError> {
    Key::parse(&format!("clusters/{}/{}/{rest}", at.cluster, at.lineage)).map_err(|error| {
        RepoError::Invalid { what: format!("the object name {rest:?}"), reason: error.to_string() }
    })
}

/// `clusters/<name>/<system-id>/<rest>/`, or the whole lineage when `rest` is empty.
///
/// # Errors
/// When `rest` is not a valid name.
pub fn cluster_prefix(at: &ClusterRef, rest: &str) -> Result<Prefix, RepoError> {
    let slash = if rest.is_empty() || rest.ends_with('/') { "" } else { "/" };
    Prefix::parse(&format!("clusters/{}/{}/{rest}{slash}", at.cluster, at.lineage)).map_err(
        |error| RepoError::Invalid {
            what: format!("the prefix {rest:?}"),
            reason: error.to_string(),
        },
    )
}

/// An id by the last part of a name.
///
/// # Errors
/// When it is none.
pub fn id_of<T: FromStr<Err = FormatError>>(name: &Key) -> Result<T, FormatError> {
    name.file_name().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for name in ["", "..", "a/b", ".hidden", "-x", "ü", &"x".repeat(65)] {
            assert!(name.parse::<Name>().is_err(), "{name:?}");
        }
        assert!("main-17_A.b".parse::<Name>().is_ok());
    }

    #[test]
    fn packs_and_manifests_are_known_by_their_names() {
        let domain: Name = "main".parse().unwrap();
        let id = PackId::from_bytes([5; 16]);
        let name = pack(&domain, Kind::MetaPack, id);
        assert_eq!(pack_of(&domain, &name), Some((Kind::MetaPack, id)));
        let moved = Key::parse(&name.as_str().replace("/meta/", "/meta/zz/")).unwrap();
        assert_eq!(pack_of(&domain, &moved), None);
        let at = ClusterRef {
            domain: domain.clone(),
            cluster: "c".parse().unwrap(),
            lineage: "77".into(),
        };
        let id = BackupId::from_bytes([6; 16]);
        assert_eq!(manifest_of(&domain, &manifest(&at, id)), Some((at, id)));
    }

    #[test]
    fn rounds_and_intents_are_known_by_their_names() {
        let domain: Name = "main".parse().unwrap();
        let id = RoundId::from_bytes([7; 16]);
        for part in RoundPart::ALL {
            assert_eq!(round_of(&domain, &round(&domain, id, part)), Some((id, part)));
        }
        let odd = Key::parse(&format!("domains/main/retired/{id}.other")).unwrap();
        assert_eq!(round_of(&domain, &odd), None);
        let at = ClusterRef {
            domain: domain.clone(),
            cluster: "c".parse().unwrap(),
            lineage: "77".into(),
        };
        let id = BackupId::from_bytes([6; 16]);
        assert_eq!(intent_of(&domain, &start(&at, id)), None);
        assert_eq!(start_of(&domain, &start(&at, id)), Some((at.clone(), id)));
        assert_eq!(start_of(&domain, &intent(&at, id)), None);
        assert_eq!(intent_of(&domain, &intent(&at, id)), Some((at, id)));
    }

    #[test]
    fn log_entries_are_numbered_in_hex() {
        let log = key_log();
        assert_eq!(log.number(&log.entry(31)), Some(31));
        assert_eq!(log.number(&Key::parse("keys/log/1f").unwrap()), None);
        assert_eq!(log.number(&Key::parse("keys/log/000000000000001F").unwrap()), None);
    }
}
