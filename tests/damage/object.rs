//! Which object of a repository is damaged, and how.

use std::fs;
use std::path::Path;

use crate::made::{Copy, SEGMENT, SETTLED};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Wrap,
    KeyLog,
    DomainKeys,
    Identity,
    Segment,
    History,
    DataPack,
    MetaPack,
    Index,
    Manifest,
    OlderManifest,
    DamageNote,
    WalNote,
    Expired,
    Intent,
    Start,
    Resolution,
    StoreRecord,
    Partial,
    BackupHistory,
    Kept,
    Tombstone,
    Marker,
    RoundList,
    Verdict,
}

impl Kind {
    /// In the order of the table.
    pub(crate) const ALL: [(Self, &'static str); 26] = [
        (Self::Root, "root"),
        (Self::Wrap, "wrap"),
        (Self::KeyLog, "key log"),
        (Self::DomainKeys, "domain keys"),
        (Self::Identity, "identity"),
        (Self::Segment, "WAL segment"),
        (Self::History, "history"),
        (Self::DataPack, "data pack"),
        (Self::MetaPack, "meta pack"),
        (Self::Index, "index"),
        (Self::Manifest, "manifest"),
        (Self::OlderManifest, "older manifest"),
        (Self::DamageNote, "damage note"),
        (Self::WalNote, "note of WAL"),
        (Self::Expired, "expired log"),
        (Self::Intent, "intent"),
        (Self::Start, "start"),
        (Self::Resolution, "resolution"),
        (Self::StoreRecord, "store record"),
        (Self::Partial, "partial segment"),
        (Self::BackupHistory, "backup history"),
        (Self::Kept, "settled content"),
        (Self::Tombstone, "tombstone"),
        (Self::Marker, "marker of a round"),
        (Self::RoundList, "list of a round"),
        (Self::Verdict, "verdict of a round"),
    ];

    /// The object that is damaged and another one of its kind. Of what both backups have, the newer
    /// one's: that is what restoring reads.
    pub(crate) fn pair(self, copy: &Copy<'_>) -> Pair {
        self.found(copy).expect("there is one")
    }

    /// As [`pair`](Self::pair), where the repository may have none of the kind.
    pub(crate) fn found(self, copy: &Copy<'_>) -> Option<Pair> {
        let older = copy.made.backups.first().map(|(id, _)| id.to_string()).expect("a backup");
        let (below, newer) = match self {
            Self::Root => ("", "pgrecall.json"),
            Self::Wrap => ("keys", copy.made.key_id.as_str()),
            Self::KeyLog => ("keys/log", NUMBER_1),
            Self::DomainKeys => ("domains/main/keys", NUMBER_1),
            Self::Identity => ("clusters", "/main/"),
            Self::Segment => ("clusters", SEGMENT),
            Self::History => ("clusters/main", "00000003.history"),
            Self::DataPack => ("domains/main/packs/data", copy.made.newer.as_str()),
            Self::MetaPack => ("domains/main/packs/meta", copy.made.newer.as_str()),
            Self::Index => ("domains/main/index", copy.made.newer.as_str()),
            Self::Manifest => ("domains/main/backups", copy.made.newer.as_str()),
            Self::OlderManifest => ("domains/main/backups", older.as_str()),
            Self::DamageNote => ("domains/main/damaged", ""),
            Self::WalNote => ("clusters/main", NUMBER_1),
            Self::Expired => ("domains/main/expired", NUMBER_1),
            Self::Intent | Self::Start => ("domains/main/intents", ""),
            Self::Resolution | Self::Kept => ("clusters/main", SETTLED),
            Self::Partial | Self::BackupHistory => ("clusters/main", ""),
            Self::Tombstone => ("domains/main/backups", ""),
            Self::Marker | Self::RoundList | Self::Verdict => ("domains/main/retired", ""),
            Self::StoreRecord => ("store", NUMBER_1),
        };
        let all = copy.objects(below).into_iter().filter(|name| self.is(name, copy));
        let newer = |name: &String| newer.split(' ').any(|part| name.contains(part));
        let (mut of_newer, mut rest): (Vec<_>, Vec<_>) = all.partition(newer);
        if of_newer.is_empty() {
            return None;
        }
        let object = of_newer.remove(0);
        rest.append(&mut of_newer);
        let other = if rest.is_empty() { object.clone() } else { rest.remove(0) };
        Some(Pair { object, other })
    }

    /// Whether an object in the folder is of this kind.
    fn is(self, name: &str, copy: &Copy<'_>) -> bool {
        match self {
            Self::Wrap => !name.contains("/log/"),
            Self::Identity => name.ends_with("/identity"),
            Self::WalNote => name.contains("/damaged/"),
            Self::Segment => name.contains("/wal/") && !file_name(name).contains('.'),
            Self::History => name.ends_with(".history"),
            Self::Intent => !name.ends_with(".start"),
            Self::Start => name.ends_with(".start"),
            Self::Resolution => name.ends_with(".resolved"),
            Self::Partial => name.ends_with(".partial"),
            Self::BackupHistory => name.ends_with(".backup"),
            Self::Kept => name.contains("/wal/") && file_name(name).len() == 24 + 1 + 16,
            Self::Tombstone => copy.made.tombstones.contains(file_name(name)),
            Self::Manifest | Self::OlderManifest => !copy.made.tombstones.contains(file_name(name)),
            Self::Marker => !file_name(name).contains('.'),
            Self::RoundList => name.ends_with(".intents"),
            Self::Verdict => name.ends_with(".verdict"),
            Self::Root => name == "pgrecall.json",
            _ => true,
        }
    }
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

const NUMBER_1: &str = "0000000000000001";

/// An object and another one of its kind; the same where there is but one.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) object: String,
    pub(crate) other: String,
}

impl Pair {
    /// Whether a text names the object: whole, or by its file or id where that is its own; by its
    /// new name when it has been renamed.
    pub(crate) fn is_named_in(&self, text: &str) -> bool {
        let new = renamed(Path::new(&self.object));
        [self.object.as_str(), new.to_str().expect("UTF-8")].into_iter().any(|name| {
            let last = file_name(name);
            let shared = last == "identity" || last.len() == 16;
            text.contains(name) || (!shared && text.contains(last))
        })
    }
}

/// What storage does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Missing,
    Empty,
    Truncated,
    FlippedVersion,
    FlippedHeader,
    FlippedBody,
    FlippedTail,
    Swapped,
    Renamed,
    Oversized,
    Newer,
}

