//! The processor's share of a push, on threads of its own while requests are under way: reading
//! the file, walking its records, compressing its frames, its digest.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::Builder;

use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use pgrecall_pgformat::segment_digest::SegmentWalk;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{SegmentName, SegmentSize};
use pgrecall_repo::codec::Level;
use pgrecall_repo::id::Digest;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::object::{FRAME_PLAIN_BYTES, Payload};

use super::parts::Parts;
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
    pub(super) bytes: Bytes,
    pub(super) frames: Vec<Payload>,
    pub(super) summary: Option<SegmentSummary>,
    /// The keyed digest of the file.
    pub(super) digest: Digest,
}

/// Looks at a file of which the first frame is read, and all else is zeros.
type FirstLook = Box<dyn FnOnce(&[u8]) -> Result<(), EngineError> + Send>;

/// A file to read and to make ready.
pub(super) struct ToPack {
    pub(super) path: PathBuf,
    /// It may not be longer.
    pub(super) limit_bytes: u64,
    pub(super) check: FirstLook,
    /// What it is, if it is a segment.
    pub(super) segment: Option<(SegmentName, SegmentSize)>,
    pub(super) compression: Compression,
}

/// Begins to read, walk, compress and digest a file, on threads of their own: all follow the
/// reading part by part. The keys may come later, from a repository that is being opened meanwhile.
pub(super) fn start(
    to_pack: ToPack,
    keys: mpsc::Receiver<Arc<Keys>>,
) -> impl Future<Output = Result<Packed, EngineError>> + use<> {
    // Started here, not when it is first awaited.
    let started = tokio::task::spawn_blocking(move || pack(to_pack, keys));
    async move {
        started.await.unwrap_or_else(|error| {
            let message = format!("a thread of the archive died: {error}");
            Err(EngineError::refused(ErrorKind::Internal, message))
        })
    }
}

fn pack(to_pack: ToPack, keys: mpsc::Receiver<Arc<Keys>>) -> Result<Packed, EngineError> {
    let path = &to_pack.path;
    let fail = |error| EngineError::file("read", path, error);
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > to_pack.limit_bytes {
        let limit = to_pack.limit_bytes;
        let message = format!(
            "{} does not fit: it has {size} bytes, and at most {limit} are expected",
            path.display()
        );
        return Err(EngineError::refused(ErrorKind::Invalid, message));
    }
    let len = usize::try_from(size).unwrap_or_default();
    let mut memory = memory(len, path)?;
    let room = memory.get_mut(..len).unwrap_or_default();
    let first = len.min(FRAME_PLAIN_BYTES);
    file.read_exact_at(room.get_mut(..first).unwrap_or_default(), 0).map_err(fail)?;
    (to_pack.check)(room)?;
    let parts = Parts::new(&file, room, FRAME_PLAIN_BYTES).first_is_read();
    let level = to_pack.compression.level;
    let work = Work { parts: &parts, next: AtomicUsize::new(0), level, new_thread: Builder::new };
    let (frames, summary, digest) =
        work.all(to_pack.segment, to_pack.compression.threads, move || keys.recv().ok());
    parts.all_read().map_err(fail)?;
    if file.read_at(&mut [0], size).map_err(fail)? > 0 {
        let message = format!("{} grows while it is read", path.display());
        return Err(EngineError::refused(ErrorKind::Invalid, message));
    }
    // The repository could not be opened, and whoever opened it says why.
    let digest = digest.ok_or(EngineError::Cancelled)?;
    let bytes = Bytes::from_owner(memory).slice(..len);
    Ok(Packed { bytes, frames, summary, digest })
}

