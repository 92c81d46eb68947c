//! A repository in a directory, a configuration that pins it, and the program, all in reach of the
//! user that PostgreSQL runs as.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_store::{DirectoryStore, RootPolicy, Store};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Scratch, as_server_user, majors};

/// One repository and one configuration.
pub(crate) struct Site {
    scratch: Scratch,
    program: PathBuf,
    repository: PathBuf,
}

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let repository = scratch.path().join("repository");
        Self::around(scratch, repository)
    }

    /// With the repository in a folder that the caller has made, such as a small disk.
    pub(crate) fn around(scratch: Scratch, repository: PathBuf) -> Self {
        let program = scratch.reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
        let key = KeyFile::random(&SharedRandom::system());
        let key_file = scratch.file("main.key", key.to_text().as_bytes());
        let made = create(&repository, Unlock::KeyFile(key));
        let config = format!(
            "[[repository]]\nurl = \"file://{}\"\nid = \"{}\"\nkey_fingerprint = \"{}\"\n\
             key_file = \"{}\"\ncache_dir = \"{}\"\n\n[[cluster]]\nname = \"main\"\n",
            repository.display(),
            made.root().id,
            made.fingerprint(),
            key_file.display(),
            scratch.path().join("cache").display(),
        );
        scratch.file("pgrecall.toml", config.as_bytes());
        own_all(&repository);
        Self { scratch, program, repository }
    }

    /// The program over a copy of this repository, with a configuration of its own and no cache.
    #[allow(dead_code, reason = "the tests of checking use it")]
    pub(crate) fn over_copy(&self, copy: impl FnOnce(&Path)) -> Self {
        let scratch = Scratch::new();
        let repository = scratch.path().join("repository");
        copy(&repository);
        own_all(&repository);
        scratch.file("main.key", &std::fs::read(self.key_file()).expect("the key file"));
        let config = std::fs::read_to_string(self.config()).expect("the configuration");
        let (old, new) = (self.scratch.path().display(), scratch.path().display());
        let config = config.replace(&old.to_string(), &new.to_string());
        scratch.file("pgrecall.toml", config.as_bytes());
        Self::at(scratch)
    }

    /// The program over the repository and the configuration that stand in this folder.
    #[allow(dead_code, reason = "the tests of restoring use it")]
    pub(crate) fn at(scratch: Scratch) -> Self {
        let program = scratch.reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
        let repository = scratch.path().join("repository");
        Self { scratch, program, repository }
    }

    #[allow(dead_code, reason = "the tests of restoring use it")]
    pub(crate) fn key_file(&self) -> PathBuf {
        self.scratch.path().join("main.key")
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.scratch.path().join("pgrecall.toml")
    }

    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    /// The text of the root object.
    pub(crate) fn root(&self) -> String {
        std::fs::read_to_string(self.repository.join("pgrecall.json")).expect("the root object")
    }

    /// Puts another text in its place.
    pub(crate) fn set_root(&self, text: &str) {
        let path = self.repository.join("pgrecall.json");
        std::fs::remove_file(&path).expect("objects are never written over");
        std::fs::write(&path, text).expect("the root object");
        own_all(&self.repository);
    }

    fn call(&self, words: &str) -> String {
        format!("{} --config {} {words}", self.program.display(), self.config().display())
    }

    pub(crate) fn archive_command(&self) -> String {
        self.call("wal push %p")
    }

    pub(crate) fn restore_command(&self) -> String {
        self.call("wal fetch %f %p")
    }

    /// A running server that archives here.
    pub(crate) fn primary(&self, major: u32) -> Cluster {
        Cluster::create(ClusterOptions::new(major).archive_command(&self.archive_command()))
    }

    /// The program, as PostgreSQL's user, in that directory.
    pub(crate) fn pgrecall(&self, directory: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(directory).arg("--config").arg(self.config()).args(words);
        as_server_user(command)
    }

    pub(crate) fn run(&self, directory: &Path, words: &[&str]) -> Run {
        Run::of(self.pgrecall(directory, words))
    }

    /// Takes the repository away, as when its disk is not mounted.
    pub(crate) fn cut_off(&self) {
        std::fs::rename(&self.repository, self.away()).expect("the repository can be moved");
    }

    /// As [`cut_off`](Self::cut_off), and leaves the empty folder that was mounted over.
    pub(crate) fn unmount(&self) {
        self.cut_off();
        std::fs::create_dir(&self.repository).expect("the mount point");
        own_all(&self.repository);
    }

    /// Brings it back.
    pub(crate) fn bring_back(&self) {
        if self.repository.exists() {
            std::fs::remove_dir(&self.repository).expect("the mount point is empty");
        }
        std::fs::rename(self.away(), &self.repository).expect("the repository can be moved back");
    }

    fn away(&self) -> PathBuf {
        self.repository.with_extension("away")
    }

    /// The object of an archived file.
    pub(crate) fn object(&self, file: &str) -> Option<PathBuf> {
        let mut folders = vec![self.repository.join("clusters")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == file) {
                    return Some(path);
                }
            }
        }
        None
    }

    /// Waits until the file is stored.
    pub(crate) fn wait_archived(&self, cluster: &Cluster, file: &str) {
        cluster.wait_until(&format!("{file} is archived"), || self.object(file).is_some());
    }

    /// Makes a stopped copy of a running cluster that recovers by `restore_command`.
    pub(crate) fn copy_of(&self, cluster: &Cluster, name: &str, signal: &str) -> Cluster {
        let target = self.scratch.path().join(name);
        cluster.base_backup(&target, &["--wal-method=none"]);
        let copy = Cluster::adopt(cluster.major(), &target);
        copy.append_to(signal, "");
        let command = self.restore_command();
        copy.append_to("postgresql.conf", &format!("restore_command = '{command}'\n"));
        // A copy never writes into the lineage that it came from.
        copy.append_to("postgresql.conf", "archive_mode = off\n");
        copy
    }
}

impl Run {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let Output { status, stderr, .. } = output;
        Self { code: status.code(), stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }

    /// Panics with what was printed unless the code is this one.
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }
}

/// The majors to test on.
pub(crate) fn newest_major() -> u32 {
    majors().into_iter().max().expect("at least one major is installed")
}

/// The name of the segment that is being written, and a switch to the next one.
pub(crate) fn switch(cluster: &Cluster) -> String {
    cluster.psql("CREATE TABLE IF NOT EXISTS switched (at timestamptz)");
    cluster.psql("INSERT INTO switched VALUES (now())");
    cluster.psql("SELECT pg_walfile_name(pg_switch_wal())")
}

/// Waits for something outside a server.
pub(crate) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn create(folder: &Path, unlock: Unlock) -> Repository {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = DirectoryStore::open(folder, RootPolicy::Create).await.expect("a store");
        let options = OpenOptions {
            id: None,
            suite: RootSuite::Aes256Gcm,
            fingerprint: None,
            unlock,
            random: SharedRandom::system(),
            cache: None,
            restore_keys: Vec::new(),
        };
        let note = KeyNote { label: "test".into(), now: "2026-11-22T00:00:00Z".into() };
        let store: Arc<dyn Store> = Arc::new(store);
        match Repository::create(store, options, &note).await.expect("a repository") {
            Created::New(repository) => *repository,
            Created::Taken(root) => panic!("{root:?} stands there already"),
        }
    })
}

/// Hands a folder and all in it over to PostgreSQL's user.
pub(crate) fn own_all(folder: &Path) {
    use pgrecall_testkit::postgres::ServerUser;
    let user = ServerUser::current();
    user.own(folder);
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { own_all(&path) } else { user.own(&path) }
    }
}
