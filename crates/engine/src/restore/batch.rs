//! A batch of files of a restore: each is made with its length, mode and owner, and what has to be
//! written to it is found.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::keys::Keys;
use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _,
};
use rustix::fs::{Gid, OFlags, Uid};

use super::copy::{Copied, Job, Place, Reuse};
use super::delta::Compare;
use super::threads::Going;
use crate::error::{EngineError, ErrorKind};

/// The files, and all that is known of them.
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    /// Those of each file's pieces.
    pub(super) maps: Vec<Vec<FileMap>>,
    /// Page hashes, where files that are there are made use of.
    pub(super) hashes: HashMap<ChunkId, Vec<u8>>,
    pub(super) reuse: Reuse,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) keys: Arc<Keys>,
}

/// What has to be written to a batch's files.
pub(super) struct Looked {
    pub(super) files: Vec<PathBuf>,
    /// Their names in the backup.
    pub(super) names: Vec<Vec<u8>>,
    /// In order of files and offsets.
    pub(super) places: Vec<(ChunkId, Place)>,
    pub(super) copied: Copied,
}

impl Batch {
    /// Makes the files and finds the places, on all threads of the pool that this runs on.
    ///
    /// # Errors
    /// When the disk fails, or the restore is to stop.
    pub(super) fn look(self, going: &Going) -> Result<Looked, EngineError> {
        let found: Vec<Vec<(ChunkId, Place)>> = self
            .jobs
            .par_iter()
            .zip(&self.maps)
            .enumerate()
            .map(|(number, (job, maps))| self.places(number, job, maps, going))
            .collect::<Result<_, _>>()?;
        let places: Vec<(ChunkId, Place)> = found.into_iter().flatten().collect();
        let copied = Copied {
            files: self.jobs.len() as u64,
            bytes: self.jobs.iter().map(|job| job.len).sum(),
            written_bytes: places.iter().map(|(_, place)| u64::from(place.len)).sum(),
        };
        let (files, names) = self.jobs.into_iter().map(|job| (job.place, job.name)).unzip();
        Ok(Looked { files, names, places, copied })
    }

    fn places(
        &self,
        number: usize,
        job: &Job,
        maps: &[FileMap],
        going: &Going,
    ) -> Result<Vec<(ChunkId, Place)>, EngineError> {
        going.check()?;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match self.prepare(job)? {
            None => Ok(fresh_places(number, maps)),
            Some(there) => {
                let compare =
                    Compare { number, file: &there, hashes: &self.hashes, keys: &self.keys, going };
                compare.places(job, maps)
            }
        }
    }

    /// Makes a file with its length, mode and owner; gives it when it was there and may be right in
    /// parts.
    fn prepare(&self, job: &Job) -> Result<Option<File>, EngineError> {
        let reuse = if job.control { Reuse::Nothing } else { self.reuse };
        let fail = |act| move |error| EngineError::file(act, &job.place, error);
        let is_there = match std::fs::symlink_metadata(&job.place) {
            // A file with another name (`pg_upgrade --link` makes such) may be another cluster's.
            Ok(meta) if meta.is_file() && meta.nlink() == 1 && reuse == Reuse::Pages => true,
            Ok(meta) if meta.is_dir() => {
                let message =
                    format!("{} is a directory, and a file goes there", job.place.display());
                return Err(EngineError::refused(ErrorKind::AlreadyExists, message));
            }
            Ok(_) => {
                std::fs::remove_file(&job.place).map_err(fail("remove"))?;
                false
            }
            Err(_) => false,
        };
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(NO_LINK);
        if is_there {
            options.read(true);
        } else {
            options.create_new(true);
        }
        let file = options.open(&job.place).map_err(fail("create"))?;
        let links = file.metadata().map_err(fail("look at"))?.nlink();
        if links > 1 {
            let message = format!("{} has become another file's name", job.place.display());
            return Err(EngineError::refused(ErrorKind::Conflict, message));
        }
        file.set_len(job.len).map_err(fail("set the length of"))?;
        // Writing is for the owner alone, whatever the backup says.
        let mode = (job.mode & 0o640) | 0o600;
        if is_there || mode != 0o600 {
            file.set_permissions(Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))
                .map_err(|errno| fail("set the owner of")(errno.into()))?;
        }
        Ok(is_there.then_some(file))
    }
}

/// The directory may belong to somebody else than root, who restores: a link that is put in the way
/// must not lead out of it.
pub(super) const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// All that is not zero, of a file that was just made.
fn fresh_places(file: u32, maps: &[FileMap]) -> Vec<(ChunkId, Place)> {
    let mut places = Vec::new();
    let mut offset = 0;
    for map in maps {
        for extent in &map.extents {
            if let Source::Chunk { chunk, offset: chunk_offset } = extent.source {
                let chunk = map.chunks.get(usize::try_from(chunk).unwrap_or(usize::MAX));
                let len = u32::try_from(extent.len);
                if let (Some(chunk), Ok(len)) = (chunk, len) {
                    let chunk_len = chunk.plain_len;
                    let place = Place { file, offset, chunk_offset, len, chunk_len };
                    places.push((chunk.id, place));
                }
            }
            offset += extent.len;
        }
    }
    places
}
