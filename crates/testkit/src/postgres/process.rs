//! One postmaster as a child process: starts it, watches it, ends it by its process id.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A running postmaster.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    exit: Option<ExitStatus>,
}

impl Postmaster {
    /// Starts `command` with its output appended to `log`.
    pub(super) fn spawn(mut command: Command, log: &Path) -> Self {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .unwrap_or_else(|e| panic!("{}: {e}", log.display()))
        };
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, exit: None }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().unwrap_or_else(|e| panic!("wait: {e}"));
        }
        self.exit
    }

    /// Sends `signal` unless it has ended: its id may belong to someone else by then.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            let _ = kill_process(pid(self.child.id()), signal);
        }
    }

    /// Waits for its end; `None` when `limit` passes first.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it without a goodbye, as a power cut would, and its children with it: the next start
    /// would find their shared memory in use.
    pub(super) fn kill(&mut self) {
        let children = children_of(self.child.id());
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10)).expect("a killed postmaster ends");
        let end = Instant::now() + Duration::from_secs(10);
        for child in children {
            while test_kill_process(pid(child)).is_ok() && is_server(child) {
                if Instant::now() > end {
                    let _ = kill_process(pid(child), Signal::KILL);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).expect("a process id is not 0")
}

/// Processes whose parent is `parent`, from the fourth field of `/proc/<pid>/stat` (proc(5)).
fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| parent_of(*id) == Some(parent))
        .collect()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in brackets, which may hold blanks and brackets.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the process is still PostgreSQL's, and not a zombie or a later owner of the id.
fn is_server(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    stat.contains("(postgres)") && !zombie
}
