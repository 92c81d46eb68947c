//! What is killed.

use std::path::PathBuf;

/// A command that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Victim {
    Backup,
    /// The `wal push` that the server's archiver runs.
    Push,
    Fetch,
    Expire,
    Gc,
    Repair,
    Verify,
    Restore,
    RestoreAgain,
    /// `restore --delta`.
    Delta,
    /// `restore --salvage`.
    Salvage,
    Check,
    Read,
    Rotate,
    AddKey,
    RemoveKey,
    Hold,
    Release,
    Init,
    /// `wal resolve`.
    Resolve,
    /// `backup --end-dead`.
    EndDead,
    /// `repair --give-up`.
    GiveUp,
    /// `key shred`.
    Shred,
}

impl Victim {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = Self::DRAWN.len();

    /// Each as often as it is to be drawn.
    const DRAWN: [(Self, u64); 23] = [
        (Self::Backup, 6),
        (Self::Push, 3),
        (Self::Fetch, 1),
        (Self::Expire, 3),
        (Self::Gc, 4),
        (Self::Repair, 1),
        (Self::Verify, 1),
        (Self::Restore, 1),
        (Self::RestoreAgain, 1),
        (Self::Delta, 1),
        (Self::Salvage, 1),
        (Self::Check, 1),
        (Self::Read, 1),
        (Self::Rotate, 1),
        (Self::AddKey, 1),
        (Self::RemoveKey, 1),
        (Self::Hold, 1),
        (Self::Release, 1),
        (Self::Init, 1),
        (Self::Resolve, 1),
        (Self::EndDead, 1),
        (Self::GiveUp, 1),
        (Self::Shred, 1),
    ];

    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut left = dice.below(Self::DRAWN.iter().map(|(_, times)| times).sum());
        for (victim, times) in Self::DRAWN {
            match left.checked_sub(times) {
                Some(rest) => left = rest,
                None => return victim,
            }
        }
        unreachable!("the times add up")
    }

    /// Whether backups that were there before may be gone after it, but for the newest.
    pub(crate) const fn expires(self) -> bool {
        matches!(self, Self::Expire)
    }
}

/// Chance that can be had again.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// The process whose command line has all of these words.
pub(crate) fn process_with(words: &[&str]) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").expect("processes");
    entries.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line =
            std::fs::read(PathBuf::from("/proc").join(pid.to_string()).join("cmdline")).ok()?;
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.iter().all(|word| arguments.contains(&word.as_bytes())).then_some(pid)
    })
}
