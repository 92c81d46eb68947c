//! `docs/format.md` and the code agree on the members of all JSON: none is missing there, and none
//! too many.

use std::collections::BTreeSet;

use pgrecall_engine::archive::trailer::{self, Trailer};
use pgrecall_engine::cluster::ClusterFacts;
use pgrecall_engine::details::{
    BackupDetails, BackupStats, DamagedFile, Method, Position, Tablespace, TakenFrom,
};
use pgrecall_pgformat::control::DataChecksums;
use pgrecall_pgformat::segment::ArchiveNameKind;
use pgrecall_pgformat::{Lsn, Major, SegmentSize, TimelineId};
use pgrecall_repo::format::document::{
    Damage, DamagedChunk, DamagedWal, Document, DomainKeysDocument, Expired, ExpiredWal, Hold,
    Identity, Intent, KeyLog, LivingKey, Manifest, Promise, Resolution, RetireVerdict, Retired,
    RetiredIntents, Shredded, ShreddedLineage, Start, StoreRecord, TableChunk, Tombstone,
};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::root::{Root, RootSuite};
use pgrecall_repo::format::wrap::{Wrap, WrapMethod};
use pgrecall_repo::id::{BackupId, ChunkId, DamageId, KeyId, PackId, RepositoryId};
use serde_json::Value;

use crate::specification::{specification, table};

/// The names between backticks in a cell; quoted values and formulas are none.
fn names(cell: &str) -> Vec<String> {
    let is_name = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(is_name).map(str::to_owned).collect()
}

fn first_cells(text: &str, heading: &str) -> Vec<String> {
    table(text, heading).iter().flat_map(|row| names(&row[0])).collect()
}

/// The members of an object in the order in which they are written, which is one to a line.
fn written(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let members = text.lines().filter_map(|line| line.strip_prefix("  \"")?.split_once('"'));
    members.map(|(name, _)| name.to_owned()).collect()
}

fn methods() -> [WrapMethod; 3] {
    let kms = WrapMethod::Kms { key: "k".into(), blob: "00".into() };
    [WrapMethod::KeyFile, WrapMethod::PASSPHRASE, kms]
}

#[test]
fn the_root_and_wraps_have_the_members_that_are_told_in_that_order() {
    let text = specification();
    let id = RepositoryId::from_bytes([1; 16]);
    let root = Root::new(id, RootSuite::Aes256Gcm, "now".into());
    assert_eq!(first_cells(&text, "Root object"), written(&root.encode()));
    let key = KeyId::from_bytes([1; 16]);
    let wrap = Wrap::outline(key, "host".into(), "now".into(), WrapMethod::PASSPHRASE);
    assert_eq!(first_cells(&text, "Wraps"), written(&wrap.encode()));
    let rows = table(&text, "Wraps");
    let method = &rows.iter().find(|row| row[0] == "`method`").unwrap()[1];
    for how in methods() {
        let json = serde_json::to_value(how).unwrap();
        let kind = format!("{{\"kind\":{}", json["kind"]);
        assert!(method.contains(&kind), "{method} does not tell of {kind}");
        for member in json.as_object().unwrap().keys() {
            assert!(method.contains(&format!("\"{member}\"")), "{method} lacks {member}");
        }
    }
}

/// Every member of a value, at any depth.
fn members(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                members(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| members(value, found)),
        _ => {}
    }
}

fn body<T: Document>(document: &T) -> Value {
    let whole: Value = serde_json::from_slice(&document.encode()).unwrap();
    let names: BTreeSet<&str> = whole.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["version", "features", "body"]));
    assert_eq!((&whole["version"], &whole["features"]), (&1.into(), &Value::Array(vec![])));
    whole["body"].clone()
}

