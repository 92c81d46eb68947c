//! The power goes, between any two changes of the disk: whatever was not synced by then may be gone,
//! or there in part, and whatever was acknowledged must be there whole.
//!
//! A folder is taken at its word: one that was made is there only once the folder above it has been
//! synced. File systems with a journal promise more.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};

use rustix::fs::Mode;

use super::super::disk::{Change, Witness};
use super::*;

/// A file or a folder, told apart from one that had the same inode before.
type Node = usize;

#[derive(Debug, Clone)]
enum Step {
    Folder {
        parent: Node,
        name: String,
        folder: Node,
    },
    File {
        folder: Node,
        name: String,
        file: Node,
    },
    Bytes {
        file: Node,
        bytes: Vec<u8>,
    },
    FileSynced {
        file: Node,
    },
    FolderSynced {
        folder: Node,
    },
    Name {
        folder: Node,
        name: String,
        file: Node,
    },
    NameGone {
        folder: Node,
        name: String,
    },
    /// Somebody asks for a change of this object: until it is answered, either may be.
    Asked {
        object: String,
    },
    /// What was acknowledged of this object: its bytes, or that it is gone.
    Answered {
        object: String,
        bytes: Option<Vec<u8>>,
    },
}

/// What was done to the disk, and what was acknowledged.
#[derive(Debug, Clone, Default)]
struct Journal(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    steps: Vec<Step>,
    nodes: HashMap<u64, Node>,
    count: Node,
}

impl Entries {
    fn fresh(&mut self, inode: u64) -> Node {
        self.count += 1;
        self.nodes.insert(inode, self.count);
        self.count
    }

    fn known(&mut self, file: impl AsFd) -> Node {
        let inode = rustix::fs::fstat(file).unwrap().st_ino;
        match self.nodes.get(&inode) {
            Some(node) => *node,
            None => self.fresh(inode),
        }
    }
}

impl Witness for Journal {
    fn saw(&self, change: Change<'_>) {
        let entries = &mut *self.entries();
        let step = match change {
            Change::Folder { parent, name } => {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                let made = rustix::fs::statat(parent, name, flags).unwrap().st_ino;
                let (parent, name) = (entries.known(parent), name.to_str().unwrap().to_owned());
                Step::Folder { parent, name, folder: entries.fresh(made) }
            }
            Change::File { folder, name, file } => {
                let made = rustix::fs::fstat(file).unwrap().st_ino;
                let folder = entries.known(folder);
                Step::File { folder, name: name.into(), file: entries.fresh(made) }
            }
            Change::Bytes { file, bytes } => {
                Step::Bytes { file: entries.known(file), bytes: bytes.into() }
            }
            Change::FileSynced { file } => Step::FileSynced { file: entries.known(file) },
            Change::FolderSynced { folder } => Step::FolderSynced { folder: entries.known(folder) },
            Change::Name { file, folder, name } => {
                let (folder, file) = (entries.known(folder), entries.known(file));
                Step::Name { folder, name: name.into(), file }
            }
            Change::NameGone { folder, name } => {
                Step::NameGone { folder: entries.known(folder), name: name.into() }
            }
        };
        entries.steps.push(step);
    }
}

