//! The processor's share of a push, on threads of its own while requests are under way: reading
//! the file, walking its records, compressing its frames, its digest.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use pgrecall_pgformat::segment_digest;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{SegmentName, SegmentSize};
use pgrecall_repo::codec::Level;
use pgrecall_repo::id::Digest;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::object::{Payload, frames_of};

use crate::error::{EngineError, ErrorKind};

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// zstd's level.
    pub level: Level,
    /// Threads; at least one is used.
    pub threads: usize,
}

impl Compression {
    /// One thread at the default level.
    pub(crate) const DEFAULT: Self = Self { level: Level(1), threads: 1 };
}

/// A file ready to be sealed.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) frames: Vec<Payload>,
    pub(super) summary: Option<SegmentSummary>,
}

/// Runs work that keeps a processor or a disk busy off the runtime's thread.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let message = format!("a thread of the archive died: {error}");
        Err(EngineError::refused(ErrorKind::Internal, message))
    })
}

/// Threads that read a file.
const READERS: usize = 2;

/// A thread reads no less than this.
const READ_PART_BYTES_MIN: usize = 1 << 20;

/// Reads a whole file of at most `limit_bytes`.
pub(super) fn read_file(path: &Path, limit_bytes: u64) -> Result<Bytes, EngineError> {
    let fail = |error| EngineError::file("read", path, error);
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > limit_bytes {
        let message = format!(
            "{} does not fit: it has {size} bytes, and at most {limit_bytes} are expected",
            path.display()
        );
        return Err(EngineError::refused(ErrorKind::Invalid, message));
    }
    if size == 0 {
        return Ok(Bytes::new());
    }
    let mut bytes = memory(usize::try_from(size).unwrap_or_default(), path)?;
    let part = bytes.len().div_ceil(READERS).max(READ_PART_BYTES_MIN);
    std::thread::scope(|scope| {
        let readers: Vec<_> = bytes
            .chunks_mut(part)
            .zip((0..).step_by(part))
            .map(|(part, offset)| {
                let file = &file;
                scope.spawn(move || file.read_exact_at(part, offset))
            })
            .collect();
        readers.into_iter().try_for_each(|reader| match reader.join() {
            Ok(read) => read.map_err(fail),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    // A file that grows meanwhile does not fit.
    match file.read_at(&mut [0], size).map_err(fail)? {
        0 => Ok(Bytes::from_owner(bytes)),
        _ => {
            let message = format!("{} grows while it is read", path.display());
            Err(EngineError::refused(ErrorKind::Invalid, message))
        }
    }
}

/// Memory for a file, in huge pages where the system has them: thousands of small ones that have to
/// be given to us one by one cost a push a quarter of its time.
fn memory(len: usize, path: &Path) -> Result<MmapMut, EngineError> {
    let fail = |error| EngineError::file("make room to read", path, error);
    let memory = MmapMut::map_anon(len).map_err(fail)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

/// Walks the segment, if it is one, and compresses the frames.
pub(super) fn pack(
    bytes: &[u8],
    segment: Option<(SegmentName, SegmentSize)>,
    compression: Compression,
) -> Packed {
    let frames: Vec<&[u8]> = frames_of(bytes).collect();
    let next = AtomicUsize::new(0);
    let compress_some = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(frame) = frames.get(place) else { break };
            done.push((place, Payload::compress(frame, compression.level)));
        }
        done
    };
    let helpers = compression.threads.clamp(1, frames.len()) - 1;
    let (mut payloads, summary) = std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(compress_some)).collect();
        // The walk is one piece of work; whoever is done with it helps with the rest.
        let summary = segment.map(|(name, size)| segment_digest::digest_segment(name, size, bytes));
        let mut payloads = compress_some();
        for helper in helpers {
            match helper.join() {
                Ok(done) => payloads.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (payloads, summary)
    });
    payloads.sort_unstable_by_key(|(place, _)| *place);
    Packed { frames: payloads.into_iter().map(|(_, payload)| payload).collect(), summary }
}

/// The keyed digest of the file.
pub(super) async fn digest(keys: Arc<Keys>, bytes: Bytes) -> Result<Digest, EngineError> {
    off_thread(move || Ok(keys.digest(&bytes))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_order_on_any_number_of_threads() {
        let plain: Vec<u8> = (0..5_300_000_u32).map(|n| (n / 4096) as u8).collect();
        let lens = |threads| -> Vec<usize> {
            let compression = Compression { level: Level(1), threads };
            let packed = pack(&plain, None, compression);
            packed.frames.iter().map(Payload::framed_len).collect()
        };
        let one = lens(1);
        assert_eq!(one.len(), 6);
        for threads in [0, 2, 3, 16] {
            assert_eq!(lens(threads), one, "{threads} threads");
        }
        assert_eq!(pack(&[], None, Compression { level: Level(1), threads: 2 }).frames.len(), 1);
    }

    #[test]
    fn files_above_the_limit_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(&*read_file(&path, 5).unwrap(), b"12345");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(read_file(&empty, 5).unwrap().is_empty());
        let error = read_file(&path, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let error = read_file(&folder.path().join("y"), 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
