//! A cluster: its data directory, its server when one runs, and SQL on it.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::home::PostgresHome;
use super::options::{ClusterOptions, Listen};
use super::process::Postmaster;
use super::scratch::Scratch;

/// How long a server may take to start or stop.
const LIFECYCLE_LIMIT: Duration = Duration::from_secs(120);
/// Line of `postmaster.pid` with the state (`LOCK_FILE_LINE_PM_STATUS` in `utils/pidfile.h`).
const STATUS_LINE: usize = 8;
/// How much of the server's log a panic shows.
const LOG_LINES_SHOWN: usize = 60;

/// How a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: sessions are ended, a shutdown checkpoint is written.
    Fast,
    /// SIGQUIT: no checkpoint, the next start recovers.
    Immediate,
    /// SIGKILL, as in a crash of the machine (what reached the kernel is kept).
    Kill,
}

/// A server that did not come up.
#[derive(Debug)]
pub struct StartFailure {
    /// Its exit status; `None` if it still ran when the time was up.
    pub status: Option<ExitStatus>,
    /// What it logged since that start.
    pub log: String,
}

/// A PostgreSQL cluster of a test, stopped and removed on drop.
#[derive(Debug)]
pub struct Cluster {
    pub(super) home: PostgresHome,
    pub(super) scratch: Scratch,
    pub(super) data_dir: PathBuf,
    pub(super) port: u16,
    pub(super) listen: Listen,
    overrides: Mutex<Vec<(String, String)>>,
    postmaster: Mutex<Option<Postmaster>>,
}

impl Cluster {
    /// Runs `initdb`, writes the settings and starts the server.
    pub fn create(options: ClusterOptions) -> Self {
        let cluster = Self::create_stopped(options);
        cluster.start();
        cluster
    }

    /// As [`Cluster::create`] without the start.
    pub fn create_stopped(options: ClusterOptions) -> Self {
        let home = PostgresHome::find(options.major);
        let cluster = Self::around(home, None, options.listen);
        let mut initdb = cluster.tool("initdb");
        initdb.arg("-D").arg(&cluster.data_dir).args(options.initdb_command_args());
        run(initdb);
        cluster.append_to("postgresql.conf", &options.configuration());
        cluster
    }

    /// Takes a directory that exists, such as a restored one, as it is. Nothing in it is
    /// touched before the start, and it is not removed on drop: it belongs to the caller.
    pub fn adopt(major: u32, data_dir: &Path) -> Self {
        let home = PostgresHome::find(major);
        Self::around(home, Some(data_dir.to_owned()), Listen::SocketOnly)
    }

    pub(super) fn around(home: PostgresHome, data_dir: Option<PathBuf>, listen: Listen) -> Self {
        let scratch = Scratch::new();
        let data_dir = data_dir.unwrap_or_else(|| scratch.path().join("data"));
        let (overrides, postmaster) = (Mutex::new(Vec::new()), Mutex::new(None));
        Self { home, scratch, data_dir, port: free_port(), listen, overrides, postmaster }
    }

    /// The installation it runs on.
    pub fn home(&self) -> &PostgresHome {
        &self.home
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.home.major()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The temporary directory around it: make folders for tablespaces and the like here.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The folder of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Its port, also in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A libpq connection string for the superuser over the socket, without a database.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres", self.socket_dir().display(), self.port)
    }

    /// A setting for the next starts, on the command line: it beats the files and leaves no trace
    /// in the data directory.
    pub fn override_setting(&self, name: &str, value: &str) {
        lock(&self.overrides).push((name.to_owned(), value.to_owned()));
    }

    /// Appends to a file of the data directory, made if missing, as the server's user would.
    pub fn append_to(&self, name: &str, text: &str) {
        let path = self.data_dir.join(name);
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        super::user::ServerUser::current().own(&path);
    }

    /// Starts the server and waits until it takes connections (in recovery: until it is a hot
    /// standby). Panics with its log when it does not.
    pub fn start(&self) {
        if let Err(failure) = self.try_start() {
            panic!(
                "PostgreSQL {} in {} did not start ({:?}):\n{}",
                self.major(),
                self.data_dir.display(),
                failure.status,
                last_lines(&failure.log)
            );
        }
    }