/// One of each kind of document, with everything in it that may be there.
fn documents() -> Vec<(Kind, Value)> {
    let text = String::new;
    let backup = BackupId::from_bytes([1; 16]);
    let (pack, chunk) = (PackId::from_bytes([2; 16]), ChunkId::from_bytes([3; 32]));
    let table = TableChunk { first: text(), entries: 1, id: chunk, plain_len: 1 };
    let living = LivingKey {
        id: KeyId::from_bytes([4; 16]),
        label: text(),
        method: text(),
        added: text(),
        kms_key: Some(text()),
    };
    let wal = ExpiredWal { cluster: text(), lineage: text(), through: 1, below: text() };
    let hold = Hold { backup, reason: text(), until: None, by: text() };
    let manifest = Manifest {
        backup,
        cluster: text(),
        lineage: text(),
        tables: vec![table],
        entries: 1,
        bytes: 1,
        details: Value::Null,
    };
    let intent = Intent { backup, began: text(), host: text(), process: 1, incarnation: text() };
    let keys = DomainKeysDocument {
        epoch: 0,
        id_generation: 0,
        id_key: text(),
        data_key: text(),
        meta_key: text(),
    };
    let identity =
        Identity { cluster: text(), lineage: text(), domain: text(), details: Value::Null };
    let lost = DamagedWal { object: text(), after: Some(text()), from: text() };
    let (chunks, note) = (vec![DamagedChunk { pack, chunk }], DamageId::from_bytes([5; 16]));
    let damage = Damage { chunks, wal: vec![lost], found: text(), replaces: vec![note] };
    let lineage =
        ShreddedLineage { cluster: text(), lineage: text(), backups: 1, identity: text() };
    let shredded = Shredded { domain: text(), at: text(), host: text(), lineages: vec![lineage] };
    let expired = Expired { backups: vec![backup], wal: vec![wal], held: vec![hold] };
    vec![
        (Kind::Manifest, body(&manifest)),
        (Kind::Tombstone, body(&Tombstone { backup, reason: text() })),
        (Kind::Intent, body(&intent)),
        (Kind::Start, body(&Start { backup, timeline: text(), lsn: text() })),
        (Kind::DomainKeys, body(&keys)),
        (Kind::KeyLog, body(&KeyLog { living: vec![living], change: text() })),
        (Kind::Identity, body(&identity)),
        (Kind::Damage, body(&damage)),
        (Kind::StoreRecord, body(&StoreRecord { put_if_absent: Promise::Kept, note: text() })),
        (
            Kind::Resolution,
            body(&Resolution { object: text(), reason: text(), by: text(), heals: true }),
        ),
        (Kind::Expired, body(&expired)),
        (Kind::Retired, body(&Retired { packs: vec![pack] })),
        (Kind::RetiredIntents, body(&RetiredIntents { intents: vec![text()] })),
        (Kind::RetireVerdict, body(&RetireVerdict { packs: vec![pack] })),
        (Kind::Shredded, body(&shredded)),
    ]
}

#[test]
fn documents_have_the_members_that_are_told_and_no_others() {
    let text = specification();
    let rows = table(&text, "Documents");
    let told: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let documents = documents();
    let kinds: Vec<String> = documents.iter().map(|(kind, _)| format!("{kind:?}")).collect();
    assert_eq!(told, kinds);
    let listed: Vec<String> = table(&text, "Kinds")
        .into_iter()
        .filter_map(|row| row[2].starts_with("document").then(|| row[1].clone()))
        .collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), kinds.iter().collect());
    for (row, (kind, body)) in rows.iter().zip(documents) {
        let mut expected = BTreeSet::new();
        members(&body, &mut expected);
        let found: BTreeSet<String> = match kind {
            Kind::DomainKeys => first_cells(&text, "Domain keys").into_iter().collect(),
            _ => names(&row[1]).into_iter().collect(),
        };
        assert_eq!(found, expected, "{kind:?}");
    }
}