/// Memory for a file, in huge pages where the system has them: thousands of small ones that have to
/// be given to us one by one cost a push a quarter of its time.
fn memory(len: usize, path: &Path) -> Result<MmapMut, EngineError> {
    let fail = |error| EngineError::file("make room to read", path, error);
    // There is no mapping of nothing.
    let memory = MmapMut::map_anon(len.max(1)).map_err(fail)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

/// What is done with the parts of a file.
struct Work<'p, 'm> {
    parts: &'p Parts<'m>,
    next: AtomicUsize,
    level: Level,
    new_thread: fn() -> Builder,
}

type Done = (Vec<Payload>, Option<SegmentSummary>, Option<Digest>);

impl Work<'_, '_> {
    fn all(
        &self,
        segment: Option<(SegmentName, SegmentSize)>,
        threads: usize,
        keys: impl FnOnce() -> Option<Arc<Keys>> + Send,
    ) -> Done {
        // An empty file has one frame, too.
        if self.parts.count() == 0 {
            let frames = vec![Payload::compress(&[], self.level)];
            return (frames, segment.map(|s| self.walk(s)), keys().map(|keys| self.digest(&keys)));
        }
        let helpers = threads.clamp(1, self.parts.count()) - 1;
        let keys = Mutex::new(Some(keys));
        let digest_it = || {
            let keys = keys.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            keys().map(|keys| self.digest(&keys))
        };
        let (mut payloads, summary, digest) = std::thread::scope(|scope| {
            // Where the system gives no more threads, this one does their work.
            let help = |_| (self.new_thread)().spawn_scoped(scope, || self.compress_some()).ok();
            let helpers: Vec<_> = (0..helpers).map_while(help).collect();
            let digesting = (self.new_thread)().spawn_scoped(scope, digest_it).ok();
            // The walk is one piece of work; whoever is done with it helps with the rest.
            let summary = segment.map(|segment| self.walk(segment));
            let mut payloads = self.compress_some();
            for helper in helpers {
                payloads.extend(helper.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            }
            let digest = match digesting {
                Some(it) => it.join().unwrap_or_else(|p| std::panic::resume_unwind(p)),
                None => digest_it(),
            };
            (payloads, summary, digest)
        });
        payloads.sort_unstable_by_key(|(place, _)| *place);
        (payloads.into_iter().map(|(_, payload)| payload).collect(), summary, digest)
    }

    fn compress_some(&self) -> Vec<(usize, Payload)> {
        let mut done = Vec::new();
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(frame) = self.parts.get(place) else { return done };
            done.push((place, Payload::compress(frame, self.level)));
        }
    }

    fn walk(&self, (name, size): (SegmentName, SegmentSize)) -> SegmentSummary {
        let mut walk = SegmentWalk::new(name, size);
        self.parts.in_order().for_each(|part| walk.feed(part));
        walk.finish()
    }

    fn digest(&self, keys: &Keys) -> Digest {
        let mut digester = keys.digester();
        self.parts.in_order().for_each(|part| digester.update(part));
        digester.finish()
    }
}

#[cfg(test)]
mod tests {
    use pgrecall_repo::format::header::Suite;
    use pgrecall_repo::keys::first_domain_keys;
    use pgrecall_repo::random::SharedRandom;

    use super::*;

    /// A file of these bytes, packed under fresh keys.
    fn packed(bytes: &[u8], limit_bytes: u64, threads: usize) -> Result<Packed, EngineError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        let (send, keys) = mpsc::channel();
        send.send(Arc::new(test_keys())).unwrap();
        let to_pack = ToPack {
            path,
            limit_bytes,
            check: Box::new(|_| Ok(())),
            segment: None,
            compression: Compression { level: Level(1), threads },
        };
        pack(to_pack, keys)
    }

    fn test_keys() -> Keys {
        let document = first_domain_keys(&SharedRandom::system());
        Keys::of_domain(Suite::Aes256Gcm, &"main".parse().unwrap(), &[document], &[]).unwrap()
    }

    #[test]
    fn frames_keep_their_order_on_any_number_of_threads() {
        let plain: Vec<u8> = (0..5_300_000_u32).map(|n| (n / 4096) as u8).collect();
        let lens = |threads| -> Vec<usize> {
            let packed = packed(&plain, 1 << 30, threads).unwrap();
            assert!(packed.bytes == plain);
            packed.frames.iter().map(Payload::framed_len).collect()
        };
        let one = lens(1);
        assert_eq!(one.len(), 6);
        for threads in [0, 2, 3, 16] {
            assert_eq!(lens(threads), one, "{threads} threads");
        }
        assert_eq!(packed(&[], 5, 2).unwrap().frames.len(), 1);
    }

    #[test]
    fn where_the_system_gives_no_threads_one_does_it_all() {
        let plain: Vec<u8> = (0..5_300_000_u32).map(|n| (n / 4096) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&plain, 0).unwrap();
        let (keys, mut memory) = (Arc::new(test_keys()), vec![0; plain.len()]);
        let parts = Parts::new(&file, &mut memory, FRAME_PLAIN_BYTES);
        // No system has so much room for a stack.
        let new_thread = || Builder::new().stack_size(1 << 56);
        let work = Work { parts: &parts, next: AtomicUsize::new(0), level: Level(1), new_thread };
        let (frames, _, digest) = work.all(None, 4, || Some(keys.clone()));
        assert_eq!(frames.len(), 6);
        assert_eq!(digest, Some(keys.digest(&plain)));
    }

    #[test]
    fn files_above_the_limit_are_not_read() {
        assert_eq!(&*packed(b"12345", 5, 1).unwrap().bytes, b"12345");
        assert_eq!(packed(b"12345", 4, 1).unwrap_err().kind(), ErrorKind::Invalid);
    }

    /// Otherwise bytes that nobody has looked at would be stored.
    #[test]
    fn what_was_checked_is_what_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let plain = vec![7; FRAME_PLAIN_BYTES + 5];
        std::fs::write(&path, &plain).unwrap();
        let (send, keys) = mpsc::channel();
        send.send(Arc::new(test_keys())).unwrap();
        let changed = path.clone();
        let to_pack = ToPack {
            path,
            limit_bytes: 1 << 30,
            check: Box::new(move |bytes| {
                assert_eq!(bytes.first(), Some(&7));
                let file = File::options().write(true).open(&changed).unwrap();
                file.write_all_at(&[8; 100], 0).unwrap();
                Ok(())
            }),
            segment: None,
            compression: Compression::DEFAULT,
        };
        assert!(pack(to_pack, keys).unwrap().bytes == plain);
    }

    #[test]
    fn without_keys_there_is_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let to_pack = |check: Result<(), EngineError>| ToPack {
            path: path.clone(),
            limit_bytes: 5,
            check: Box::new(|_| check),
            segment: None,
            compression: Compression::DEFAULT,
        };
        let no_keys = || mpsc::channel().1;
        let missing = pack(to_pack(Ok(())), no_keys()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        std::fs::write(&path, b"123").unwrap();
        let refused = EngineError::refused(ErrorKind::Invalid, "no");
        assert_eq!(pack(to_pack(Err(refused)), no_keys()).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(matches!(pack(to_pack(Ok(())), no_keys()), Err(EngineError::Cancelled)));
    }
}
