//! A disk that is soon full. Root mounts a small file system; others limit the size of the files that
//! the program may write.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{ServerUser, as_server_user};

/// A file system of a few MiB, unmounted on drop.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, where root runs the test; others limit the files that the program may write by
    /// [`limited`].
    pub(crate) fn mount(at: &Path, size_mib: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        std::fs::create_dir_all(at).expect("the mount point");
        let size = format!("size={size_mib}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status()
            .expect("mount runs");
        assert!(status.success(), "root can mount a tmpfs");
        ServerUser::current().own(at);
        Some(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// The same command with files limited to so many KiB, and the signal for that ignored.
pub(crate) fn limited(command: &Command, kib: u32) -> Command {
    let mut shell = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    as_server_user(shell)
}

/// Leaves about so many bytes on the disk.
pub(crate) fn fill(path: &Path, leave_bytes: u64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("a filler");
    let block = vec![7_u8; 64 << 10];
    while file.write_all(&block).is_ok() {}
    drop(file);
    let size = std::fs::metadata(path).expect("its size").len();
    let file = std::fs::File::options().write(true).open(path).expect("the filler");
    file.set_len(size - leave_bytes.min(size)).expect("shorter");
}
