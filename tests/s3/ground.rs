//! A real PostgreSQL whose repository lies in a bucket that does what it should until it is told
//! otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, as_server_user, majors};
use pgrecall_testkit::scripted_s3::{Answer, Meddle, Reply, Request, ScriptedS3};

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Panics with what was printed unless the code is this one and all of this was said.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for part in said {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
        self
    }
}

/// An empty bucket, and the program with a place for its configuration.
pub(crate) struct Host {
    // Dropped before the runtime that it runs in.
    server: ScriptedS3,
    _runtime: tokio::runtime::Runtime,
    cluster: Cluster,
    program: PathBuf,
    place: PathBuf,
}

impl Host {
    /// With a data directory, and no server at work in it.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let server = runtime.block_on(ScriptedS3::with_bucket());
        let major = majors().into_iter().max().expect("at least one major is installed");
        let cluster = Cluster::create_stopped(ClusterOptions::new(major).wal_segment_size_mib(1));
        let program =
            cluster.scratch().reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
        let place = cluster.scratch().dir("place");
        Self { server, _runtime: runtime, cluster, program, place }
    }

    pub(crate) fn server(&self) -> &ScriptedS3 {
        &self.server
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.place.join("pgrecall.toml")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config()).args(words);
        command.current_dir(self.cluster.data_dir()).env("PGUSER", "postgres");
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "hush-hush");
        // init keeps these in the configuration.
        command.env("PGRECALL_REPOSITORY_S3_READ_TIMEOUT", "1s");
        command.env("PGRECALL_REPOSITORY_S3_RETRY_BUDGET", "2s");
        as_server_user(command)
    }

    pub(crate) fn run(&self, words: &[&str]) -> Run {
        let output = self.command(words).output().expect("pgrecall runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!run.stderr.contains("hush-hush") && !run.stderr.contains("panic"), "{run:?}");
        run
    }

    /// As if nothing had been made yet.
    pub(crate) fn forget(&self) {
        for name in self.server.objects().keys() {
            self.server.set_object(name, None);
        }
        for entry in std::fs::read_dir(&self.place).expect("the place") {
            let path = entry.expect("an entry").path();
            let is_file = path.is_file();
            let removed =
                if is_file { std::fs::remove_file(path) } else { std::fs::remove_dir_all(path) };
            removed.expect("removed");
        }
    }

    pub(crate) fn init(&self) -> Run {
        let endpoint = self.server.endpoint();
        let data = self.cluster.data_dir().display().to_string();
        let place = ["--repo", "s3://bucket/pg", "--s3-endpoint", &endpoint];
        let cluster = ["--s3-region", "us-east-1", "--cluster", "main", "--pgdata", &data];
        self.run(&[&["init"], place.as_slice(), &cluster].concat())
    }
}

/// A server with a table and one backup, that archives.
pub(crate) struct Ground(Host);

impl Ground {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        let said = host.init().expect(0, &[]).stdout.clone();
        host.write_credentials();
        let told = said.lines().map(str::trim).filter(|line| line.starts_with("archive_"));
        let lines: Vec<&str> = told.collect();
        host.cluster.append_to("postgresql.conf", &format!("{}\n", lines.join("\n")));
        host.cluster.start();
        host.cluster.psql("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 5000) i");
        let ground = Self(host);
        ground.back_up();
        ground
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub(crate) fn server(&self) -> &ScriptedS3 {
        &self.0.server
    }

    pub(crate) fn run(&self, words: &[&str]) -> Run {
        self.0.run(words)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.config()
    }

    /// A folder for restored data directories.
    pub(crate) fn place(&self) -> &Path {
        &self.0.place
    }

    pub(crate) fn restore_command(&self) -> String {
        let (program, config) = (self.0.program.display(), self.0.config());
        format!("{program} --config {} wal fetch %f \"%p\"", config.display())
    }

    pub(crate) fn try_backup(&self) -> Run {
        self.run(&["backup", "--fast-checkpoint"])
    }

    /// Takes a backup, which must work.
    pub(crate) fn back_up(&self) {
        self.try_backup().expect(0, &[]);
    }

    /// The ids of the backups that are listed.
    pub(crate) fn listed(&self) -> Vec<String> {
        let run = self.run(&["list", "--json"]);
        let report: serde_json::Value =
            serde_json::from_str(&run.expect(0, &[]).stdout).expect("JSON");
        let backups = report["clusters"][0]["backups"].as_array().expect("backups");
        backups.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The objects that lie there now, to be compared later.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.server().objects()
    }

    /// Whatever was there is there, byte for byte.
    #[track_caller]
    pub(crate) fn assert_unharmed(&self, before: &BTreeMap<String, Vec<u8>>) {
        let now = self.objects();
        for (name, object) in before {
            assert!(now.get(name) == Some(object), "{name} is gone, or is another");
        }
    }

    /// Waits until this segment lies in the bucket, and gives the object's name.
    pub(crate) fn wait_archived(&self, segment: &str) -> String {
        self.cluster().wait_until("the segment is archived", || self.object(segment).is_some());
        self.object(segment).expect("archived")
    }

    /// The name of the object of an archived file.
    pub(crate) fn object(&self, file: &str) -> Option<String> {
        let end = format!("/{file}");
        self.objects().into_keys().find(|name| name.ends_with(&end))
    }
}

impl Host {
    /// Neither PostgreSQL nor its commands have AWS variables: the configuration says where the
    /// secret is.
    fn write_credentials(&self) {
        let secret = self.cluster.scratch().file("s3.secret", b"hush-hush");
        let text = std::fs::read_to_string(self.config()).expect("the configuration");
        let lines = format!(
            "[repository.s3]\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key_file = \"{}\"\n",
            secret.display()
        );
        assert_eq!(text.matches("\n[repository.s3]\n").count(), 1, "{text}");
        let text = text.replacen("[repository.s3]\n", &lines, 1);
        std::fs::write(self.config(), text).expect("written");
    }
}

/// An error of S3's in place of an answer.
pub(crate) fn error(status: u16, code: &str) -> Meddle {
    Meddle::Instead(Reply::Answer(Answer::error(status, code, "told by the script")))
}

/// Meets every request from the first on that fits.
pub(crate) fn from_then_on(
    fits: impl Fn(&Request) -> bool + Send + 'static,
    meddle: Meddle,
) -> impl FnMut(&Request) -> Meddle + Send + 'static {
    let mut met = false;
    move |request| {
        met |= fits(request);
        if met { meddle.clone() } else { Meddle::No }
    }
}

/// Meets every request that fits.
pub(crate) fn every(
    fits: impl Fn(&Request) -> bool + Send + 'static,
    meddle: Meddle,
) -> impl FnMut(&Request) -> Meddle + Send + 'static {
    the_first(usize::MAX, fits, meddle)
}

/// Meets the first so many requests that fit.
pub(crate) fn the_first(
    mut count: usize,
    fits: impl Fn(&Request) -> bool + Send + 'static,
    meddle: Meddle,
) -> impl FnMut(&Request) -> Meddle + Send + 'static {
    move |request| {
        if count == 0 || !fits(request) {
            return Meddle::No;
        }
        count -= 1;
        meddle.clone()
    }
}
