//! A restore, step by step, in an order in which a half-restored directory can never be started:
//! the old control file goes first, the new one comes last.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use pgrecall_pgformat::tablespace_map::{self, TablespaceLink};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::index::{Index, Purpose};

use super::copy::{CONTROL_BESIDE, Copied, Copier, Reuse, make_folder};
use super::layout::{Layout, Places, Survey, path_of, survey};
use super::lost::{self, LIST, Losses, OnLoss};
use super::old_wal::{OldWal, move_aside};
use super::plan::RestorePlan;
use super::recovery_settings::{ServerSettings, auto_conf, taken_in, without_missing_includes};
use super::repo_wal::RepoWal;
use super::space::{check_space, needs};
use super::target_dir::{
    DirectoryLock, Existing, Found, Marked, Marker, inspect, sync_folder, take_control,
};
use super::threads::Threads;
use super::wal_view::WalView as _;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;
use crate::verify::touched::TouchedFile;

/// What a restore is to do, besides the plan.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The data directory.
    pub dir: PathBuf,
    /// Where all else goes.
    pub places: Places,
    /// Whether what is there may be used.
    pub existing: Existing,
    /// What becomes of what the repository has lost.
    pub on_loss: OnLoss,
    /// The settings of the new server; none with `--files-only`.
    pub server: Option<ServerSettings>,
    /// Threads for hashes, ciphers and writes.
    pub threads: usize,
    /// Memory for what waits.
    pub memory_budget_bytes: u64,
}

/// All that is settled before a byte is written.
#[derive(Debug)]
pub struct Prepared {
    /// Where files go.
    pub layout: Layout,
    /// What the directory holds.
    pub found: Found,
    /// Bytes to be written at most, by the folder they go to.
    pub needs: Vec<(PathBuf, u64)>,
    /// Who will own the files; none when this process cannot choose.
    pub owner: Option<(u32, u32)>,
    /// What a person should know.
    pub notes: Vec<String>,
    index: Index,
    survey: Survey,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The files.
    pub copied: Copied,
    /// The WAL that had been there.
    pub old_wal: Option<OldWal>,
    /// Files that were there and are not in the backup: removed.
    pub removed: u64,
    /// Files in which zeros stand for what the repository has lost; [`LIST`] tells of them too.
    pub lost: Vec<TouchedFile>,
    /// What a person should know, sentences.
    pub notes: Vec<String>,
}

