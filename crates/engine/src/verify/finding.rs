//! What a verification finds, and what it means for recovery.

use pgrecall_repo::id::BackupId;
use serde::Serialize;

use super::lost_moments::LostMoments;
use super::touched::TouchedFile;
use crate::catalog::reach::Reach;
use crate::unreadable::{Cause, Unreadable};

const OTHER_VERSION: &str = "another version of pgrecall wrote it: verify with that one, this one cannot say whether it is \
     good";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Recovery works, but something else suffers or may soon.
    Warning,
    /// Some recovery that should work does not.
    Damage,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nature {
    /// Stored bytes are not what was written, or something else is wrong with what is stored.
    Wrong,
    /// WAL, or the history of a timeline, is not stored.
    Missing,
    /// Another version of the program wrote it: nobody can say here whether it is good.
    OtherVersion,
}

impl Nature {
    /// The graver, the lower.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Wrong => 0,
            Self::Missing => 1,
            Self::OtherVersion => 2,
        }
    }
}

impl From<Cause> for Nature {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Damage => Self::Wrong,
            Cause::OtherVersion => Self::OtherVersion,
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub nature: Nature,
    /// The object, file or backup.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// What that means for recovery, and what to do.
    pub consequence: String,
}

/// Whether a backup can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The backup.
    pub backup: BackupId,
    /// Its cluster.
    pub cluster: String,
    /// The cluster's system identifier, in decimal.
    pub system_identifier: String,
    /// When it ended, RFC 3339.
    pub ended: String,
    /// Whether all its files can be had and the WAL up to its stop LSN is sound.
    pub restorable: bool,
    /// How far recovery from it can go through sound WAL.
    pub reach: Vec<Reach>,
    /// Files that cannot be had whole.
    pub bad_files: u64,
    /// Those files, with what of each cannot be had; ten thousand at most.
    pub touched: Vec<TouchedFile>,
}

/// How much was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Backups.
    pub backups: u64,
    /// Files, folders and links of backups; one that several backups share counts for each.
    pub entries: u64,
    /// Distinct chunks that backups refer to.
    pub chunks: u64,
    /// Packs that hold them.
    pub packs: u64,
    /// WAL segments whose trailers were read.
    pub wal_segments: u64,
    /// Timeline histories.
    pub histories: u64,
    /// Plaintext bytes that were read, opened and compared.
    pub read_bytes: u64,
}

/// What a verification found. Its JSON is stable: members are added, never changed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// True when no finding is damage.
    pub sound: bool,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
    /// Every backup.
    pub backups: Vec<Verdict>,
    /// Moments that can be reached from no backup any more; of a verification of all backups.
    pub lost_moments: Vec<LostMoments>,
    /// How much was checked.
    pub checked: Checked,
    /// Whether something could not be read or noted that may be damaged.
    #[serde(skip)]
    pub(super) unsure: bool,
}

impl VerifyReport {
    pub(super) fn add(
        &mut self,
        severity: Severity,
        object: impl Into<String>,
        what: impl Into<String>,
        consequence: impl Into<String>,
    ) {
        self.push(severity, Nature::Wrong, (object.into(), what.into(), consequence.into()));
    }

    /// Something that does not read; `what` says what it is.
    pub(super) fn add_unreadable(
        &mut self,
        severity: Severity,
        object: impl Into<String>,
        (what, why): (&str, &Unreadable),
        consequence: impl Into<String>,
    ) {
        let consequence = match why.cause {
            Cause::Damage => consequence.into(),
            Cause::OtherVersion => OTHER_VERSION.into(),
        };
        let what = format!("{what}{}", why.reason);
        self.push(severity, why.cause.into(), (object.into(), what, consequence));
    }

    /// Something that should be stored is not, and some recovery does not work without it.
    pub(super) fn add_missing(
        &mut self,
        object: impl Into<String>,
        what: impl Into<String>,
        consequence: impl Into<String>,
    ) {
        let texts = (object.into(), what.into(), consequence.into());
        self.push(Severity::Damage, Nature::Missing, texts);
    }

    fn push(&mut self, severity: Severity, nature: Nature, texts: (String, String, String)) {
        let (object, what, consequence) = texts;
        self.findings.push(Finding { severity, nature, object, what, consequence });
    }

    /// The gravest nature of all damage: what is wrong, then what is missing, then what this
    /// version cannot judge.
    #[must_use]
    pub fn gravest(&self) -> Option<Nature> {
        let bad = self.findings.iter().filter(|found| found.severity == Severity::Damage);
        bad.map(|found| found.nature).min_by_key(|nature| nature.rank())
    }

    pub(super) fn finish(mut self) -> Self {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        self.sound = self.findings.iter().all(|finding| finding.severity < Severity::Damage);
        self
    }
}
