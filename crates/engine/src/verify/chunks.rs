//! What backups need of packs: looked for, and read where that is asked; once more where a
//! collection has moved it meanwhile (R1).

use std::collections::BTreeSet;

use pgrecall_repo::damaged_chunks::{self, UnreadNote};
use pgrecall_repo::id::{ChunkId, DamageId, PackId};
use pgrecall_repo::names::Name;
use pgrecall_repo::sealed_store::SealedStore;

use super::content::{Bad, Reading};
use super::files::{Walked, Walker};
use super::finding::VerifyReport;
use super::notes::{Standing, not_noted, report_directories, report_notes};
use super::rows::{Rows, Taken};
use super::{Notes, VerifyOptions, Which, directories};
use crate::cancel::Cancel;
use crate::catalog::Known;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// Times that it is looked: each takes a collection that ends meanwhile.
const LOOKS_MAX: u32 = 5;

/// What was found: where chunks are, and what is wrong with each backup.
pub(super) struct Looked {
    pub(super) rows: Rows,
    pub(super) walked: Vec<Walked>,
}

/// Looks for what backups need. With options it is all read, too, and what is bad is noted in the
/// repository.
///
/// # Errors
/// When the store fails, or never stands still.
pub(super) async fn look(
    cluster: &ClusterStore,
    backups: &[Known],
    report: &mut VerifyReport,
    (read, cancel): (Option<&VerifyOptions>, &Cancel),
) -> Result<Looked, EngineError> {
    let look = Look { cluster, backups, read, cancel };
    let looked = look.run(report).await?;
    if read.is_some() {
        let (sealed, domain) = look.at();
        directories::read_all(sealed, domain, &looked.rows, report, cancel).await?;
    }
    Ok(looked)
}

struct Look<'a> {
    cluster: &'a ClusterStore,
    backups: &'a [Known],
    /// How all is read, if it is.
    read: Option<&'a VerifyOptions>,
    cancel: &'a Cancel,
}