#[test]
fn words_that_stand_for_values_are_those_of_the_code() {
    let text = specification();
    let json = |value: &Value| format!("`{value}`");
    for suite in [RootSuite::Aes256Gcm, RootSuite::None] {
        let word = json(&serde_json::to_value(suite).unwrap());
        assert!(table(&text, "Root object").iter().any(|row| row[1].contains(&word)), "{word}");
    }
    let rows = table(&text, "Documents");
    for promise in [Promise::Kept, Promise::Broken, Promise::Vouched] {
        let word = json(&serde_json::to_value(promise).unwrap());
        assert!(rows.iter().any(|row| row[0] == "StoreRecord" && row[1].contains(&word)), "{word}");
    }
    for method in methods() {
        let word = format!("`\"{}\"`", method.name());
        assert!(rows.iter().any(|row| row[0] == "KeyLog" && row[1].contains(&word)), "{word}");
    }
}

fn details() -> BackupDetails {
    let (text, position) = (String::new, Position { timeline: TimelineId(1), lsn: Lsn(1) });
    BackupDetails {
        began: text(),
        ended: "2026-11-22T00:01:00Z".parse().unwrap(),
        host: text(),
        major: Major::V17,
        server_version: 170_011,
        catalog_version: 202_406_281,
        from: TakenFrom::Primary,
        start: position,
        checkpoint_lsn: Lsn(1),
        stop: position,
        backup_label: text(),
        tablespace_map: text(),
        tablespaces: vec![Tablespace { oid: 1, location: text() }],
        pg_wal_link: None,
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
        relation_segment_pages: 131_072,
        data_checksums: DataChecksums::On { version: 1 },
        chunk_bytes: 256 << 10,
        method: Method::Full,
        reference: None,
        damage: vec![DamagedFile { path: text(), blocks: vec![], count: 1 }],
        stats: BackupStats::default(),
        saw_backups: vec![],
    }
}

#[test]
fn details_of_backups_and_identities_have_the_members_that_are_told() {
    let text = specification();
    let mut value = details().to_value();
    let own: BTreeSet<String> = value.as_object().unwrap().keys().cloned().collect();
    let rows = table(&text, "Backup details");
    let told: BTreeSet<String> = rows.iter().flatten().flat_map(|cell| names(cell)).collect();
    let first: BTreeSet<String> = first_cells(&text, "Backup details").into_iter().collect();
    assert!(first.is_subset(&own), "{:?}", first.difference(&own));
    // Numbers for people, and PostgreSQL's own words.
    for untold in ["stats", "data_checksums"] {
        value[untold] = Value::Null;
    }
    let mut all = BTreeSet::new();
    members(&value, &mut all);
    assert!(all.is_subset(&told), "{:?}", all.difference(&told));

    let facts = ClusterFacts {
        system_identifier: 1,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
    };
    let sentence = text.lines().find_map(|line| line.strip_prefix("`details` of an identity:"));
    let mut all = BTreeSet::new();
    members(&serde_json::to_value(facts).unwrap(), &mut all);
    assert_eq!(names(sentence.unwrap()).into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn the_trailer_of_a_wal_object_has_the_members_that_are_told() {
    let kinds = [
        (ArchiveNameKind::Segment, "segment"),
        (ArchiveNameKind::Partial, "partial"),
        (ArchiveNameKind::History, "history"),
        (ArchiveNameKind::BackupHistory, "backup_history"),
    ];
    let text = specification();
    let rows = table(&text, "WAL archive");
    let row = |name: &str| &rows.iter().find(|row| row[0] == format!("`{name}`")).unwrap()[1];
    assert!(row("version").starts_with(&format!("{};", trailer::VERSION)));
    for (kind, word) in kinds {
        let trailer = Trailer {
            version: trailer::VERSION,
            kind,
            name: String::new(),
            plain_bytes: 0,
            summary: None,
            host: String::new(),
            pushed: String::new(),
        };
        let json: Value = serde_json::from_slice(&trailer.encode()).unwrap();
        assert_eq!(json["kind"], word);
        assert!(row("kind").contains(&format!("`\"{word}\"`")), "{word}");
        let own: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let told = first_cells(&text, "WAL archive");
        assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), own);
    }
}