impl Damage {
    /// In the order of the table.
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::Missing, "missing"),
        (Self::Empty, "empty"),
        (Self::Truncated, "truncated"),
        (Self::FlippedVersion, "bit flipped in the version"),
        (Self::FlippedHeader, "bit flipped in the header"),
        (Self::FlippedBody, "bit flipped in the body"),
        (Self::FlippedTail, "bit flipped in the tail"),
        (Self::Swapped, "another of its kind"),
        (Self::Renamed, "renamed"),
        (Self::Oversized, "oversized"),
        (Self::Newer, "newer format"),
    ];

    /// Whether it is one that storage does by itself, and that has to be noticed by checksums.
    pub(crate) fn is_rot(self) -> bool {
        matches!(
            self,
            Self::Truncated
                | Self::FlippedVersion
                | Self::FlippedHeader
                | Self::FlippedBody
                | Self::FlippedTail
        )
    }

    /// Does it.
    pub(crate) fn apply(self, repository: &Path, pair: &Pair, foreign_root: &[u8]) {
        let path = repository.join(&pair.object);
        let mut bytes = fs::read(&path).expect("the object is read");
        let len = bytes.len();
        match self {
            Self::Missing => return fs::remove_file(&path).expect("it is removed"),
            Self::Renamed => return fs::rename(&path, renamed(&path)).expect("it is renamed"),
            Self::Empty => bytes.clear(),
            Self::Truncated => bytes.truncate(len - len / 3),
            Self::FlippedVersion if bytes.starts_with(b"pgrecall") => flip(&mut bytes[8]),
            // A document in plain text has no checksum.
            Self::FlippedVersion => newer(&mut bytes),
            Self::FlippedHeader => flip(&mut bytes[10]),
            Self::FlippedBody => flip(&mut bytes[(92 + 4 + len / 8).min(len / 2)]),
            Self::FlippedTail => flip(&mut bytes[len - 6]),
            Self::Swapped if pair.object == pair.other => bytes = foreign_root.to_vec(),
            Self::Swapped => bytes = fs::read(repository.join(&pair.other)).expect("the other"),
            Self::Oversized => {}
            Self::Newer => newer(&mut bytes),
        }
        fs::remove_file(&path).expect("the old one goes");
        fs::write(&path, bytes).expect("it is written");
        if self == Self::Oversized {
            let file = fs::File::options().write(true).open(&path).expect("it opens");
            file.set_len(80 << 20).expect("it grows, without taking room");
        }
    }
}

/// A name that an object of this kind could have: the last letter of an id carries three bits only.
fn renamed(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    let last = name.find('.').unwrap_or(name.len()) - 1;
    let other = if name.as_bytes()[last] == b'a' { "e" } else { "a" };
    let other = if name.starts_with('0') { "5" } else { other };
    path.with_file_name(format!("{}{other}{}", &name[..last], &name[last + 1..]))
}

/// Says that a later version wrote it.
fn newer(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"pgrecall") {
        bytes[8] += 1;
        let crc = crc32c(&bytes[..88]);
        bytes[88..92].copy_from_slice(&crc.to_le_bytes());
        return;
    }
    let text = String::from_utf8(bytes.clone()).expect("JSON");
    let versions = [r#""version":1"#, r#""version": 1"#, r#""version": 2"#];
    let newer = versions.iter().fold(text.clone(), |text, version| {
        let later = version.replace(['1', '2'], "9");
        text.replacen(version, &later, 1)
    });
    assert_ne!(text, newer);
    *bytes = newer.into_bytes();
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Flips one bit. A hex digit becomes another one, and a letter of an id another letter, so that
/// what comes of it does not hang on which one a random id happens to have there.
fn flip(byte: &mut u8) {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let before = *byte;
    let keeps = |bit: &u8| match before {
        digit if is_digit(digit) => is_digit(before ^ bit),
        letter if letter.is_ascii_lowercase() => (before ^ bit).is_ascii_lowercase(),
        _ => true,
    };
    *byte ^= [1, 2, 4].into_iter().find(keeps).expect("a digit has a neighbour");
}
