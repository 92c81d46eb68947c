//! A PostgreSQL cluster of a test: made, started, asked, stopped and removed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use pgrecall_pgformat::Major;
use tempfile::TempDir;

/// The majors to be tested.
pub(crate) fn majors() -> Vec<Major> {
    let text = std::env::var("PGRECALL_TEST_MAJORS").unwrap_or_else(|_| "17".to_owned());
    if text == "all" {
        return Major::ALL.to_vec();
    }
    text.split(',')
        .map(|number| number.trim().parse().expect("PGRECALL_TEST_MAJORS lists known majors"))
        .collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The folder of a major's programs.
fn programs(major: Major) -> PathBuf {
    let servers = match std::env::var_os("PGRECALL_TEST_SERVERS") {
        Some(folder) => PathBuf::from(folder),
        None if is_root() => PathBuf::from("/var/lib/pgrecall-test"),
        None => {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/pgrecall-test")
        }
    };
    let bin = servers.join(format!("postgresql-{major}/bin"));
    assert!(
        bin.join("postgres").exists(),
        "no PostgreSQL {major} in {}: run scripts/servers.sh",
        servers.display()
    );
    bin
}

/// User and group to run servers as, for PostgreSQL refuses root.
fn ordinary_user() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    ["pgrecall-test", "postgres", "nobody"].iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

pub(crate) struct Cluster {
    pub(crate) major: Major,
    bin: PathBuf,
    folder: TempDir,
    user: Option<(u32, u32)>,
}

impl Cluster {
    /// Runs `initdb` with checksums and appends settings.
    pub(crate) fn new(major: Major, initdb: &[&str], settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pgf-").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let cluster = Self { major, bin: programs(major), folder, user: ordinary_user() };
        cluster.own(cluster.folder.path());
        let data = cluster.data();
        let mut args = vec!["-D", data.to_str().expect("UTF-8"), "-U", "postgres", "-A", "trust"];
        args.extend(["-N", "-E", "UTF8", "--locale=C", "--data-checksums"]);
        args.extend(initdb);
        cluster.run("initdb", &args);
        let path = data.join("postgresql.conf");
        let fixed = "listen_addresses = ''\nfsync = off\nautovacuum = off\nlog_timezone = 'UTC'\n\
            shared_buffers = 16MB\nmax_connections = 10\n";
        let before = fs::read_to_string(&path).expect("postgresql.conf");
        let sockets = cluster.folder.path().display().to_string();
        let all = format!("{before}\n{fixed}unix_socket_directories = '{sockets}'\n{settings}\n");
        fs::write(&path, all).expect("postgresql.conf");
        cluster
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives a path to the user that servers run as.
    pub(crate) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).expect("chown");
        }
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).env_clear();
        command.env("TZ", "UTC").env("PGTZ", "UTC").env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Runs a program of this major, which may fail.
    pub(crate) fn try_run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().expect("the program runs")
    }

    /// Runs a program of this major; gives what it printed.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(crate) fn start(&self) {
        let data = self.data();
        let log = self.folder.path().join("log");
        // After a kill -9 the shared memory of the old server can linger for a moment.
        for attempt in 0.. {
            // No pipes: the server would hold them open.
            let status = self
                .command("pg_ctl")
                .args(["-s", "-w", "-t", "60", "-D"])
                .arg(&data)
                .arg("-l")
                .arg(&log)
                .arg("start")
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status();
            if status.expect("pg_ctl runs").success() {
                return;
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(attempt < 20, "the server does not start: {text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn stop(&self, mode: &str) {
        let data = self.data();
        self.run("pg_ctl", &["-s", "-w", "-m", mode, "-D", data.to_str().expect("UTF-8"), "stop"]);
    }

    /// Kills the postmaster as a power failure would; its children notice and go.
    pub(crate) fn kill(&self) {
        let path = self.data().join("postmaster.pid");
        let text = fs::read_to_string(&path).expect("postmaster.pid");
        let pid: i32 = text.lines().next().expect("a pid").parse().expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Runs SQL, statement by statement; gives the rows, fields divided by `|`.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let folder = self.folder.path().to_str().expect("UTF-8");
        let path = self.folder.path().join("input.sql");
        fs::write(&path, sql).expect("input.sql");
        let file = path.to_str().expect("UTF-8");
        let args =
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", "postgres"];
        let args = [&args[..], &["-d", "postgres", "-f", file]].concat();
        self.run("psql", &args).trim_end().to_owned()
    }

    /// The segments in `pg_wal` of a timeline, by name.
    pub(crate) fn segments(&self, timeline: u32) -> Vec<PathBuf> {
        let prefix = format!("{timeline:08X}");
        let mut paths: Vec<PathBuf> = fs::read_dir(self.data().join("pg_wal"))
            .expect("pg_wal")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
                name.len() == 24 && name.starts_with(&prefix)
            })
            .collect();
        paths.sort();
        paths
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            let data = self.data();
            let _ = self
                .command("pg_ctl")
                .args(["-s", "-w", "-m", "immediate", "-D"])
                .arg(data)
                .arg("stop")
                .output();
        }
    }
}
