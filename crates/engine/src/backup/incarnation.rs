//! What tells a process from another one of the same number: the boot of its machine, and the tick
//! at which it was started (`/proc/<pid>/stat`, field 22). Process ids come back, in containers
//! nearly always the same ones.

use std::fs;

/// A process's mark; empty where the system does not say, or it is gone.
#[must_use]
pub fn of(process: u32) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    match started(&stat) {
        Some(started) if !boot.trim().is_empty() => format!("{}/{started}", boot.trim()),
        _ => String::new(),
    }
}

/// Whether a process of this host is there; one of another user counts. One that has ended, and
/// whose parent has not asked how, does not: in a container without an init it stays for ever.
#[must_use]
pub fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let is_there = match pid.map(rustix::process::test_kill_process) {
        None => false,
        Some(Ok(())) => true,
        // It is there and belongs to somebody else.
        Some(Err(error)) => error == rustix::io::Errno::PERM,
    };
    let stat = || fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    is_there && !has_ended(&stat())
}

/// Field 3: a zombie, or dead (proc(5)).
fn has_ended(stat: &str) -> bool {
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Field 22. The second, the program's name in parentheses, may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_mark_that_stays_and_others_have_others() {
        let own = of(std::process::id());
        assert!(!own.is_empty());
        assert_eq!(of(std::process::id()), own);
        assert_ne!(of(std::os::unix::process::parent_id()), own);
        assert_eq!(of(u32::MAX), "");
    }

    #[test]
    fn who_has_ended_is_not_alive_though_nobody_has_asked_how() {
        assert!(is_alive(std::process::id()) && !is_alive(u32::MAX >> 1));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        for _ in 0..1000 {
            if !is_alive(child.id()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!is_alive(child.id()));
        assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "a zombie");
        assert!(child.wait().unwrap().success());
        assert!(!has_ended("42 (Z) S 1") && has_ended("42 (a) b) Z 1") && !has_ended(""));
    }

    #[test]
    fn names_with_spaces_and_parentheses_do_not_confuse() {
        let rest = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 99 5";
        assert_eq!(started(&format!("42 (a) b (c) {rest}")), Some(4711));
        assert_eq!(started("42"), None);
    }
}