/// Checks places, the directory and the space: writes nothing.
///
/// # Errors
/// Everything that would keep the restore from working, saying what to add.
pub async fn prepare(
    cluster: &ClusterStore,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<Prepared, EngineError> {
    if !options.dir.is_absolute() {
        let message = format!("{} is no absolute path", options.dir.display());
        return Err(EngineError::refused(ErrorKind::Invalid, message));
    }
    let (system, backup) = (cluster.facts.system_identifier, manifest.backup);
    let found = inspect(&options.dir, system, backup, options.existing)?;
    if options.on_loss == OnLoss::Zeros && found.is_over_files() {
        let message =
            "zeros in the place of what is lost are not written over files that are there";
        return Err(EngineError::refused(ErrorKind::Invalid, message)
            .hint("Restore into an empty directory: what is here may be the only copy."));
    }
    let index = Index::open(&cluster.sealed, cluster.domain(), Purpose::Read).await?;
    let survey = survey(cluster, &index, manifest).await?;
    let layout = Layout::settle(&options.dir, &survey, &options.places)?;
    for root in &layout.roots {
        check_root(&layout, &root.link, &root.to, &found)?;
    }
    check_folders(&layout, &survey)?;
    if found == Found::Empty {
        check_outside(&layout)?;
    }
    let needs = needs(&layout, &survey);
    if found == Found::Empty {
        check_space(&needs)?;
    }
    let mut notes = Vec::new();
    let owner = owner(&options.dir, &survey, &mut notes);
    Ok(Prepared { layout, found, needs, owner, notes, index, survey })
}

/// Settles where everything of a backup goes, for a restore into `dir`: reads what the backup says
/// of itself, and nothing on this host.
///
/// # Errors
/// When somebody has to say where something goes, saying what to add.
pub async fn places(
    cluster: &ClusterStore,
    manifest: &Manifest,
    dir: &Path,
    places: &Places,
) -> Result<Layout, EngineError> {
    let index = Index::open(&cluster.sealed, cluster.domain(), Purpose::Read).await?;
    let survey = survey(cluster, &index, manifest).await?;
    Layout::settle(dir, &survey, places)
}

/// A place behind a link must be empty, unless it is the very one that the link of the directory
/// in use leads to already.
fn check_root(layout: &Layout, link: &[u8], to: &Path, found: &Found) -> Result<(), EngineError> {
    let Ok(mut entries) = fs::read_dir(to) else { return Ok(()) };
    if entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")) {
        return Ok(());
    }
    let in_use = *found != Found::Empty;
    let same = |a: &Path, b: &Path| {
        fs::canonicalize(a).ok().zip(fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
    };
    if in_use && same(&layout.dir.join(path_of(link)), to) {
        return Ok(());
    }
    let message =
        format!("{}, the place of {}, is not empty", to.display(), path_of(link).display());
    Err(EngineError::refused(ErrorKind::AlreadyExists, message)
        .hint("Name an empty directory; another server's files may be there."))
}

/// A link where the backup has a folder: files would go to another place than anybody thinks.
fn check_folders(layout: &Layout, survey: &Survey) -> Result<(), EngineError> {
    for folder in &survey.folders {
        let place = layout.place(folder);
        if fs::symlink_metadata(&place).is_ok_and(|meta| !meta.is_dir()) {
            // The links of roots are made anew.
            if layout.roots.iter().any(|root| root.link == *folder) || folder == b"pg_wal" {
                continue;
            }
            let message = format!("{} is in the way: a directory goes there", place.display());
            return Err(EngineError::refused(ErrorKind::AlreadyExists, message)
                .hint("Remove it (a link's target stays), or restore into an empty directory."));
        }
    }
    Ok(())
}

/// Files outside of the directory are another server's, as likely as not.
fn check_outside(layout: &Layout) -> Result<(), EngineError> {
    let there: Vec<String> = layout
        .outside
        .values()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let message = format!("there are files at their original places: {}", there.join(", "));
    Err(EngineError::refused(ErrorKind::AlreadyExists, message)
        .hint("They may be a running server's. Move them away to have those of the backup.")
        .hint("Without --locations original they come into the data directory."))
}

/// Who owns the files when root restores: the owner of the directory, else of the folder it is in,
/// else whoever owned the backed-up files; root himself never, since PostgreSQL does not run as
/// root.
fn owner(dir: &Path, survey: &Survey, notes: &mut Vec<String>) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let of = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        (meta.uid() != 0).then_some((meta.uid(), meta.gid()))
    };
    let local = of(dir).or_else(|| dir.parent().and_then(of));
    let owner = local.or(survey.owner.filter(|(uid, _)| *uid != 0));
    if owner.is_none() {
        notes.push(
            "The files will belong to root, and PostgreSQL does not run as root: make them its \
             user's with chown -R."
                .into(),
        );
    }
    owner
}