    /// As [`Cluster::start`], for a server that may refuse.
    pub fn try_start(&self) -> Result<(), StartFailure> {
        let log_start = self.log().len();
        self.spawn();
        let failed = |status| {
            let log = self.log().split_off(log_start);
            StartFailure { status, log }
        };
        let end = Instant::now() + LIFECYCLE_LIMIT;
        loop {
            if let Some(status) = self.exit_status() {
                return Err(failed(Some(status)));
            }
            if self.is_ready() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(failed(None));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the server without waiting; [`Cluster::wait_ready`] or [`Cluster::wait_exit`] follow.
    pub fn spawn(&self) {
        let mut slot = lock(&self.postmaster);
        let running = slot.as_mut().is_some_and(|server| server.exit_status().is_none());
        assert!(!running, "the server in {} runs already", self.data_dir.display());
        let listen = match self.listen {
            Listen::SocketOnly => "",
            Listen::Loopback => "127.0.0.1",
        };
        let mut command = self.tool("postgres");
        command.arg("-D").arg(&self.data_dir).arg("-p").arg(self.port.to_string());
        let sockets = self.socket_dir().display().to_string();
        let fixed = [("unix_socket_directories", sockets.as_str()), ("listen_addresses", listen)];
        let overrides = lock(&self.overrides);
        let own = overrides.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        *slot = Some(Postmaster::spawn(command, &self.log_path()));
    }

    /// Waits until the server takes connections.
    pub fn wait_ready(&self) {
        self.wait_until("the server takes connections", || self.is_ready());
    }

    /// Waits for the server's own end, such as `recovery_target_action=shutdown` or a fatal error
    /// in recovery, and returns its status.
    pub fn wait_exit(&self) -> ExitStatus {
        let mut slot = lock(&self.postmaster);
        let server = slot.as_mut().expect("the server was started");
        let status = server.wait(LIFECYCLE_LIMIT);
        drop(slot);
        status.unwrap_or_else(|| panic!("the server goes on:\n{}", last_lines(&self.log())))
    }

    /// The status of a server that has ended; `None` while it runs or when none was started.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.postmaster).as_mut().and_then(Postmaster::exit_status)
    }

    /// Whether a server started here still runs.
    pub fn is_running(&self) -> bool {
        lock(&self.postmaster).as_mut().is_some_and(|server| server.exit_status().is_none())
    }

    /// The postmaster's process id.
    pub fn postmaster_pid(&self) -> u32 {
        lock(&self.postmaster).as_ref().expect("the server was started").id()
    }

    /// Ends the server.
    pub fn stop(&self, how: Stop) {
        let mut slot = lock(&self.postmaster);
        let Some(server) = slot.as_mut() else { return };
        match how {
            Stop::Fast => server.signal(Signal::INT),
            Stop::Immediate => server.signal(Signal::QUIT),
            Stop::Kill => server.kill(),
        }
        let ended = server.wait(LIFECYCLE_LIMIT);
        if ended.is_none() {
            server.kill();
        }
        *slot = None;
        drop(slot);
        assert!(ended.is_some(), "{how:?} did not end the server:\n{}", last_lines(&self.log()));
    }

    /// Stops (fast) and starts it.
    pub fn restart(&self) {
        self.stop(Stop::Fast);
        self.start();
    }

    /// Promotes a standby and waits until it is a primary.
    pub fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote(true, 60)"), "t", "{}", last_lines(&self.log()));
    }

    /// Reads the configuration again.
    pub fn reload(&self) {
        self.psql("SELECT pg_reload_conf()");
    }

    /// Waits until recovery is paused at its target.
    pub fn wait_until_paused(&self) {
        let sql = "SELECT pg_get_wal_replay_pause_state()";
        self.wait_until("recovery is paused", || self.try_psql(sql).as_deref() == Ok("paused"));
    }

    /// Waits until the server is no longer in recovery.
    pub fn wait_until_recovered(&self) {
        let sql = "SELECT pg_is_in_recovery()";
        self.wait_until("recovery has ended", || self.try_psql(sql).as_deref() == Ok("f"));
    }

    /// Waits until `holds`, which must come true while the server runs; panics with the log when
    /// the server ends first or two minutes pass.
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + LIFECYCLE_LIMIT;
        while !holds() {
            let status = self.exit_status();
            if status.is_some() || Instant::now() > end {
                let log = last_lines(&self.log());
                panic!("waited in vain until {what} (server's exit: {status:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that the server has logged since the cluster was made.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs SQL as the superuser in database `postgres`, each statement by itself, and returns
    /// the rows: fields separated by `|`, rows by newlines. Panics on an error.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// As [`Cluster::psql`] in another database.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        self.try_psql_in(database, sql).unwrap_or_else(|error| {
            panic!("{sql}\n{error}\nserver log:\n{}", last_lines(&self.log()))
        })
    }

    /// As [`Cluster::psql`]; an error is what psql wrote to stderr.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.try_psql_in("postgres", sql)
    }

    /// As [`Cluster::try_psql`] in another database.
    pub fn try_psql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.client_tool("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", database]);
        let output = output_with_input(command, sql);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// How to reach it as the superuser with tokio-postgres.
    pub fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).port(self.port).user("postgres").dbname("postgres");
        config
    }

    /// A session of the superuser; its connection is driven by a task of the running runtime.
    pub async fn client(&self) -> tokio_postgres::Client {
        let connected = self.client_config().connect(tokio_postgres::NoTls).await;
        let (client, connection) = connected
            .unwrap_or_else(|e| panic!("connect: {e}\nserver log:\n{}", last_lines(&self.log())));
        tokio::spawn(connection);
        client
    }

    /// A command for a program of this major, run as the server's user.
    pub fn tool(&self, name: &str) -> Command {
        self.home.tool(name)
    }

    /// As [`Cluster::tool`], with `PGHOST`, `PGPORT` and `PGUSER` leading to this cluster.
    pub fn client_tool(&self, name: &str) -> Command {
        let mut command = self.tool(name);
        command
            .env("PGHOST", self.socket_dir())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres");
        command
    }

    fn is_ready(&self) -> bool {
        let text = std::fs::read_to_string(self.data_dir.join("postmaster.pid"));
        let text = text.unwrap_or_default();
        let mut lines = text.lines();
        let own = lines.next().and_then(|line| line.trim().parse().ok());
        own == Some(self.postmaster_pid())
            && lines.nth(STATUS_LINE - 2).is_some_and(|status| status.trim() == "ready")
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = lock(&self.postmaster).take() {
            server.signal(Signal::QUIT);
            if server.wait(Duration::from_secs(10)).is_none() {
                server.kill();
            }
        }
        if std::thread::panicking() {
            let log = last_lines(&self.log());
            #[expect(clippy::print_stderr, reason = "a failed test shows what its server said")]
            {
                eprintln!("server log of {}:\n{log}", self.data_dir.display());
            }
        }
    }
}

/// Runs a command that has to work and returns its standard output.
pub(crate) fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn output_with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        // A thread of its own, or a long script and a long answer would wait for each other. The
        // program may end before it has read everything.
        scope.spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("the port bound").port()
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
