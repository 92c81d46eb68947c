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
    fn names_with_spaces_and_parentheses_do_not_confuse() {
        let rest = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 99 5";
        assert_eq!(started(&format!("42 (a) b (c) {rest}")), Some(4711));
        assert_eq!(started("42"), None);
    }
}
