//! Checking WAL: every segment that a backup can reach is there, says of itself what its name says,
//! and its records go on into the next one.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, stream};
use pgrecall_pgformat::end_of_wal::EndOfWal;
use pgrecall_pgformat::segment_chain::{Link, SegmentChain};
use pgrecall_pgformat::segment_digest::SegmentWalk;
use pgrecall_pgformat::segment_summary::SegmentEnd;
use pgrecall_pgformat::{Lsn, SegmentName, SegmentNumber, TimelineId};
use pgrecall_repo::damaged_wal::{Say, WalNotes};
use pgrecall_repo::format::document::DamagedWal;
use pgrecall_repo::object::Proof;
use pgrecall_repo::sealed_store::Stored;
use pgrecall_repo::{RepoError, archive};

use super::Depth;
use super::finding::{Severity, VerifyReport};
use crate::archive::trailer::{self, StoredFile};
use crate::cancel::Cancel;
use crate::catalog::Known;
use crate::catalog::reach::{Reach, newest};
use crate::catalog::wal::{StoredWal, Way};
use crate::catalog::wal_damage::is_unread;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::restore::repo_wal::whole_summary;
use crate::restore::scan::JOINED_BYTES_MAX;
use crate::unreadable::{Cause, Unreadable};

/// Trailers read at once.
const TRAILERS_AT_ONCE: usize = 16;

/// Segments whose payload is read at once: each is in memory as a whole.
const PAYLOADS_AT_ONCE: usize = 2;

/// Entries tried while other hosts win them.
const TRIES_MAX: u32 = 16;

/// Segments looked at before their predecessors' verdicts are known.
const WINDOW: usize = 64;

/// What is known of a segment once it was looked at.
#[derive(Debug, Clone)]
struct Checked {
    /// What keeps recovery from reading it to its end, and from where on.
    broken: Option<Broken>,
    newest: Option<jiff::Timestamp>,
}

#[derive(Debug, Clone)]
struct Broken {
    at: Lsn,
    why: Unreadable,
    of: Whose,
}

/// What is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The segment itself.
    Segment,
    /// That it follows the one before it on a way.
    Link,
    /// The disk below the store, which may read it again; or nobody can say.
    Unsure,
}

/// Whether a verification has read all WAL that backups need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum All {
    /// It has.
    Read,
    /// It has looked at a part, or not read it.
    Not,
}

/// Whether it was looked at if a segment goes on where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Yes,
    No,
}

/// What is proven of a segment that nothing was found against.
#[derive(Debug, Clone, Copy)]
struct Proven {
    /// All of it was read.
    whole: bool,
    /// And it goes on where the one before it ends, or nothing is before it.
    follows: bool,
}

impl Whose {
    /// By the error of a read.
    fn of(error: &EngineError) -> Self {
        match error.is_proven_damage() {
            true => Self::Segment,
            false => Self::Unsure,
        }
    }
}

/// Checks the WAL of one lineage.
#[derive(Debug)]
pub(super) struct WalCheck<'a> {
    cluster: &'a ClusterStore,
    wal: &'a StoredWal,
    depth: Depth,
    cancel: &'a Cancel,
    /// Segments looked at, with the one before them on the way (a segment can be entered from two
    /// timelines).
    checked: HashMap<(SegmentName, Option<SegmentName>), Checked>,
    /// Where WAL that another version of the program wrote begins.
    other_version: BTreeSet<Lsn>,
    /// Segments that were told of, and where they end.
    told: Vec<(String, TimelineId, Lsn)>,
    /// What is to be noted as damaged.
    damaged: BTreeSet<DamagedWal>,
    /// Whether something did not read that may be sound, or not.
    pub(super) unsure: bool,
    /// Whether only a restore key opens some of it, which is not here.
    pub(super) locked: bool,
    /// What was read as a whole and is sound, in the words of notes.
    sound: BTreeSet<(String, Option<String>)>,
}

