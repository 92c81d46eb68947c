//! The processor's share of a push, on threads of its own while requests are under way: reading
//! the file, walking its records, compressing its frames, its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::Builder;
use std::time::Duration;

use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use pgrecall_pgformat::segment_digest::SegmentWalk;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{SegmentName, SegmentSize};
use pgrecall_repo::codec::Level;
use pgrecall_repo::id::Digest;
use pgrecall_repo::keys::{Digester, Keys};
use pgrecall_repo::object::{FRAME_PLAIN_BYTES, Payload};

use super::parts::{self, Part, Parts, locked};
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
    path: PathBuf,
    /// Bytes of the file.
    pub(super) size: u64,
    pub(super) frames: Vec<Payload>,
    pub(super) summary: Option<SegmentSummary>,
    /// The keyed digest of the file.
    pub(super) digest: Digest,
}

impl Packed {
    /// The file's bytes, read once more: who stores them needs them no longer, and only a name that
    /// is taken makes somebody look at them again.
    ///
    /// # Errors
    /// When the file does not read, or is not what it was.
    pub(super) async fn plain(&self, keys: &Arc<Keys>) -> Result<Bytes, EngineError> {
        let (path, size, digest, keys) = (self.path.clone(), self.size, self.digest, keys.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let fail = |error| EngineError::file("read", &path, error);
            let file = File::open(&path).map_err(fail)?;
            let mut plain = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact_at(&mut plain, 0).map_err(fail)?;
            let more = file.read_at(&mut [0], size).map_err(fail)?;
            if more > 0 || keys.digest(&plain) != digest {
                let message = format!("{} changes while it is archived", path.display());
                return Err(EngineError::refused(ErrorKind::Invalid, message));
            }
            Ok(Bytes::from(plain))
        });
        reading.await.unwrap_or_else(|error| Err(died(&error)))
    }
}

fn died(error: &tokio::task::JoinError) -> EngineError {
    let message = format!("a thread of the archive died: {error}");
    EngineError::refused(ErrorKind::Internal, message)
}

/// Looks at a file's size and its first frame.
type FirstLook = Box<dyn FnOnce(u64, &[u8]) -> Result<(), EngineError> + Send>;

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

/// Bytes of a part of a segment, which becomes a frame. Larger ones do not compress better at the
/// levels that a push is made with, leave the cache before they are needed again, and one thread
/// has the last one for longer while the others have nothing left to do.
const PART_BYTES: usize = 256 << 10;

/// Begins to read, walk, compress and digest a file, part by part, on threads of their own. The
/// keys may come later, from a repository that is being opened meanwhile.
pub(super) fn start(
    to_pack: ToPack,
    keys: mpsc::Receiver<Arc<Keys>>,
) -> impl Future<Output = Result<Packed, EngineError>> + use<> {
    // Started here, not when it is first awaited.
    let started = tokio::task::spawn_blocking(move || pack(to_pack, keys));
    async move { started.await.unwrap_or_else(|error| Err(died(&error))) }
}