impl Journal {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap()
    }

    /// A journal of what is done below a folder that is durable already.
    fn of(place: &Place) -> Self {
        let journal = Self::default();
        journal.entries().known(fs::File::open(&place.0).unwrap());
        journal
    }

    fn disk(&self) -> Disk {
        Disk(Box::new(self.clone()))
    }

    async fn open(&self, path: &Path) -> DirectoryStore {
        DirectoryStore::open_on(self.disk(), path.into(), RootPolicy::Create).await.unwrap()
    }

    async fn put(&self, store: &DirectoryStore, object: &str, bytes: &[u8]) -> Put {
        self.entries().steps.push(Step::Asked { object: object.into() });
        let put = store.put_if_absent(&key(object), bytes.to_vec().into()).await;
        assert!(matches!(put, Put::Created | Put::Exists), "{put:?}");
        let bytes = Some(bytes.to_vec());
        self.entries().steps.push(Step::Answered { object: object.into(), bytes });
        put
    }

    async fn delete(&self, store: &DirectoryStore, object: &str) {
        self.entries().steps.push(Step::Asked { object: object.into() });
        store.delete(&key(object)).await.unwrap();
        self.entries().steps.push(Step::Answered { object: object.into(), bytes: None });
    }

    /// Cuts the power before each step and after the last, and looks at what is left below `root`.
    fn assert_survives(&self, root: &str) {
        let steps = self.entries().steps.clone();
        for cut in 0..=steps.len() {
            for luck in (0..40).map(Luck::new) {
                let answered = answered(&steps[..cut]);
                let left = Wreck::after(&steps[..cut], luck.clone()).files();
                let left = left.iter().filter_map(|(path, bytes)| {
                    Some((path.strip_prefix(root)?.strip_prefix('/')?, bytes))
                });
                let left: BTreeMap<&str, &Vec<u8>> = left.collect();
                for (object, bytes) in answered {
                    let told = format!("{object}, {luck:?}, step {cut} of {steps:#?}");
                    assert_eq!(left.get(object).copied(), bytes.as_ref(), "{told}");
                }
                for (object, bytes) in left.iter().filter(|(path, _)| !path.starts_with(".tmp/")) {
                    let told = format!("{object} is there in part, {luck:?}, step {cut}");
                    assert_eq!(**bytes, body(object), "{told}");
                }
            }
        }
    }
}

/// What every put of an object brings.
fn body(object: &str) -> Vec<u8> {
    object.repeat(100).into_bytes()
}

/// What holds of each object, as far as somebody was told.
fn answered(steps: &[Step]) -> BTreeMap<&str, Option<Vec<u8>>> {
    let mut answered = BTreeMap::new();
    for step in steps {
        match step {
            Step::Asked { object } => drop(answered.remove(object.as_str())),
            Step::Answered { object, bytes } => {
                answered.insert(object.as_str(), bytes.clone());
            }
            _ => {}
        }
    }
    answered
}

/// Decides what of the unsynced is on the disk all the same: nothing, all the names and none of the
/// bytes, or some of it.
#[derive(Debug, Clone)]
struct Luck {
    seed: u64,
    state: u64,
}

impl Luck {
    fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A number below four, by splitmix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 4
    }

    fn keeps_name(&mut self) -> bool {
        match self.seed {
            0 => false,
            1 => true,
            _ => self.draw() < 2,
        }
    }

    /// What is there of bytes that were not synced.
    fn keeps_of(&mut self, bytes: &[u8]) -> Vec<u8> {
        match (self.seed, self.draw()) {
            (0 | 1, _) | (_, 0) => Vec::new(),
            (_, 1) => vec![0; bytes.len()],
            (_, 2) => bytes[..bytes.len() / 2].to_vec(),
            _ => bytes.to_vec(),
        }
    }
}

/// The disk after the power has gone.
#[derive(Debug, Default)]
struct Wreck {
    folders: BTreeMap<Node, BTreeMap<String, Node>>,
    files: BTreeMap<Node, Vec<u8>>,
}

impl Wreck {
    /// Names and bytes that are not durable when the power goes are there or not, as luck has it.
    fn after(steps: &[Step], mut luck: Luck) -> Self {
        let mut wreck = Self::default();
        let mut names: BTreeMap<Node, Vec<(String, Option<Node>)>> = BTreeMap::new();
        let mut bytes: BTreeMap<Node, Vec<u8>> = BTreeMap::new();
        for step in steps.iter().cloned() {
            match step {
                Step::Folder { parent: folder, name, folder: node }
                | Step::File { folder, name, file: node }
                | Step::Name { folder, name, file: node } => {
                    names.entry(folder).or_default().push((name, Some(node)));
                }
                Step::NameGone { folder, name } => {
                    names.entry(folder).or_default().push((name, None));
                }
                Step::Bytes { file, bytes: more } => bytes.entry(file).or_default().extend(more),
                Step::FileSynced { file } => {
                    let synced = bytes.remove(&file).unwrap_or_default();
                    wreck.files.entry(file).or_default().extend(synced);
                }
                Step::FolderSynced { folder } => {
                    for (name, node) in names.remove(&folder).unwrap_or_default() {
                        wreck.set(folder, name, node);
                    }
                }
                Step::Asked { .. } | Step::Answered { .. } => {}
            }
        }
        for (folder, changes) in names {
            for (name, node) in changes {
                if luck.keeps_name() {
                    wreck.set(folder, name, node);
                }
            }
        }
        for (file, bytes) in bytes {
            wreck.files.entry(file).or_default().extend(luck.keeps_of(&bytes));
        }
        wreck
    }