/// Carries the plan out.
///
/// # Errors
/// When the repository or the disk fails; then the directory cannot be started, and the same
/// command goes on where this one ended.
pub async fn restore(
    cluster: &ClusterStore,
    wal: &RepoWal<'_>,
    plan: &RestorePlan,
    manifest: &Manifest,
    prepared: Prepared,
    options: &RestoreOptions,
    around: Around,
) -> Result<Restored, EngineError> {
    let work = Work { cluster, plan, manifest, prepared: &prepared, options, around: &around };
    let mode = folder_mode(&prepared.survey);
    make_folders(&[&options.dir], prepared.owner, mode)?;
    let marker = Marker {
        system_identifier: cluster.facts.system_identifier,
        backup: manifest.backup,
        began: around.clock.now_text(),
        over_files: prepared.found.is_over_files(),
    };
    let dir = &options.dir;
    let marked = Marked::put(dir, &marker)?;
    take_control(dir)?;
    let stamp = around.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let old_wal = match prepared.found {
        Found::Empty => None,
        Found::Interrupted(_) | Found::SameCluster => move_aside(dir, &stamp, wal.stored())?,
    };
    make_folders(&prepared.layout.folders(), prepared.owner, mode)?;
    make_parents(&prepared.layout, prepared.owner)?;
    // What the disk could not write is told to descriptors that were open before.
    let synced = SyncRoots::open(&prepared.layout)?;
    work.links()?;
    let losses = Losses::default();
    let (copied, kept) = work.copy(marked.lock(), &losses).await?;
    let removed = match kept {
        Some(kept) => work.remove_others(&kept)?,
        None => 0,
    };
    work.seeds(wal).await?;
    let notes = work.server_files()?;
    let lost = work.list_lost(losses)?;
    around.progress.phase("writing to disk", None);
    synced.sync()?;
    around.cancel.check()?;
    let (beside, control) = (dir.join(CONTROL_BESIDE), dir.join("global/pg_control"));
    fs::rename(&beside, &control).map_err(|error| EngineError::file("rename", &beside, error))?;
    sync_folder(&dir.join("global"))?;
    marked.remove()?;
    Ok(Restored { copied, old_wal, removed, lost, notes })
}

/// What a restore runs in.
#[derive(Debug, Clone)]
pub struct Around {
    /// The time, for the marker and for names.
    pub clock: Clock,
    /// Who listens.
    pub progress: Progress,
    /// Who may wish to stop.
    pub cancel: Cancel,
}

/// PostgreSQL takes 0700 and 0750 (`checkDataDir`, miscinit.c).
const fn folder_mode(survey: &Survey) -> u32 {
    if survey.mode & 0o040 == 0 { 0o700 } else { 0o750 }
}

fn make_folders(
    folders: &[&Path],
    owner: Option<(u32, u32)>,
    mode: u32,
) -> Result<(), EngineError> {
    for folder in folders {
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            make_folder(path, mode, owner)?;
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
        }
        make_folder(folder, mode, owner)?;
    }
    Ok(())
}

/// The folders of files that go to where they were; those that are there stay as they are.
fn make_parents(layout: &Layout, owner: Option<(u32, u32)>) -> Result<(), EngineError> {
    for folder in layout.outside.values().filter_map(|path| path.parent()) {
        if !folder.exists() {
            make_folders(&[folder], owner, 0o750)?;
        }
    }
    Ok(())
}

/// The file systems written to.
struct SyncRoots(Vec<(u64, PathBuf, File)>);

impl SyncRoots {
    fn open(layout: &Layout) -> Result<Self, EngineError> {
        let mut roots: Vec<(u64, PathBuf, File)> = Vec::new();
        let outside = layout.outside.values().filter_map(|path| path.parent());
        for folder in layout.folders().into_iter().chain(outside) {
            let fail = |error| EngineError::file("open", folder, error);
            let file = File::open(folder).map_err(fail)?;
            let device = file.metadata().map_err(fail)?.dev();
            if !roots.iter().any(|(known, ..)| *known == device) {
                roots.push((device, folder.to_owned(), file));
            }
        }
        Ok(Self(roots))
    }

    /// Writes all of them out; since Linux 5.8 what could not be written since `open` is an error.
    fn sync(&self) -> Result<(), EngineError> {
        for (_, path, file) in &self.0 {
            rustix::fs::syncfs(file)
                .map_err(|errno| EngineError::file("fsync", path, errno.into()))?;
        }
        Ok(())
    }
}

/// The paths of a backup, by their hashes: a set that stays small for ten million files.
struct Kept {
    state: RandomState,
    hashes: HashSet<u64>,
}

impl Kept {
    fn add(&mut self, path: &[u8]) {
        self.hashes.insert(self.state.hash_one(path));
    }

    fn has(&self, path: &[u8]) -> bool {
        self.hashes.contains(&self.state.hash_one(path))
    }
}

struct Work<'a> {
    cluster: &'a ClusterStore,
    plan: &'a RestorePlan,
    manifest: &'a Manifest,
    prepared: &'a Prepared,
    options: &'a RestoreOptions,
    around: &'a Around,
}

