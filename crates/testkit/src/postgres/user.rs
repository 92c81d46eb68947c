//! The ordinary user that servers run as when the tests themselves run as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Whom PostgreSQL's programs run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerUser {
    /// The user of the test process: it is an ordinary one already.
    Own,
    /// Another user, entered from root.
    Other {
        /// The user's name in the password database.
        name: String,
        /// Numeric user id.
        uid: u32,
        /// Numeric id of the user's primary group.
        gid: u32,
    },
}

impl ServerUser {
    /// The user servers run as on this machine: `postgres` if root finds one, else
    /// `pgrecall-test`, which is created when it is missing.
    pub fn current() -> &'static Self {
        static USER: OnceLock<ServerUser> = OnceLock::new();
        USER.get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Self::Own;
            }
            look_up("postgres")
                .or_else(|| look_up("pgrecall-test"))
                .or_else(create)
                .unwrap_or_else(|| panic!("useradd made no user pgrecall-test"))
        })
    }

    /// Hands `path` over to this user.
    pub fn own(&self, path: &Path) {
        if let Self::Other { uid, gid, .. } = self {
            std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
        }
    }
}

/// Makes `command` run as [`ServerUser::current`], in a directory that this user may enter, and
/// without the `PG*` variables of whoever runs the tests.
pub fn as_server_user(mut command: Command) -> Command {
    clear_environment(&mut command);
    if let ServerUser::Other { name, uid, gid } = ServerUser::current() {
        command.gid(*gid).uid(*uid).env("USER", name).env("LOGNAME", name).env("HOME", "/tmp");
    }
    if command.get_current_dir().is_none() {
        command.current_dir("/");
    }
    command
}

/// Takes libpq's variables out of the environment, those set on `command` itself apart, and fixes
/// what changes the programs' output: locale and time zone.
fn clear_environment(command: &mut Command) {
    let own: Vec<OsString> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_libpq = text.starts_with("PG") && !text.starts_with("PGRECALL");
        if is_libpq && !own.contains(&name) {
            command.env_remove(&name);
        }
    }
    for (name, value) in [("LC_ALL", "C"), ("TZ", "UTC")] {
        if !own.iter().any(|set| set == name) {
            command.env(name, value);
        }
    }
}

fn look_up(name: &str) -> Option<ServerUser> {
    let id = |flag: &str| -> Option<u32> {
        let out = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(out.stdout).ok()?.trim().parse().ok()
    };
    Some(ServerUser::Other { name: name.to_owned(), uid: id("-u")?, gid: id("-g")? })
}

fn create() -> Option<ServerUser> {
    let made = Command::new("useradd")
        .args(["--system", "--user-group", "--no-create-home", "--shell", "/bin/sh"])
        .arg("pgrecall-test")
        .output()
        .unwrap_or_else(|e| panic!("useradd: {e}"));
    // Another test process may have been first: the look-up decides, not the exit code.
    look_up("pgrecall-test").or_else(|| {
        panic!("useradd pgrecall-test: {}", String::from_utf8_lossy(&made.stderr));
    })
}