impl<'a> WalCheck<'a> {
    pub(super) fn new(
        cluster: &'a ClusterStore,
        wal: &'a StoredWal,
        depth: Depth,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            cluster,
            wal,
            depth,
            cancel,
            checked: HashMap::new(),
            other_version: BTreeSet::new(),
            told: Vec::new(),
            damaged: BTreeSet::new(),
            unsure: false,
            locked: false,
            sound: BTreeSet::new(),
        }
    }

    /// What is stored.
    pub(super) const fn stored(&self) -> &StoredWal {
        self.wal
    }

    /// Whether something does not read that says which copies hold, or where timelines part.
    pub(super) fn knows_not_what_holds(&self) -> bool {
        let wal = self.wal;
        let unread = !wal.holders.unreadable.is_empty() || !wal.bad_histories.is_empty();
        unread || !wal.without_history().is_empty()
    }

    /// Whether recovery ends at `end` because this version cannot read what comes.
    pub(super) fn ends_by_version(&self, start: Lsn, end: Lsn) -> bool {
        self.other_version.iter().any(|at| (*at).max(start) == end)
    }

    /// Takes back what was told of segments that have expired since they were listed.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn leave_out_expired(
        &self,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        if self.told.is_empty() {
            return Ok(());
        }
        let now = StoredWal::read(self.cluster).await?;
        for (object, timeline, end) in &self.told {
            let expired = |wal: &StoredWal| wal.floors.cover(*timeline, *end);
            if expired(&now) && !expired(self.wal) {
                report.findings.retain(|finding| finding.object != *object);
            }
        }
        Ok(())
    }

    /// Writes down what is damaged: what was found, and what was noted before, but for what this
    /// has read and found sound, or is gone. Where somebody else has written since this began,
    /// nothing is left out: it may have rotted after it was read here. Where the notes did not read
    /// then, and nobody has written since, this says all if it has read all.
    ///
    /// # Errors
    /// When the notes do not read, the store fails, or does not confirm it.
    pub(super) async fn write_down(&self, found: String, all: All) -> Result<(), EngineError> {
        let (sealed, at) = (&self.cluster.sealed, &self.cluster.at);
        let known = &self.wal.damage;
        let is_over = |noted: &&DamagedWal| {
            let noted_of = (noted.object.clone(), noted.after.clone());
            self.sound.contains(&noted_of) || known.over.contains(*noted)
        };
        for _ in 0..TRIES_MAX {
            let (now, lost) = match WalNotes::read(sealed, at).await.map_err(EngineError::from) {
                Ok(now) => (now, false),
                Err(error) if all == All::Read && known.is_lost() && is_unread(&error) => {
                    (WalNotes::unread(sealed, at).await?, true)
                }
                Err(error) => return Err(error),
            };
            let unchanged = now.is(&known.notes);
            if lost && !unchanged {
                return Err(EngineError::refused(
                    ErrorKind::Corrupt,
                    "a note has rotted meanwhile",
                ));
            }
            let before = now.damaged.iter().filter(|noted| !(unchanged && is_over(noted)));
            let damaged: BTreeSet<DamagedWal> = before.chain(&self.damaged).cloned().collect();
            // What was found again is said again, for those that began before.
            if damaged == now.damaged && self.damaged.is_empty() && !lost {
                return Ok(());
            }
            let say = Say { damaged, found: found.clone() };
            if now.put_next(sealed, at, say).await? == Stored::Mine {
                return Ok(());
            }
        }
        let message = "other hosts keep writing down what is damaged";
        Err(EngineError::refused(ErrorKind::Conflict, message))
    }

    /// How far recovery from a backup can go, along each timeline.
    pub(super) async fn reach_of(
        &mut self,
        backup: &Known,
        report: &mut VerifyReport,
    ) -> Result<Vec<Reach>, EngineError> {
        let details = &backup.details;
        let mut found = Vec::new();
        for way in self.wal.ways_from(details.start, details.wal_segment_size) {
            let last = way.last_stored(self.wal);
            let own = last.is_some_and(|last| way.name_of(last).timeline == way.timeline);
            if own || way.timeline == details.start.timeline {
                found.push(self.walk(&way, last, details.start.lsn, report).await?);
            }
        }
        Ok(found)
    }

    async fn walk(
        &mut self,
        way: &Way,
        last: Option<SegmentNumber>,
        start: Lsn,
        report: &mut VerifyReport,
    ) -> Result<Reach, EngineError> {
        let mut reach = Reach {
            timeline: way.timeline.0,
            until_lsn: start,
            until_time: None,
            next_segment: way.name_of(way.first).file_name(way.size),
        };
        let Some(last) = last else { return Ok(reach) };
        self.look(way, last, report).await?;
        let mut time = None;
        let mut number = way.first;
        while number <= last {
            let (name, before) = way.step(number);
            let Some(checked) = self.checked.get(&(name, before)) else { break };
            let start_of_it = number.start(way.size);
            // What a segment speaks of that recovery does not get into is no moment to reach.
            if checked.broken.as_ref().is_none_or(|broken| broken.at > start_of_it) {
                time = checked.newest.max(time);
            }
            reach.until_time = time.map(|time| time.to_string());
            if let Some(broken) = &checked.broken {
                reach.until_lsn = broken.at.max(start);
                reach.next_segment = name.file_name(way.size);
                return Ok(reach);
            }
            reach.until_lsn = number.end(way.size).max(start);
            number = number.next();
            reach.next_segment = way.name_of(number).file_name(way.size);
        }
        Ok(reach)
    }

    /// Looks at all segments of a way that were not looked at before.
    async fn look(
        &mut self,
        way: &Way,
        last: SegmentNumber,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        let mut before: Option<(SegmentName, SegmentChain)> = None;
        let mut number = way.first;
        while number <= last {
            self.cancel.check()?;
            let mut window = Vec::new();
            while number <= last && window.len() < WINDOW {
                let (name, previous) = way.step(number);
                // The one before a new one is read again for the record that goes on.
                let next_is_new =
                    number < last && !self.checked.contains_key(&way.step(number.next()));
                if !self.checked.contains_key(&(name, previous)) || next_is_new {
                    window.push((name, previous));
                }
                number = number.next();
            }
            let at_once = match self.depth {
                Depth::Structure => TRAILERS_AT_ONCE,
                Depth::ReadData => PAYLOADS_AT_ONCE,
            };
            let this: &Self = self;
            let read: Vec<_> = stream::iter(window)
                .map(|(name, previous)| async move {
                    let payload = !this.checked.contains_key(&(name, previous));
                    (name, previous, this.read(way, name, payload).await)
                })
                .buffered(at_once)
                .collect()
                .await;
            for (name, previous, segment) in read {
                let (stored, read_bytes, broken) = segment?;
                report.checked.read_bytes += read_bytes;
                let summary = stored.and_then(|stored| stored.trailer.summary);
                let (mut chain, goes_on) = match before.take() {
                    Some((at, chain)) if Some(at) == previous => (chain, true),
                    _ => (SegmentChain::new(way.size), previous.is_none()),
                };
                let link = summary.as_ref().map(|summary| chain.enter(summary));
                if !self.checked.contains_key(&(name, previous)) {
                    let (broken, judged) = match broken {
                        Some(broken) => (Some(broken), Judged::No),
                        None => self.judge_link(way, link).await?,
                    };
                    let whole = read_bytes > 0;
                    let follows = whole && goes_on && judged == Judged::Yes;
                    let proven = Proven { whole, follows };
                    let broken = self.settle(way, (name, previous), broken, proven)?;
                    self.tell(way, name, &broken, report)?;
                    let other = broken.as_ref().filter(|b| b.why.cause == Cause::OtherVersion);
                    self.other_version.extend(other.map(|broken| broken.at));
                    let newest = summary.as_ref().and_then(newest);
                    self.checked.insert((name, previous), Checked { broken, newest });
                    report.checked.wal_segments += 1;
                }
                before = summary.map(|_| (name, chain));
            }
        }
        Ok(())
    }

    /// Whether a segment goes on where the one before ends. A record too long for the trailers is
    /// put together from the segments when all is read.
    async fn judge_link(
        &self,
        way: &Way,
        link: Option<Result<Link, EndOfWal>>,
    ) -> Result<(Option<Broken>, Judged), EngineError> {
        let broken = |end: EndOfWal| Broken {
            at: end.lsn,
            why: Unreadable::damaged(end.reason.to_string()),
            of: Whose::Link,
        };
        let cut = match link {
            Some(Err(end)) => return Ok((Some(broken(end)), Judged::Yes)),
            Some(Ok(Link::Cut(cut))) => cut,
            Some(Ok(_)) => return Ok((None, Judged::Yes)),
            None => return Ok((None, Judged::No)),
        };
        if self.depth == Depth::Structure || cut.header.total_len > JOINED_BYTES_MAX {
            return Ok((None, Judged::No));
        }
        let mut chain = SegmentChain::new(way.size);
        for name in cut.segments {
            let object = self.wal.object(self.cluster, name, way.size)?;
            let summary = match whole_summary(self.cluster, &object, name, way.size).await {
                Err(EngineError::Repo(RepoError::NoRestoreKey { .. })) => {
                    return Ok((None, Judged::No));
                }
                // Its own finding says so.
                Err(EngineError::Repo(error)) if error.is_damage() => {
                    return Ok((None, Judged::No));
                }
                summary => summary?,
            };
            match summary {
                Ok(summary) => {
                    if let Err(end) = chain.enter(&summary) {
                        return Ok((Some(broken(end)), Judged::Yes));
                    }
                }
                // Its own finding says so.
                Err(_) => return Ok((None, Judged::No)),
            }
        }
        Ok((None, Judged::Yes))
    }

    /// Keeps what is to be noted of a segment. What was not read as a whole is as it was noted
    /// before.
    fn settle(
        &mut self,
        way: &Way,
        (name, before): (SegmentName, Option<SegmentName>),
        broken: Option<Broken>,
        proven: Proven,
    ) -> Result<Option<Broken>, EngineError> {
        let object = self.wal.object(self.cluster, name, way.size)?.to_string();
        let before_file = before.map(|before| before.file_name(way.size));
        if proven.whole && broken.as_ref().is_none_or(|broken| broken.of != Whose::Segment) {
            self.sound.insert((object.clone(), None));
        }
        let Some(broken) = broken else {
            if proven.follows {
                self.sound.insert((object, before_file));
            }
            if proven.whole {
                return Ok(None);
            }
            self.locked |= self.depth == Depth::ReadData;
            let known = self.wal.damage.of_step(name, before, way.size);
            let found = &self.wal.damage.found;
            let why = || Unreadable::damaged(format!("it was found damaged before, by {found}"));
            return Ok(known.map(|at| Broken { at, why: why(), of: Whose::Unsure }));
        };
        let after = match broken.of {
            Whose::Segment => None,
            Whose::Link => before_file,
            Whose::Unsure => {
                self.unsure = true;
                return Ok(Some(broken));
            }
        };
        if broken.why.cause == Cause::Damage {
            let from = broken.at.to_string();
            self.damaged.insert(DamagedWal { object, after, from });
        }
        Ok(Some(broken))
    }

    fn tell(
        &mut self,
        way: &Way,
        name: SegmentName,
        broken: &Option<Broken>,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        let Some(broken) = broken else { return Ok(()) };
        let object = self.wal.object(self.cluster, name, way.size)?;
        // A segment can be entered from several others.
        let known = self.told.iter().any(|(told, ..)| *told == object.as_str());
        if known && broken.of != Whose::Link {
            return Ok(());
        }
        let consequence = format!(
            "recovery along timeline {} from a backup before it cannot go beyond {}: push it again \
             from a server that still has it (pgrecall wal push), or take a new backup now",
            way.timeline.0, broken.at
        );
        let what = ("", &broken.why);
        report.add_unreadable(Severity::Damage, object.as_str(), what, consequence);
        self.told.push((object.to_string(), name.timeline, name.number.end(way.size)));
        Ok(())
    }

    /// Reads the trailer of a segment, and with it all of the segment where that is asked for.
    async fn read(
        &self,
        way: &Way,
        name: SegmentName,
        payload: bool,
    ) -> Result<(Option<StoredFile>, u64, Option<Broken>), EngineError> {
        let start = name.number.start(way.size);
        let broken = |why: Unreadable, of| Some(Broken { at: start, why, of });
        let object = self.wal.object(self.cluster, name, way.size)?;
        let stored = match trailer::read(&self.cluster.sealed, &object).await {
            Ok(stored) => stored,
            // A settlement may name what is not there.
            Err(error) if error.is_unreadable() || error.kind() == ErrorKind::NotFound => {
                let of = match error.kind() {
                    ErrorKind::NotFound => Whose::Segment,
                    _ => Whose::of(&error),
                };
                return Ok((None, 0, broken(Unreadable::from(&error), of)));
            }
            Err(error) => return Err(error),
        };
        let mut found = self.judge(way, name, &stored);
        let mut read_bytes = 0;
        if payload && self.depth == Depth::ReadData {
            match self.read_payload(way, name, &stored).await? {
                Ok(bytes) => read_bytes = bytes,
                Err((why, of)) => found = broken(why, of),
            }
        }
        Ok((Some(stored), read_bytes, found))
    }

    /// Whether a segment is what its name says, and its records reach its end.
    fn judge(&self, way: &Way, name: SegmentName, stored: &StoredFile) -> Option<Broken> {
        let start = name.number.start(way.size);
        let broken_at = |at: Lsn, reason: String| {
            Some(Broken { at, why: Unreadable::damaged(reason), of: Whose::Segment })
        };
        let broken = |reason: String| broken_at(start, reason);
        let trailer = &stored.trailer;
        if trailer.plain_bytes != u64::from(way.size.bytes()) {
            return broken(format!("it holds {} bytes, not a segment", trailer.plain_bytes));
        }
        let Some(summary) = &trailer.summary else {
            return broken("its trailer says nothing of a segment".into());
        };
        let Some(identity) = summary.identity else {
            return broken("its first page is no page of WAL".into());
        };
        let expected = self.cluster.facts.system_identifier;
        if identity.system_identifier != expected {
            let found = identity.system_identifier;
            return broken(format!("its WAL is of the system {found}, not of {expected}"));
        }
        if summary.name != name {
            return broken(format!("it holds the segment {}", summary.name.file_name(way.size)));
        }
        match &summary.end {
            SegmentEnd::Full | SegmentEnd::Switch { .. } => None,
            SegmentEnd::Early(end) => {
                broken_at(end.lsn, format!("its records end at {}: {}", end.lsn, end.reason))
            }
            SegmentEnd::Cut { lsn } => broken_at(*lsn, format!("its bytes end at {lsn}")),
        }
    }

    /// Opens all of a segment, and walks its records again.
    async fn read_payload(
        &self,
        way: &Way,
        name: SegmentName,
        stored: &StoredFile,
    ) -> Result<Result<u64, (Unreadable, Whose)>, EngineError> {
        let object = self.wal.object(self.cluster, name, way.size)?;
        let limit = u64::from(way.size.bytes());
        let mut walk = SegmentWalk::new(name, way.size);
        let (sealed, mut bytes) = (&self.cluster.sealed, 0);
        let fetched = archive::fetch(sealed, &object, limit, Proof::Hash, |part| {
            bytes += u64::try_from(part.len()).unwrap_or_default();
            walk.feed(part);
        });
        match fetched.await {
            Ok(_) => {}
            Err(error) if error.is_damage() => {
                let error = EngineError::from(error);
                return Ok(Err((Unreadable::from(&error), Whose::of(&error))));
            }
            // Told once, for all of it.
            Err(RepoError::NoRestoreKey { .. }) => return Ok(Ok(0)),
            Err(error) => return Err(error.into()),
        }
        if stored.trailer.summary.as_ref().is_some_and(|summary| *summary == walk.finish()) {
            return Ok(Ok(bytes));
        }
        let why = Unreadable::damaged("its trailer tells of other records than it holds");
        Ok(Err((why, Whose::Segment)))
    }
}