impl Work<'_> {
    fn layout(&self) -> &Layout {
        &self.prepared.layout
    }

    /// Links of tablespaces and of `pg_wal`, and others as they were.
    fn links(&self) -> Result<(), EngineError> {
        let dir = &self.options.dir;
        let roots = self.layout().roots.iter().map(|root| (&root.link, root.to.clone()));
        let others = self.layout().links.iter().map(|(link, target)| (link, path_of(target)));
        for (link, to) in roots.chain(others) {
            let at = dir.join(path_of(link));
            if let Some(parent) = at.parent().filter(|parent| !parent.exists()) {
                make_folder(parent, 0o700, self.prepared.owner)?;
            }
            if fs::read_link(&at).is_ok_and(|there| there == to) {
                continue;
            }
            match fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_dir() => {
                    fs::remove_dir(&at)
                        .map_err(|error| EngineError::file("replace", &at, error))?;
                }
                Ok(_) => {
                    fs::remove_file(&at)
                        .map_err(|error| EngineError::file("replace", &at, error))?;
                }
                Err(_) => {}
            }
            symlink(&to, &at).map_err(|error| EngineError::file("create", &at, error))?;
            if let Some((uid, gid)) = self.prepared.owner {
                std::os::unix::fs::lchown(&at, Some(uid), Some(gid))
                    .map_err(|error| EngineError::file("set the owner of", &at, error))?;
            }
        }
        Ok(())
    }

    async fn copy(
        &self,
        lock: DirectoryLock,
        losses: &Losses,
    ) -> Result<(Copied, Option<Kept>), EngineError> {
        let reuse = match self.prepared.found {
            Found::Empty => Reuse::Nothing,
            Found::Interrupted(_) | Found::SameCluster => Reuse::Pages,
        };
        let threads = Threads::new(self.options.threads, lock, self.around.cancel.clone())?;
        let copier = Copier {
            cluster: self.cluster,
            index: &self.prepared.index,
            layout: self.layout(),
            reuse,
            on_loss: self.options.on_loss,
            losses,
            owner: self.prepared.owner,
            threads,
            memory_budget_bytes: self.options.memory_budget_bytes,
            progress: self.around.progress.clone(),
            cancel: self.around.cancel.clone(),
        };
        self.around.progress.phase("restoring files", Some(self.manifest.bytes));
        let state = RandomState::new();
        let mut kept = Kept { state, hashes: HashSet::new() };
        let copied = copier
            .run(self.manifest, |path| {
                if reuse == Reuse::Pages {
                    kept.add(path);
                }
            })
            .await?;
        Ok((copied, (reuse == Reuse::Pages).then_some(kept)))
    }

    /// Removes what is there and not in the backup.
    fn remove_others(&self, kept: &Kept) -> Result<u64, EngineError> {
        let mut removed = 0;
        let mut folders: Vec<(PathBuf, Vec<u8>)> = vec![(self.options.dir.clone(), Vec::new())];
        for root in &self.layout().roots {
            folders.push((root.to.clone(), root.link.clone()));
        }
        while let Some((folder, below)) = folders.pop() {
            let fail = |error| EngineError::file("list", &folder, error);
            for entry in fs::read_dir(&folder).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let kind = entry.file_type().map_err(fail)?;
                let name = entry.file_name();
                let mut path = below.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name.as_encoded_bytes());
                let own = path.starts_with(b".pgrecall") || path == CONTROL_BESIDE.as_bytes();
                // Behind a link there may be folders of other clusters and versions, which
                // PostgreSQL keeps apart by their names (`TABLESPACE_VERSION_DIRECTORY`).
                let shared = self.layout().roots.iter().any(|root| root.link == below);
                if own || path == b"lost+found" || shared && !kept.has(&path) {
                    continue;
                }
                if kind.is_dir() {
                    if kept.has(&path) {
                        folders.push((entry.path(), path));
                    } else if path != b"pg_wal" {
                        fs::remove_dir_all(entry.path())
                            .map_err(|error| EngineError::file("remove", entry.path(), error))?;
                        removed += 1;
                    }
                    continue;
                }
                let is_root = self.layout().roots.iter().any(|root| root.link == path);
                if !is_root && (!kept.has(&path) || super::layout::is_left_out(&path)) {
                    fs::remove_file(entry.path())
                        .map_err(|error| EngineError::file("remove", entry.path(), error))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Segments that PostgreSQL will ask for by names they are not stored under.
    async fn seeds(&self, wal: &RepoWal<'_>) -> Result<(), EngineError> {
        let pg_wal = self.layout().pg_wal();
        for folder in [pg_wal.clone(), pg_wal.join("archive_status")] {
            make_folder(&folder, folder_mode(&self.prepared.survey), self.prepared.owner)?;
        }
        if self.options.server.is_none() {
            return Ok(());
        }
        let size = wal.stored().segment_size;
        for seed in &self.plan.seeds {
            let mut bytes = wal.file(seed.stored).await?;
            bytes.resize(usize::try_from(size.bytes()).unwrap_or(bytes.len()), 0);
            self.write(&pg_wal.join(seed.wanted.file_name(size)), &bytes)?;
        }
        Ok(())
    }

    /// `backup_label`, `tablespace_map`, settings and signals.
    fn server_files(&self) -> Result<Vec<String>, EngineError> {
        let dir = &self.options.dir;
        let details = &self.plan.backup.details;
        self.write(&dir.join("backup_label"), details.backup_label.as_bytes())?;
        let links: Vec<TablespaceLink> = self
            .layout()
            .roots
            .iter()
            .filter_map(|root| {
                let path = root.to.as_os_str().as_encoded_bytes().to_vec();
                root.tablespace.map(|oid| TablespaceLink { oid, path })
            })
            .collect();
        if !links.is_empty() {
            self.write(&dir.join("tablespace_map"), &tablespace_map::compose(&links))?;
        }
        let Some(server) = &self.options.server else { return Ok(Vec::new()) };
        let notes = self.configuration()?;
        let auto = dir.join("postgresql.auto.conf");
        let mut before = fs::read(&auto).unwrap_or_default();
        // It is lost: what is set now counts.
        before.retain(|byte| *byte != 0);
        self.write(&auto, &auto_conf(&before, &server.lines(self.plan)))?;
        self.write(&dir.join(server.signal_file()), b"")?;
        Ok(notes)
    }

    /// Makes `postgresql.conf` speak of this server's files.
    fn configuration(&self) -> Result<Vec<String>, EngineError> {
        let conf = self.layout().place(b"postgresql.conf");
        let Ok(mut bytes) = fs::read(&conf) else { return Ok(Vec::new()) };
        let (mut notes, mut is_changed) = (Vec::new(), false);
        let folder = conf.parent().unwrap_or(&self.options.dir);
        if let Some((changed, missing)) = without_missing_includes(&bytes, folder) {
            notes.push(format!(
                "{} includes what is not in the backup: {}. Those lines are comments now; the \
                 settings there are missing.",
                conf.display(),
                missing.join(", ")
            ));
            (bytes, is_changed) = (changed, true);
        }
        let dir = &self.options.dir;
        let is_outside = self.layout().outside.contains_key(b"postgresql.conf".as_slice());
        if !is_outside && let Some(changed) = taken_in(&bytes, dir, &self.layout().taken_in) {
            (bytes, is_changed) = (changed, true);
        }
        if is_changed {
            self.write(&conf, &bytes)?;
        }
        Ok(notes)
    }

    /// Writes down what was lost, for those who have not seen what was printed.
    fn list_lost(&self, losses: Losses) -> Result<Vec<TouchedFile>, EngineError> {
        let details = &self.plan.backup.details;
        let lost = losses.told(details);
        if !lost.is_empty() {
            let text = lost::list(details, &self.manifest.backup.to_string(), &lost);
            self.write(&self.options.dir.join(LIST), text.as_bytes())?;
        }
        Ok(lost)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        let fail = |error| EngineError::file("write", path, error);
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let mode = if folder_mode(&self.prepared.survey) == 0o750 { 0o640 } else { 0o600 };
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
        if let Some((uid, gid)) = self.prepared.owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(fail)?;
        }
        file.sync_all().map_err(fail)
    }
}
