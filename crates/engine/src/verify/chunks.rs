//! What backups need of packs: looked for, and read where that is asked; once more where a
//! collection has moved it meanwhile (R1).

use pgrecall_repo::backup::report_damage;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::DamagedChunk;
use pgrecall_repo::names::Name;
use pgrecall_repo::sealed_store::SealedStore;

use super::content::{Bad, Reading};
use super::files::{Walked, Walker};
use super::finding::VerifyReport;
use super::rows::{Rows, Taken};
use super::{VerifyOptions, directories, not_noted};
use crate::cancel::Cancel;
use crate::catalog::Known;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::meanwhile::{has_newer_keys, newer_keys};
use crate::progress::Progress;

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
/// When the store fails.
pub(super) async fn look(
    cluster: &ClusterStore,
    backups: &[Known],
    report: &mut VerifyReport,
    (read, cancel): (Option<&VerifyOptions>, &Cancel),
) -> Result<Looked, EngineError> {
    let progress = read.map(|options| &options.progress);
    let look = Look { cluster, backups, progress, cancel };
    let (looked, damaged) = look.run(report).await?;
    let Some(options) = read else { return Ok(looked) };
    let (sealed, domain) = look.at();
    directories::read_all(sealed, domain, &looked.rows, report, cancel).await?;
    if !damaged.is_empty() {
        let note = format!("verify on {} at {}", options.host, options.clock.now_text());
        let noted = report_damage(sealed, &cluster.at, damaged, note).await;
        noted.unwrap_or_else(|error| not_noted(&error, report));
    }
    Ok(looked)
}

struct Look<'a> {
    cluster: &'a ClusterStore,
    backups: &'a [Known],
    /// Who is told while all is read, if it is.
    progress: Option<&'a Progress>,
    cancel: &'a Cancel,
}

impl Look<'_> {
    fn at(&self) -> (&SealedStore, &Name) {
        (&self.cluster.sealed, self.cluster.domain())
    }

    async fn run(
        &self,
        report: &mut VerifyReport,
    ) -> Result<(Looked, Vec<DamagedChunk>), EngineError> {
        let (sealed, domain) = self.at();
        let mut bad = Bad::default();
        let (mut before, mut looks) = (None::<Taken>, 0);
        loop {
            looks += 1;
            let mut found = VerifyReport::default();
            let mut rows = Rows::read(sealed, domain, (&mut found, self.cancel)).await?;
            let walked = self.walk_all(&mut rows).await?;
            before.take().iter().for_each(|before| rows.take_over(before));
            bad.mark(&mut rows);
            if let Some(progress) = self.progress {
                if looks == 1 {
                    progress.phase("reading chunks", None);
                }
                let reading = Reading { sealed, domain, progress, cancel: self.cancel };
                reading.all(&mut rows, &mut bad, report).await?;
            }
            let unread = self.progress.is_some() && rows.any_unread();
            let lacks_nothing = walked.iter().all(Walked::lacks_nothing);
            if !unread
                && (lacks_nothing || looks == LOOKS_MAX || !rows.have_moved(sealed, domain).await?)
            {
                return self.settle((rows, walked), &bad, found, report).await;
            }
            if looks == LOOKS_MAX {
                return Err(never_still());
            }
            tracing::info!("a collection has moved chunks meanwhile: they are looked for again");
            before = Some(rows.into_taken());
        }
    }

    /// What holds after the last look.
    async fn settle(
        &self,
        (mut rows, mut walked): (Rows, Vec<Walked>),
        bad: &Bad,
        found: VerifyReport,
        report: &mut VerifyReport,
    ) -> Result<(Looked, Vec<DamagedChunk>), EngineError> {
        let (_, domain) = self.at();
        (report.checked.chunks, report.checked.packs) = rows.referred();
        rows.report_unindexed(domain, report);
        report.findings.extend(found.findings);
        let damaged = bad.tell(report);
        if !bad.is_empty() {
            // Which files and backups are hurt is known only now.
            bad.mark(&mut rows);
            walked = self.walk_all(&mut rows).await?;
        }
        self.leave_out_expired(&mut walked).await?;
        Ok((Looked { rows, walked }, damaged))
    }

    /// The log is read after the last miss (R1): what is named there may go, and is no loss.
    async fn leave_out_expired(&self, walked: &mut [Walked]) -> Result<(), EngineError> {
        if walked.iter().all(Walked::lacks_nothing) {
            return Ok(());
        }
        let (sealed, domain) = self.at();
        if has_newer_keys(sealed, domain).await? {
            return Err(newer_keys(domain));
        }
        let log = match ExpiredLog::read(sealed, domain).await {
            Ok(log) => log,
            // Then nothing is known to have expired.
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for (backup, walked) in self.backups.iter().zip(walked) {
            walked.expired = log.entry().backups.contains(&backup.manifest.backup);
        }
        Ok(())
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