fn pack(to_pack: ToPack, keys: mpsc::Receiver<Arc<Keys>>) -> Result<Packed, EngineError> {
    let path = to_pack.path;
    let fail = |error| EngineError::file("read", &path, error);
    let file = File::open(&path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > to_pack.limit_bytes {
        return Err(too_long(&path, size, to_pack.limit_bytes));
    }
    let len = usize::try_from(size).unwrap_or_default();
    // The check needs the whole of what is no segment.
    let part_bytes = if to_pack.segment.is_some() { PART_BYTES } else { FRAME_PLAIN_BYTES };
    let mut memory = memory(len, part_bytes, &path)?;
    let parts = Parts::new(&file, len, part_bytes, &mut memory);
    parts.look(|first| (to_pack.check)(size, first)).map_err(fail)??;
    let work = Work {
        parts: &parts,
        level: to_pack.compression.level,
        waiting: Mutex::new(BTreeMap::new()),
        in_order: Mutex::new(InOrder::new(to_pack.segment, keys)),
        new_thread: Builder::new,
    };
    let (frames, summary, digest) = work.all(to_pack.compression.threads);
    parts.all_read().map_err(fail)?;
    if file.read_at(&mut [0], size).map_err(fail)? > 0 {
        let message = format!("{} grows while it is read", path.display());
        return Err(EngineError::refused(ErrorKind::Invalid, message));
    }
    // The repository could not be opened, and whoever opened it says why.
    let digest = digest.ok_or(EngineError::Cancelled)?;
    Ok(Packed { path, size, frames, summary, digest })
}

/// Memory for as many parts as a file has. Little of it is used, and that is given to us in huge
/// pages where the system has them.
fn memory(len: usize, part_bytes: usize, path: &Path) -> Result<MmapMut, EngineError> {
    let fail = |error| EngineError::file("make room to read", path, error);
    let bytes = parts::count(len, part_bytes).saturating_mul(part_bytes);
    let memory = MmapMut::map_anon(bytes).map_err(fail)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

fn too_long(path: &Path, size: u64, limit: u64) -> EngineError {
    let message = format!(
        "{} does not fit: it has {size} bytes, and at most {limit} are expected",
        path.display()
    );
    EngineError::refused(ErrorKind::Invalid, message)
}

/// What is done with the parts of a file. All threads do the same: read the next part, compress it,
/// and do what is to be done in order as far as parts are there, unless another one is at it. So
/// they share the work evenly, and a part is still in the processor's cache when it is needed
/// again.
struct Work<'p, 'm> {
    parts: &'p Parts<'m>,
    level: Level,
    /// Parts that have not had their turn in order.
    waiting: Mutex<BTreeMap<usize, Arc<Part<'p, 'm>>>>,
    in_order: Mutex<InOrder>,
    new_thread: fn() -> Builder,
}

type Done = (Vec<Payload>, Option<SegmentSummary>, Option<Digest>);

impl Work<'_, '_> {
    fn all(self, threads: usize) -> Done {
        let helpers = threads.clamp(1, self.parts.count()) - 1;
        let mut payloads = std::thread::scope(|scope| {
            // Where the system gives no more threads, this one does their work.
            let help = |_| (self.new_thread)().spawn_scoped(scope, || self.some()).ok();
            let helpers: Vec<_> = (0..helpers).map_while(help).collect();
            let mut payloads = self.some();
            for helper in helpers {
                payloads.extend(helper.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            }
            payloads
        });
        self.follow(&mut locked(&self.in_order), Keyless::Waits);
        payloads.sort_unstable_by_key(|(place, _)| *place);
        let frames = payloads.into_iter().map(|(_, payload)| payload).collect();
        let (summary, digest) = self.in_order.into_inner().unwrap_or_else(|p| p.into_inner()).end();
        (frames, summary, digest)
    }

    fn some(&self) -> Vec<(usize, Payload)> {
        let mut done = Vec::new();
        while let Some(part) = self.parts.next() {
            let part = Arc::new(part);
            let waiting = {
                let mut waiting = locked(&self.waiting);
                waiting.insert(part.place, part.clone());
                waiting.len()
            };
            if waiting > PARTS_AHEAD {
                let keyless =
                    if waiting > PARTS_WAITING_MAX { Keyless::Waits } else { Keyless::Soon };
                self.follow(&mut locked(&self.in_order), keyless);
            }
            done.push((part.place, Payload::compress(&part, self.level)));
            if let Ok(mut in_order) = self.in_order.try_lock() {
                self.follow(&mut in_order, Keyless::Leaves);
                if in_order.keys_are_lost {
                    break;
                }
            }
        }
        done
    }

    /// Does in order what is there.
    fn follow(&self, in_order: &mut InOrder, keyless: Keyless) {
        let take = |place| locked(&self.waiting).remove(&place);
        if in_order.has_keys(keyless) {
            while let Some(part) = take(in_order.next) {
                in_order.feed(&part);
            }
        }
    }
}

/// Parts that may wait for the work in order while others are read: it bounds the memory.
const PARTS_AHEAD: usize = 8;

/// The same while there are no keys.
const PARTS_WAITING_MAX: usize = 64;

/// How long keys of a repository that is near take at most. Whoever opens it is to have a processor
/// for that; where they take longer it is far away, and processors have nothing better to do than
/// to go on.
const KEYS_SOON: Duration = Duration::from_millis(10);

/// What is done without keys.
#[derive(Clone, Copy)]
enum Keyless {
    Leaves,
    /// Waits for a moment, once.
    Soon,
    Waits,
}

/// The work that needs one part after the other.
struct InOrder {
    next: usize,
    walk: Option<SegmentWalk>,
    keys: mpsc::Receiver<Arc<Keys>>,
    /// The repository could not be opened: none will come.
    keys_are_lost: bool,
    has_waited: bool,
    digester: Option<Digester>,
}

impl InOrder {
    fn new(segment: Option<(SegmentName, SegmentSize)>, keys: mpsc::Receiver<Arc<Keys>>) -> Self {
        let walk = segment.map(|(name, size)| SegmentWalk::new(name, size));
        let (keys_are_lost, has_waited) = (false, false);
        Self { next: 0, walk, keys, keys_are_lost, has_waited, digester: None }
    }

    fn has_keys(&mut self, keyless: Keyless) -> bool {
        if self.digester.is_none() && !self.keys_are_lost {
            let wait = match keyless {
                Keyless::Leaves => Duration::ZERO,
                Keyless::Soon if self.has_waited => Duration::ZERO,
                Keyless::Soon => KEYS_SOON,
                Keyless::Waits => Duration::MAX,
            };
            self.has_waited |= !wait.is_zero();
            match self.keys.recv_timeout(wait) {
                Ok(keys) => self.digester = Some(keys.digester()),
                Err(error) => self.keys_are_lost = error == mpsc::RecvTimeoutError::Disconnected,
            }
        }
        self.digester.is_some()
    }

    fn feed(&mut self, part: &[u8]) {
        if let Some(walk) = &mut self.walk {
            walk.feed(part);
        }
        if let Some(digester) = &mut self.digester {
            digester.update(part);
        }
        self.next += 1;
    }

    fn end(self) -> (Option<SegmentSummary>, Option<Digest>) {
        (self.walk.map(SegmentWalk::finish), self.digester.map(Digester::finish))
    }
}

#[cfg(test)]
mod tests {
    use pgrecall_pgformat::{SegmentNumber, TimelineId};
    use pgrecall_repo::format::header::{KeyClass, Suite};
    use pgrecall_repo::keys::first_domain_keys;
    use pgrecall_repo::object::{Proof, open_archive, seal_archive};
    use pgrecall_repo::random::SharedRandom;
    use pgrecall_store::Key;

    use super::*;

    /// A file, and the keys under which it is packed.
    struct Offered {
        folder: tempfile::TempDir,
        keys: Arc<Keys>,
    }

    impl Offered {
        fn new(bytes: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("x"), bytes).unwrap();
            let document = first_domain_keys(&SharedRandom::system());
            let domain = "main".parse().unwrap();
            let keys = Keys::of_domain(Suite::Aes256Gcm, &domain, &[document], &[]).unwrap();
            Self { folder, keys: Arc::new(keys) }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("x")
        }

        fn pack(&self, check: FirstLook, threads: usize) -> Result<Packed, EngineError> {
            let (send, keys) = mpsc::channel();
            send.send(self.keys.clone()).unwrap();
            pack(self.to_pack(check, threads), keys)
        }

        fn to_pack(&self, check: FirstLook, threads: usize) -> ToPack {
            ToPack {
                path: self.path(),
                limit_bytes: 6 << 20,
                check,
                segment: None,
                compression: Compression { level: Level(1), threads },
            }
        }

        /// What comes out again of an object that is made of it; its digest is checked on the way.
        fn stored(&self, frames: &[Payload], digest: Digest) -> Vec<u8> {
            let (name, random) = (Key::parse("x").unwrap(), SharedRandom::system());
            let class = KeyClass::Data;
            let object = seal_archive(&self.keys, class, &name, digest, frames, b"", &random);
            let (object, mut plain) = (object.unwrap(), Vec::new());
            open_archive(&self.keys, &name, &object, 1 << 30, Proof::Hash, |part| {
                plain.extend_from_slice(part);
            })
            .unwrap();
            plain
        }
    }

    fn no_check() -> FirstLook {
        Box::new(|_, _| Ok(()))
    }

    fn five_frames_and_some() -> Vec<u8> {
        (0..5_300_000_u32).map(|n| (n / 4096) as u8).collect()
    }

    #[test]
    fn a_file_is_packed_the_same_on_any_number_of_threads() {
        let plain = five_frames_and_some();
        let offered = Offered::new(&plain);
        for threads in [0, 1, 2, 3, 16] {
            let packed = offered.pack(no_check(), threads).unwrap();
            assert_eq!((packed.size, packed.frames.len()), (5_300_000, 6));
            let stored = offered.stored(&packed.frames, packed.digest);
            assert!(stored == plain, "{threads} threads");
        }
        let empty = Offered::new(b"");
        let packed = empty.pack(no_check(), 2).unwrap();
        assert_eq!(packed.frames.len(), 1);
        assert_eq!(empty.stored(&packed.frames, packed.digest), b"");
    }

    #[test]
    fn where_the_system_gives_no_threads_one_does_it_all() {
        let plain = five_frames_and_some();
        let offered = Offered::new(&plain);
        let file = File::open(offered.path()).unwrap();
        let mut memory = memory(plain.len(), PART_BYTES, &offered.path()).unwrap();
        let parts = Parts::new(&file, plain.len(), PART_BYTES, &mut memory);
        let (send, keys) = mpsc::channel();
        send.send(offered.keys.clone()).unwrap();
        let work = Work {
            parts: &parts,
            level: Level(1),
            waiting: Mutex::default(),
            in_order: Mutex::new(InOrder::new(None, keys)),
            // No system has so much room for a stack.
            new_thread: || Builder::new().stack_size(1 << 56),
        };
        let (frames, _, digest) = work.all(4);
        assert!(offered.stored(&frames, digest.unwrap()) == plain);
    }

    #[test]
    fn keys_may_come_when_all_else_is_done() {
        let plain = five_frames_and_some();
        let offered = Offered::new(&plain);
        let (send, keys) = mpsc::channel();
        let to_pack = offered.to_pack(no_check(), 2);
        let packing = std::thread::spawn(move || pack(to_pack, keys));
        std::thread::sleep(std::time::Duration::from_millis(200));
        send.send(offered.keys.clone()).unwrap();
        let packed = packing.join().unwrap().unwrap();
        assert!(offered.stored(&packed.frames, packed.digest) == plain);
    }

    /// More parts than may wait for keys.
    #[test]
    fn a_long_segment_waits_for_keys_that_are_far_and_for_none_that_are_lost() {
        let plain: Vec<u8> = (0..32_u32 << 20).map(|n| (n / 4096) as u8).collect();
        let offered = Offered::new(&plain);
        let size = SegmentSize::from_bytes(32 << 20).unwrap();
        let name = SegmentName { timeline: TimelineId(1), number: SegmentNumber(1) };
        let begin = |threads| {
            let (send, keys) = mpsc::channel();
            let to_pack = ToPack {
                limit_bytes: 32 << 20,
                segment: Some((name, size)),
                ..offered.to_pack(no_check(), threads)
            };
            (send, std::thread::spawn(move || pack(to_pack, keys)))
        };
        for threads in [1, 3] {
            let (send, packing) = begin(threads);
            std::thread::sleep(Duration::from_millis(300));
            send.send(offered.keys.clone()).unwrap();
            let packed = packing.join().unwrap().unwrap();
            assert_eq!(packed.frames.len(), 128);
            assert!(offered.stored(&packed.frames, packed.digest) == plain);
            let (send, packing) = begin(threads);
            std::thread::sleep(Duration::from_millis(300));
            drop(send);
            assert!(matches!(packing.join().unwrap(), Err(EngineError::Cancelled)));
        }
    }

    #[test]
    fn files_above_the_limit_are_not_read() {
        let offered = Offered::new(b"12345");
        let pack = |limit_bytes| {
            let (send, keys) = mpsc::channel();
            send.send(offered.keys.clone()).unwrap();
            pack(ToPack { limit_bytes, ..offered.to_pack(no_check(), 1) }, keys)
        };
        assert_eq!(pack(5).unwrap().size, 5);
        assert_eq!(pack(4).unwrap_err().kind(), ErrorKind::Invalid);
    }

    /// Otherwise bytes that nobody has looked at would be stored.
    #[test]
    fn what_was_checked_is_what_is_stored() {
        let plain = vec![7; FRAME_PLAIN_BYTES + 5];
        let offered = Offered::new(&plain);
        let path = offered.path();
        let check = Box::new(move |size, first: &[u8]| {
            assert_eq!((size, first.first()), (1_048_581, Some(&7)));
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[8; 100], 0).unwrap();
            Ok(())
        });
        let packed = offered.pack(check, 2).unwrap();
        assert!(offered.stored(&packed.frames, packed.digest) == plain);
    }

    #[tokio::test]
    async fn a_file_is_read_again_only_as_it_was() {
        let plain = five_frames_and_some();
        let offered = Offered::new(&plain);
        let packed = offered.pack(no_check(), 2).unwrap();
        assert!(packed.plain(&offered.keys).await.unwrap() == plain);
        let mut other = plain.clone();
        other[5_000_000] ^= 1;
        for bytes in [&other, &[&plain[..], b"x"].concat(), &plain[1..].to_vec()] {
            std::fs::write(offered.path(), bytes).unwrap();
            packed.plain(&offered.keys).await.unwrap_err();
        }
    }

    #[test]
    fn without_keys_there_is_no_digest() {
        let offered = Offered::new(b"123");
        let no_keys = || mpsc::channel().1;
        let refuse: FirstLook =
            Box::new(|_, _| Err(EngineError::refused(ErrorKind::Invalid, "no")));
        let refused = pack(offered.to_pack(refuse, 1), no_keys()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        let without = pack(offered.to_pack(no_check(), 1), no_keys());
        assert!(matches!(without, Err(EngineError::Cancelled)));
        std::fs::remove_file(offered.path()).unwrap();
        let missing = pack(offered.to_pack(no_check(), 1), no_keys()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
