//! What a program asks of the disk, as `strace` sees it, and what of that may be gone after a power
//! cut.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A call that changes what is on the disk, or makes it durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskCall {
    /// A name is there that was not, or may not have been: of a file, a folder or a link.
    Named(PathBuf),
    /// What is in a file has changed.
    Written(PathBuf),
    /// A file has another name.
    Moved(PathBuf, PathBuf),
    /// A name is gone.
    Removed(PathBuf),
    /// A file or a folder was synced.
    Synced(PathBuf),
    /// A file system was.
    AllSynced,
}

const CALLS: &str = "?open,?creat,openat,?mkdir,mkdirat,?symlink,symlinkat,?link,linkat,?rename,\
                     ?renameat,renameat2,?unlink,unlinkat,?rmdir,write,writev,pwrite64,pwritev,\
                     pwritev2,truncate,ftruncate,fallocate,copy_file_range,sendfile,fsync,\
                     fdatasync,syncfs,sync";

/// Runs a program to its end and gives what it asked of the disk, in the order in which that was
/// done. What failed is left out.
///
/// # Panics
/// When there is no `strace`, or it may not trace.
pub fn traced(command: &Command, log: &Path) -> (Output, Vec<DiskCall>) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "0", "-qq", "-e", "signal=none", "-e"]);
    strace.arg(format!("trace={CALLS}")).arg("-o").arg(log);
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        strace.current_dir(folder);
    }
    let output = strace
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("strace (apt-get install strace): {error}"));
    let text = std::fs::read(log).expect("strace has written its log");
    let calls = parse(&String::from_utf8_lossy(&text));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!calls.is_empty(), "strace has seen nothing: {said}");
    (output, calls)
}

/// What has been done and is not durable yet, on one file system.
#[derive(Debug, Clone, Default)]
pub struct Unsynced {
    names: BTreeSet<PathBuf>,
    contents: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// Takes the next call.
    pub fn after(&mut self, call: &DiskCall) {
        match call {
            DiskCall::Named(path) | DiskCall::Removed(path) => {
                self.names.insert(path.clone());
            }
            DiskCall::Written(path) => {
                self.contents.insert(path.clone());
            }
            DiskCall::Moved(from, to) => {
                self.names.extend([from.clone(), to.clone()]);
                if self.contents.remove(from) {
                    self.contents.insert(to.clone());
                }
            }
            DiskCall::Synced(path) => {
                self.contents.remove(path);
                self.names.retain(|name| name.parent() != Some(path));
            }
            DiskCall::AllSynced => *self = Self::default(),
        }
    }

    /// Whether what is, or no longer is, under this name will be so after a power cut.
    #[must_use]
    pub fn is_durable(&self, path: &Path) -> bool {
        !self.contents.contains(path) && path.ancestors().all(|path| !self.names.contains(path))
    }

    /// What is not durable below a folder.
    #[must_use]
    pub fn below(&self, folder: &Path) -> BTreeSet<&Path> {
        let all = self.names.iter().chain(&self.contents);
        all.map(PathBuf::as_path).filter(|path| path.starts_with(folder)).collect()
    }
}

/// The calls of a log. One that another thread's cuts in two counts where it ended.
fn parse(text: &str) -> Vec<DiskCall> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((process, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix("<unfinished ...>") {
            begun.insert(process, begin);
        } else if let Some(rest) = line.strip_prefix("<... ") {
            let begin = begun.remove(process).unwrap_or_default();
            let end = rest.split_once("resumed>").map_or("", |(_, end)| end);
            calls.extend(call(&format!("{begin}{end}")));
        } else {
            calls.extend(call(line));
        }
    }
    calls
}

fn call(line: &str) -> Vec<DiskCall> {
    let Some((name, rest)) = line.split_once('(') else { return vec![] };
    let Some((arguments, result)) = rest.rsplit_once(" = ") else { return vec![] };
    if result.starts_with(['-', '?']) {
        return vec![];
    }
    let paths = named_paths(arguments);
    let path = || paths.last().cloned().unwrap_or_default();
    let opened = || inside(arguments, '<', '>').into_iter().map(PathBuf::from).collect::<Vec<_>>();
    match name {
        "open" | "openat" | "creat" => {
            let mut calls = Vec::new();
            if name == "creat" || arguments.contains("O_CREAT") {
                calls.push(DiskCall::Named(path()));
            }
            if name == "creat" || arguments.contains("O_TRUNC") {
                calls.push(DiskCall::Written(path()));
            }
            calls
        }
        "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "link" | "linkat" => {
            vec![DiskCall::Named(path())]
        }
        "rename" | "renameat" | "renameat2" => match &paths[..] {
            [from, to] => vec![DiskCall::Moved(from.clone(), to.clone())],
            _ => panic!("a rename of {paths:?}: {line}"),
        },
        "unlink" | "unlinkat" | "rmdir" => vec![DiskCall::Removed(path())],
        "truncate" => vec![DiskCall::Written(path())],
        "fsync" | "fdatasync" => opened().into_iter().map(DiskCall::Synced).collect(),
        "sync" | "syncfs" => vec![DiskCall::AllSynced],
        "copy_file_range" => {
            opened().into_iter().next_back().map(DiskCall::Written).into_iter().collect()
        }
        _ => opened().into_iter().next().map(DiskCall::Written).into_iter().collect(),
    }
}

/// The paths between quotes, each with the folder that it is relative to.
fn named_paths(arguments: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut rest = arguments;
    while let Some((before, after)) = rest.split_once('"') {
        let Some((path, after)) = after.split_once('"') else { break };
        let folder = inside(before, '<', '>').pop().unwrap_or_default();
        paths.push(Path::new(folder).join(path));
        rest = after;
    }
    paths
}

/// What stands between such marks.
fn inside(text: &str, open: char, close: char) -> Vec<&str> {
    let parts = text.split(open).skip(1);
    parts.filter_map(|part| Some(part.split_once(close)?.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let log = "7 openat(AT_FDCWD</w>, \"/d/a\", O_WRONLY|O_CREAT|O_CLOEXEC, 0600) = 5</d/a>\n\
                   7 write(5</d/a>, \"\"..., 12 <unfinished ...>\n\
                   8 unlinkat(4</d>, \"b\", 0)     = 0\n\
                   7 <... write resumed>)           = 12\n\
                   7 fsync(5</d/a>)                 = 0\n\
                   8 mkdir(\"/d/e\", 0700)          = -1 EEXIST (File exists)\n\
                   8 rename(\"/d/a\", \"/d/c\")     = 0\n\
                   8 syncfs(5</d>)                  = 0\n\
                   8 +++ exited with 0 +++\n";
        let at = PathBuf::from;
        let expected = [
            DiskCall::Named(at("/d/a")),
            DiskCall::Removed(at("/d/b")),
            DiskCall::Written(at("/d/a")),
            DiskCall::Synced(at("/d/a")),
            DiskCall::Moved(at("/d/a"), at("/d/c")),
            DiskCall::AllSynced,
        ];
        assert_eq!(parse(log), expected);
        let mut unsynced = Unsynced::default();
        let durable: Vec<(bool, bool)> = expected
            .iter()
            .map(|call| {
                unsynced.after(call);
                (unsynced.is_durable(Path::new("/d/a")), unsynced.is_durable(Path::new("/d/c")))
            })
            .collect();
        let (no, yes) = ((false, true), (true, true));
        assert_eq!(durable, [no, no, no, no, (false, false), yes]);
    }
}