    fn set(&mut self, folder: Node, name: String, node: Option<Node>) {
        let names = self.folders.entry(folder).or_default();
        match node {
            Some(node) => drop(names.insert(name, node)),
            None => drop(names.remove(&name)),
        }
    }

    /// Files by their paths from the folder that the journal is of, which is node 1.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), 1)];
        while let Some((path, node)) = open.pop() {
            for (name, below) in self.folders.get(&node).into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match self.files.get(below) {
                    Some(bytes) => drop(found.insert(path, bytes.clone())),
                    None => open.push((path, *below)),
                }
            }
        }
        found
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let place = Place::new("power");
    let journal = Journal::of(&place);
    let store = journal.open(&place.0.join("made/root")).await;
    for object in ["a/b/c", "a/b/d", "a/e", "top"] {
        assert!(matches!(journal.put(&store, object, &body(object)).await, Put::Created));
    }
    assert!(matches!(journal.put(&store, "a/e", &body("a/e")).await, Put::Exists));
    for object in ["a/b/d", "a/b/d", "top"] {
        journal.delete(&store, object).await;
    }
    assert!(matches!(journal.put(&store, "top", &body("top")).await, Put::Created));
    journal.assert_survives("made/root");
}

/// Another writer has died after it had given the name, before it synced.
#[tokio::test]
async fn what_another_has_put_is_acknowledged_only_when_it_is_durable() {
    let place = Place::new("others");
    let journal = Journal::of(&place);
    let store = journal.open(&place.0.join("root")).await;
    assert!(matches!(journal.put(&store, "a/first", &body("a/first")).await, Put::Created));
    let disk = journal.disk();
    let open = |path: &str| {
        rustix::fs::open(place.0.join("root").join(path), FOLDER, Mode::empty()).unwrap()
    };
    let (temporary, folder) = (open(".tmp"), open("a"));
    let file = disk.create(&temporary, "of-another").unwrap();
    disk.write(&file, &body("a/late")).unwrap();
    disk.sync_written(&file).unwrap();
    disk.name(&file, (&temporary, "of-another"), (&folder, "late")).unwrap();
    assert!(matches!(journal.put(&store, "a/late", &body("a/late")).await, Put::Exists));
    journal.assert_survives("root");

    // And one whose file system gives names before there is content.
    let file = disk.create(&temporary, "of-a-third").unwrap();
    disk.write(&file, &body("a/later")).unwrap();
    disk.name(&file, (&temporary, "of-a-third"), (&folder, "later")).unwrap();
    let begun = journal.entries().steps.len();
    assert!(matches!(journal.put(&store, "a/later", &body("a/later")).await, Put::Exists));
    let steps = journal.entries().steps.clone();
    let left = Wreck::after(&steps, Luck::new(0)).files();
    assert_eq!(left.get("root/a/later"), Some(&body("a/later")), "{:?}", &steps[begun..]);
}

/// Another has removed it and died before it synced.
#[tokio::test]
async fn what_another_has_removed_is_told_to_be_gone_only_when_it_stays_gone() {
    let place = Place::new("removed-by-others");
    let journal = Journal::of(&place);
    let store = journal.open(&place.0.join("root")).await;
    assert!(matches!(journal.put(&store, "a/b", &body("a/b")).await, Put::Created));
    journal.entries().steps.push(Step::Asked { object: "a/b".into() });
    let folder = rustix::fs::open(place.0.join("root/a"), FOLDER, Mode::empty()).unwrap();
    journal.disk().remove(&folder, "b").unwrap();
    journal.delete(&store, "a/b").await;
    journal.assert_survives("root");
}
