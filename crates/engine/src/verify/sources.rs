//! Where rows come from: the index, and what packs say of themselves where it says nothing, as it
//! is with a restore.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use pgrecall_repo::RepoError;
use pgrecall_repo::damaged_chunks::ChunkNotes;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::index::IndexPack;
use pgrecall_repo::id::PackId;
use pgrecall_repo::index::{self, IndexObject};
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::Listed;

use super::finding::{Severity, VerifyReport};
use super::rows::{From, Packs, Rows, is_unreadable, location, short};
use crate::cancel::Cancel;
use crate::error::EngineError;
use crate::unreadable::{Cause, Unreadable};

/// Times that the index objects are listed, since those that vanish were merged into others.
const LISTINGS_MAX: u32 = 5;

/// Directories of packs read at once: small reads.
const DIRECTORIES_AT_ONCE: usize = 16;

/// From so many packs on, asking each of them takes long enough to be told.
const PACKS_TOLD_FROM: usize = 1000;

impl Rows {
    /// Reads notes of damage, lists packs, reads the index, and asks packs of which that says
    /// nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read(
        sealed: &SealedStore,
        domain: &Name,
        (report, cancel): (&mut VerifyReport, &Cancel),
    ) -> Result<Self, EngineError> {
        let notes = ChunkNotes::read(sealed, domain).await?;
        let mut rows = Self::without(notes.chunks);
        rows.unread_notes = notes.unread;
        // Packs of listed manifests were there before these; those that come later are of backups
        // that are not looked at.
        let listed = index::list_packs_by_kind(sealed, domain).await?;
        rows.read_index(sealed, domain, &listed, report).await?;
        let is_unnamed =
            |id: &PackId| !rows.numbers.contains_key(id) && !rows.gone_packs.contains_key(id);
        let unnamed = listed.iter().filter(|(id, _)| is_unnamed(id));
        let unnamed: BTreeSet<_> = unnamed.map(|(id, (kind, _))| (*kind, *id)).collect();
        rows.ask(sealed, domain, (unnamed, cancel)).await?;
        rows.listed = listed;
        Ok(rows)
    }

    async fn read_index(
        &mut self,
        sealed: &SealedStore,
        domain: &Name,
        listed: &Packs,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        let mut listings = 1;
        let mut left = sealed.list(&names::indexes(domain)).await?;
        while let Some(Listed { key: name, .. }) = left.pop() {
            match index::read_object(sealed, &name).await {
                Ok(object) => self.add_object(listed, &object),
                Err(error) if is_unreadable(&error) => {
                    let why = Unreadable::of(error.kind(), &error);
                    self.index_of_other_version |= why.cause == Cause::OtherVersion;
                    self.index_in_doubt |= !matches!(error, RepoError::Corrupt { .. });
                    report.add_unreadable(
                        Severity::Warning,
                        name.as_str(),
                        ("the index object does not read: ", &why),
                        "what only it names is looked for in the packs themselves: `pgrecall \
                         repair` makes the index anew",
                    );
                    self.unreadable.push(name);
                    continue;
                }
                Err(error) if error.is_not_found() && listings < LISTINGS_MAX => {
                    listings += 1;
                    // What was merged comes again.
                    self.sort();
                    left = sealed.list(&names::indexes(domain)).await?;
                    left.retain(|object| {
                        !self.objects.contains(&object.key)
                            && !self.unreadable.contains(&object.key)
                    });
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.objects.push(name);
        }
        Ok(())
    }

    fn add_object(&mut self, listed: &Packs, object: &IndexObject) {
        for entry in &object.entries {
            let Some(pack) = object.pack(entry) else { continue };
            if listed.get(&pack.id).is_some_and(|(_, size)| *size == pack.size) {
                let chunk = (entry.chunk, entry.plain_len);
                self.add(pack, chunk, From::Index, || location(pack, entry));
            } else {
                let gone = self.gone_packs.entry(pack.id);
                gone.or_insert_with(|| (IndexPack::clone(pack), 0)).1 += 1;
                self.gone.insert(short(&entry.chunk), pack.id);
            }
        }
    }

    /// Whether packs are gone that were there before the index was read: a collection has moved
    /// what is needed of them.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn have_moved(
        &self,
        sealed: &SealedStore,
        domain: &Name,
    ) -> Result<bool, EngineError> {
        let listed = index::list_packs_by_kind(sealed, domain).await?;
        Ok(self.listed.keys().any(|pack| !listed.contains_key(pack)))
    }

    /// Whether more may be found: a chunk is missing that no lost pack held, and there are packs of
    /// which the index may know less than they do.
    pub(super) fn may_find_more(&self) -> bool {
        self.misses && !self.asked_all
    }

    /// Asks all packs of which the index says something: of several objects that name a pack one
    /// may be lost.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn ask_all(
        &mut self,
        sealed: &SealedStore,
        domain: &Name,
        cancel: &Cancel,
    ) -> Result<(), EngineError> {
        self.asked_all = true;
        let asked: BTreeSet<_> = self.asked.iter().copied().collect();
        let all = self.packs.iter().map(|pack| (pack.kind, pack.id));
        let others = all.filter(|pack| !asked.contains(pack)).collect();
        self.ask(sealed, domain, (others, cancel)).await
    }

    /// Takes in what packs say of themselves.
    async fn ask(
        &mut self,
        sealed: &SealedStore,
        domain: &Name,
        (packs, cancel): (BTreeSet<(Kind, PackId)>, &Cancel),
    ) -> Result<(), EngineError> {
        if packs.len() >= PACKS_TOLD_FROM {
            let packs = packs.len();
            tracing::warn!(packs, "the index does not name all chunks: packs are asked");
        }
        let mut directories = stream::iter(packs)
            .map(|(kind, id)| async move {
                (kind, id, index::read_directory(sealed, domain, kind, id).await)
            })
            .buffered(DIRECTORIES_AT_ONCE);
        while let Some((kind, id, directory)) = directories.next().await {
            cancel.check()?;
            match directory {
                Ok(directory) => {
                    let pack = Arc::new(directory.pack.clone());
                    for (chunk, location) in directory.locations() {
                        let chunk = (chunk, location.plain_len);
                        self.add(&pack, chunk, From::Pack, || location);
                    }
                    self.asked.push((kind, id));
                }
                // A collection was faster.
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_damage() => {
                    let cause = Cause::of(error.kind());
                    self.directory_of_other_version |= cause == Cause::OtherVersion;
                    let pack = names::pack(domain, kind, id);
                    tracing::warn!(%pack, %error, "the directory of a pack cannot be read");
                    if matches!(error, RepoError::Corrupt { .. }) {
                        self.directories_damaged += 1;
                    } else {
                        self.directories_in_doubt
                            .insert(pack, Unreadable::of(error.kind(), &error));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.sort();
        Ok(())
    }

    /// Tells of packs that are not there and of which something is wanted, and of those that are
    /// there with another size. Of all others a collection has taken what was needed elsewhere.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn report_gone(
        &self,
        sealed: &SealedStore,
        domain: &Name,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        if self.gone_packs.is_empty() {
            return Ok(());
        }
        // Some are newer than the first listing.
        let listed = index::list_packs(sealed, domain).await?;
        for (id, (pack, chunks)) in &self.gone_packs {
            let (severity, what) = match listed.get(id) {
                Some(size) if *size == pack.size => continue,
                Some(size) => {
                    let what = format!("the pack has {size} bytes, the index says {}", pack.size);
                    (Severity::Note, what)
                }
                None if self.missed.contains(id) => {
                    (Severity::Damage, "the pack is not there".to_owned())
                }
                None => continue,
            };
            let name = names::pack(domain, pack.kind, *id);
            let consequence = format!(
                "its {chunks} chunks cannot be had from it; backups that need one of them are \
                 listed apart"
            );
            report.add(severity, name.as_str(), what, consequence);
        }
        Ok(())
    }
}