impl Look<'_> {
    fn at(&self) -> (&SealedStore, &Name) {
        (&self.cluster.sealed, self.cluster.domain())
    }

    async fn run(&self, report: &mut VerifyReport) -> Result<Looked, EngineError> {
        let (sealed, domain) = self.at();
        let mut bad = Bad::default();
        let (mut before, mut looks) = (None::<Taken>, 0);
        let mut first = None::<BTreeSet<DamageId>>;
        loop {
            looks += 1;
            let mut found = VerifyReport::default();
            let mut rows = Rows::read(sealed, domain, (&mut found, self.cancel)).await?;
            let unread = rows.unread_notes.iter().map(|note| note.id);
            let first = first.get_or_insert_with(|| unread.collect());
            if self.may_replace(&rows) {
                // What a note said that is lost may have been said of any copy.
                rows.ask_all(sealed, domain, self.cancel).await?;
                rows.every_copy = true;
            }
            let mut walked = self.walk_all(&mut rows).await?;
            before.take().iter().for_each(|before| rows.take_over(before));
            bad.mark(&mut rows);
            let gone = self.read_all(looks, &mut rows, &mut bad, report).await?;
            if !bad.is_empty() {
                // Which files and backups are hurt is known only now.
                walked = self.walk_all(&mut rows).await?;
            }
            let unread = self.read.is_some() && rows.any_unread();
            let lacks = !walked.iter().all(Walked::lacks_nothing);
            let moved = (unread || lacks) && rows.have_moved(sealed, domain).await?;
            if (unread || moved) && looks < LOOKS_MAX {
                tracing::info!("packs or the index have changed meanwhile: it is looked again");
                before = Some(rows.into_taken());
                continue;
            }
            if unread && !moved {
                // Listed as they should be, time after time, and not to be had.
                bad.add_gone(gone);
                bad.mark(&mut rows);
                walked = self.walk_all(&mut rows).await?;
            }
            let standing = unread && rows.any_unread();
            if moved || standing {
                // It was not all read: what was found bad is noted, and stands for nothing else.
                self.tell(&bad, &rows, &BTreeSet::new(), report).await;
                return Err(never_still());
            }
            self.tell(&bad, &rows, first, report).await;
            (report.checked.chunks, report.checked.packs) = rows.referred();
            rows.report_gone(sealed, domain, report).await?;
            rows.report_unindexed(domain, report);
            report.findings.extend(found.findings);
            return Ok(Looked { rows, walked });
        }
    }

    /// Reads what has not been read, marks what is bad, and gives copies whose packs are gone.
    async fn read_all(
        &self,
        looks: u32,
        rows: &mut Rows,
        bad: &mut Bad,
        report: &mut VerifyReport,
    ) -> Result<Vec<(ChunkId, PackId)>, EngineError> {
        let Some(options) = self.read else { return Ok(Vec::new()) };
        if looks == 1 {
            options.progress.phase("reading chunks", None);
        }
        let (sealed, domain) = self.at();
        let (progress, cancel) = (&options.progress, self.cancel);
        let gone = Reading { sealed, domain, progress, cancel }.all(rows, bad, report).await?;
        bad.mark(rows);
        Ok(gone)
    }

    /// Whether this can put another note in the place of those that are lost.
    fn may_replace(&self, rows: &Rows) -> bool {
        let all = |options: &VerifyOptions| {
            options.which == Which::All && options.notes == Notes::Written
        };
        self.read.is_some_and(all) && rows.unread_notes.iter().any(UnreadNote::is_lost)
    }

    /// Tells what is bad, and notes what is damaged; where every copy was read, instead of notes
    /// that are lost.
    async fn tell(
        &self,
        bad: &Bad,
        rows: &Rows,
        first: &BTreeSet<DamageId>,
        report: &mut VerifyReport,
    ) {
        let damaged = bad.tell(report);
        let mut standing = match rows.every_copy {
            true => {
                report_directories(&rows.directories_in_doubt, report);
                self.why_not(bad, rows)
            }
            false => Some(Standing::Unread),
        };
        // What was read before a note was lost says nothing of it.
        let lost = rows.unread_notes.iter().filter(|note| note.is_lost());
        let mut ids: Vec<_> = lost.map(|note| note.id).filter(|id| first.contains(id)).collect();
        if standing.is_some() {
            ids.clear();
        }
        if let Some(options) = self.read.filter(|options| options.notes == Notes::Written) {
            let found = format!("verify on {} at {}", options.host, options.clock.now_text());
            let (sealed, domain) = self.at();
            let noted = damaged_chunks::note(sealed, domain, damaged, ids.clone(), found).await;
            if let Err(error) = noted {
                not_noted(&error, report);
                ids.clear();
                standing = standing.or(Some(Standing::Unwritten));
            }
        }
        report_notes(&rows.unread_notes, &ids, standing.unwrap_or(Standing::Meanwhile), report);
    }

    /// Why this cannot stand for what is lost, though it has read every copy that it could.
    fn why_not(&self, bad: &Bad, rows: &Rows) -> Option<Standing> {
        let keys = self.cluster.sealed.keys();
        if rows.packs.iter().any(|pack| keys.locked(&pack.sealing).is_some()) {
            return Some(Standing::Locked);
        }
        let directories = rows.directories_in_doubt.values();
        if bad.any_of_other_version() || directories.clone().any(|why| why.is_of_other_version()) {
            return Some(Standing::OtherVersion);
        }
        // What a pack holds that does not say so itself may be named there.
        let unnamed = rows.index_in_doubt && rows.directories_damaged > 0;
        let in_doubt = rows.any_unread() || bad.any_unsure() || directories.len() > 0 || unnamed;
        in_doubt.then_some(Standing::InDoubt)
    }

    async fn walk_all(&self, rows: &mut Rows) -> Result<Vec<Walked>, EngineError> {
        let (sealed, domain) = self.at();
        let walked = self.walk_each(rows).await?;
        if !rows.may_find_more() {
            return Ok(walked);
        }
        // As a restore does before it calls a chunk lost.
        rows.ask_all(sealed, domain, self.cancel).await?;
        self.walk_each(rows).await
    }

    async fn walk_each(&self, rows: &mut Rows) -> Result<Vec<Walked>, EngineError> {
        // What was missed before may have been found in packs that were asked since.
        rows.missed.clear();
        let (sealed, domain) = self.at();
        let mut walker = Walker::new(sealed, domain, rows);
        let mut walked = Vec::with_capacity(self.backups.len());
        for backup in self.backups {
            self.cancel.check()?;
            walked.push(walker.walk(backup).await?);
        }
        Ok(walked)
    }
}

/// Something changes faster than it can be read.
fn never_still() -> EngineError {
    let message = "packs and the index changed again and again while chunks were read, and not all \
                   of them were";
    EngineError::refused(ErrorKind::Unavailable, message)
        .hint("Run it again when no `pgrecall gc` runs.")
}
