//! Sealing whole objects and opening them again: blobs (documents, index objects) and archive
//! objects (a body of frames and a trailer that can be read alone).

use std::sync::mpsc;

use bytes::Bytes;
use pgrecall_store::Key;

use crate::codec::{self, Level};
use crate::error::{FormatError, RepoError};
use crate::format::bytes::{Reader, narrow, wide};
use crate::format::frame::{self, Codec, Last, Place};
use crate::format::header::{Header, KeyClass, Kind, Tail};
use crate::id::Digest;
use crate::keys::{IdKeys, Keys};
use crate::random::SharedRandom;

/// Plaintext bytes of a frame in blobs and archive objects.
pub const FRAME_PLAIN_BYTES: usize = 1 << 20;

/// A frame's payload before it is sealed. Compressing is the costly part, and can be done in
/// parallel.
#[derive(Debug, Clone)]
pub struct Payload {
    codec: Codec,
    plain_len: usize,
    bytes: Vec<u8>,
}

impl Payload {
    /// Compresses one frame's plaintext, of at most [`FRAME_PLAIN_BYTES`].
    #[must_use]
    pub fn compress(plain: &[u8], level: Level) -> Self {
        let mut bytes = Vec::new();
        let codec = codec::compress(plain, level, &mut bytes);
        if codec == Codec::Stored {
            bytes.extend_from_slice(plain);
        }
        Self { codec, plain_len: plain.len(), bytes }
    }

    /// Takes one frame's plaintext as it is.
    #[must_use]
    pub fn stored(plain: Vec<u8>) -> Self {
        Self { codec: Codec::Stored, plain_len: plain.len(), bytes: plain }
    }

    /// Bytes of the frame that it becomes, the length prefix included.
    #[must_use]
    pub fn framed_len(&self) -> usize {
        self.bytes.len() + frame::SEAL_BYTES + frame::PREFIX_BYTES
    }
}

/// Seals a blob: all of it under one class of key.
///
/// # Errors
/// When a frame would be too long, which callers rule out.
pub fn seal_blob(
    keys: &Keys,
    kind: Kind,
    class: KeyClass,
    name: &Key,
    plain: &[u8],
    random: &SharedRandom,
) -> Result<Bytes, RepoError> {
    let payloads: Vec<_> =
        frames_of(plain).map(|part| Payload::compress(part, Level::default())).collect();
    let mut object = Sealing::begin(keys, kind, class, name, keys.digest(plain), random)?;
    object.body(&payloads)?;
    Ok(Bytes::from(object.out))
}

/// Seals an object from frames cut by the caller.
///
/// # Errors
/// When a frame is too long.
pub fn seal_frames(
    keys: &Keys,
    (kind, class): (Kind, KeyClass),
    name: &Key,
    digest: Digest,
    frames: &[Payload],
    random: &SharedRandom,
) -> Result<Bytes, RepoError> {
    let mut object = Sealing::begin(keys, kind, class, name, digest, random)?;
    object.body(frames)?;
    Ok(Bytes::from(object.out))
}

/// Opens an object frame by frame. What its digest covers is the caller's to check.
///
/// # Errors
/// When the object is not whole, not authentic or of another kind, or `each` refuses a frame.
pub fn open_frames(
    keys: &Keys,
    kind: Kind,
    name: &Key,
    object: &[u8],
    each: impl FnMut(&[u8]) -> Result<(), FormatError>,
) -> Result<Header, RepoError> {
    let header = read_header(name, kind, object)?;
    open_body(keys, &header, name, object, Part::UntilEnd, each)?;
    Ok(header)
}

/// The frames' plaintexts: at least one, so that an empty object has a last frame too.
pub fn frames_of(plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty: Option<&[u8]> = plain.is_empty().then_some(&[]);
    empty.into_iter().chain(plain.chunks(FRAME_PLAIN_BYTES))
}

/// Seals an archive object: the body under the key of `class`, the trailer under the meta key.
///
/// # Errors
/// When a frame would be too long, which callers rule out.
pub fn seal_archive(
    keys: &Keys,
    class: KeyClass,
    name: &Key,
    digest: Digest,
    body: &[Payload],
    trailer: &[u8],
    random: &SharedRandom,
) -> Result<Bytes, RepoError> {
    let mut object = Sealing::begin(keys, Kind::Archive, class, name, digest, random)?;
    object.body(body)?;
    object.trailer(keys, trailer, body.len())?;
    Ok(Bytes::from(object.out))
}

/// Few trailers are longer.
const TRAILER_BYTES_USUAL: usize = 16 << 10;

/// An object being put together.
struct Sealing<'a> {
    name: &'a Key,
    header: Header,
    cipher: frame::FrameCipher,
    out: Vec<u8>,
}

impl<'a> Sealing<'a> {
    fn begin(
        keys: &Keys,
        kind: Kind,
        class: KeyClass,
        name: &'a Key,
        digest: Digest,
        random: &SharedRandom,
    ) -> Result<Self, RepoError> {
        let (sealing, cipher) = keys
            .begin(class, kind, name.as_str(), random)
            .map_err(|error| RepoError::format(name, error))?;
        let header = Header { kind, sealing, digest };
        let mut out = Vec::new();
        header.encode(&mut out);
        Ok(Self { name, header, cipher, out })
    }

    fn body(&mut self, payloads: &[Payload]) -> Result<(), RepoError> {
        // Memory that grows step by step is given to us page by page more than once.
        let frames: usize = payloads.iter().map(Payload::framed_len).sum();
        self.out.reserve(frames + TRAILER_BYTES_USUAL);
        for (number, payload) in payloads.iter().enumerate() {
            let last = if number + 1 == payloads.len() { Last::Yes } else { Last::No };
            let place = Place::body(wide(number), last);
            self.cipher
                .seal(&mut self.out, place, payload.codec, payload.plain_len, &payload.bytes)
                .map_err(|error| RepoError::format(self.name, error))?;
        }
        Ok(())
    }

    fn trailer(&mut self, keys: &Keys, plain: &[u8], frames: usize) -> Result<(), RepoError> {
        let header = &self.header;
        append_trailer(keys, header, self.name, plain, frames, &mut self.out)
    }
}

/// Appends the trailer's frame, sealed under the meta key, and the tail.
pub(crate) fn append_trailer(
    keys: &Keys,
    header: &Header,
    name: &Key,
    plain: &[u8],
    body_frames: usize,
    out: &mut Vec<u8>,
) -> Result<(), RepoError> {
    let fail = |error| RepoError::format(name, error);
    let cipher =
        keys.cipher(&header.sealing, KeyClass::Meta, header.kind, name.as_str()).map_err(fail)?;
    let payload = Payload::compress(plain, Level::default());
    let start = out.len();
    cipher
        .seal(out, Place::trailer(), payload.codec, payload.plain_len, &payload.bytes)
        .map_err(fail)?;
    let count = |len: usize, what| {
        u32::try_from(len).map_err(|_| {
            fail(FormatError::TooLarge { what, limit: u32::MAX.into(), found: wide(len) })
        })
    };
    let trailer_len = count(out.len() - start, "trailer length")?;
    Tail { trailer_len, body_frames: count(body_frames, "body frames")? }.encode(out);
    Ok(())
}

/// Reads the clear header at the front of an object and checks its kind.
///
/// # Errors
/// When it is malformed, newer or of another kind.
pub fn read_header(name: &Key, kind: Kind, front: &[u8]) -> Result<Header, RepoError> {
    let header =
        Header::decode(&mut Reader::new(front)).map_err(|error| RepoError::format(name, error))?;
    if header.kind == kind {
        return Ok(header);
    }
    Err(RepoError::format(
        name,
        FormatError::Unexpected {
            what: "object kind",
            expected: format!("{kind:?}"),
            found: format!("{:?}", header.kind),
        },
    ))
}

/// Opens a blob and gives its plaintext, of at most `limit_bytes`.
///
/// # Errors
/// When the object is not whole, not authentic, of another kind or too long.
pub fn open_blob(
    keys: &Keys,
    kind: Kind,
    name: &Key,
    object: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, RepoError> {
    let header = read_header(name, kind, object)?;
    let mut plain = Vec::new();
    open_body(keys, &header, name, object, Part::UntilEnd, |part| {
        if plain.len() + part.len() > limit_bytes {
            return Err(FormatError::TooLarge {
                what: "the object's contents",
                limit: wide(limit_bytes),
                found: wide(plain.len() + part.len()),
            });
        }
        plain.extend_from_slice(part);
        Ok(())
    })?;
    check_digest(ids_of(keys, &header, name)?.digest(&plain), &header, name)?;
    Ok(plain)
}

/// Which bytes of an object are its body.
#[derive(Debug, Clone, Copy)]
enum Part {
    UntilEnd,
    Frames(u32),
}

/// Frames opened ahead of whoever takes them.
const FRAMES_AHEAD: usize = 2;

/// The frames of a body, opened one after the other.
struct Frames<'a> {
    name: &'a Key,
    cipher: frame::FrameCipher,
    reader: Reader<'a>,
    part: Part,
    number: u32,
    ended: bool,
    scratch: Vec<u8>,
}

impl<'a> Frames<'a> {
    fn of(
        keys: &Keys,
        header: &Header,
        name: &'a Key,
        object: &'a [u8],
        part: Part,
    ) -> Result<Self, RepoError> {
        let cipher = keys
            .cipher(&header.sealing, header.sealing.class, header.kind, name.as_str())
            .map_err(|error| RepoError::format(name, error))?;
        let start = usize::try_from(header.encoded_len()).unwrap_or(usize::MAX);
        let reader = Reader::new(object.get(start..).unwrap_or_default());
        Ok(Self { name, cipher, reader, part, number: 0, ended: false, scratch: Vec::new() })
    }

    /// Opens the next frame into `plain` (cleared first); `false` after the last one.
    fn next(&mut self, plain: &mut Vec<u8>) -> Result<bool, RepoError> {
        if self.ended {
            return Ok(false);
        }
        self.open(plain).map_err(|error| RepoError::format(self.name, error))?;
        Ok(true)
    }

    fn for_each(
        mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), FormatError>,
    ) -> Result<(), RepoError> {
        let mut plain = Vec::new();
        while self.next(&mut plain)? {
            each(&plain).map_err(|error| RepoError::format(self.name, error))?;
        }
        Ok(())
    }

    /// As [`for_each`](Self::for_each), with the frames opened on a thread of their own: decrypting
    /// and inflating a segment costs about as much as hashing and writing it. Where the system
    /// gives no thread, it is done here.
    fn for_each_ahead(
        mut self,
        thread: std::thread::Builder,
        mut each: impl FnMut(&[u8]) -> Result<(), FormatError>,
    ) -> Result<(), RepoError> {
        let name = self.name;
        let (filled, fill) = mpsc::sync_channel::<Vec<u8>>(FRAMES_AHEAD);
        let (emptied, empty) = mpsc::channel::<Vec<u8>>();
        let frames = &mut self;
        let done = std::thread::scope(|scope| {
            let open_all = move || -> Result<(), RepoError> {
                let mut plain = Vec::new();
                // Nobody takes frames any more once one was refused, and that is told there.
                while frames.next(&mut plain)? && filled.send(plain).is_ok() {
                    plain = empty.try_recv().unwrap_or_default();
                }
                Ok(())
            };
            let opening = thread.spawn_scoped(scope, open_all).ok()?;
            let taken = fill.into_iter().try_for_each(|plain| {
                each(&plain)?;
                let _ = emptied.send(plain);
                Ok(())
            });
            let opened = opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Some(taken.map_err(|error| RepoError::format(name, error)).and(opened))
        });
        done.unwrap_or_else(|| self.for_each(each))
    }

    fn open(&mut self, plain: &mut Vec<u8>) -> Result<(), FormatError> {
        let sealed = frame::take(&mut self.reader)?;
        self.ended = match self.part {
            Part::UntilEnd => self.reader.is_empty(),
            Part::Frames(count) => self.number + 1 == count,
        };
        let last = if self.ended { Last::Yes } else { Last::No };
        let place = Place::body(self.number.into(), last);
        let opened = self.cipher.open(place, sealed, &mut self.scratch)?;
        self.number += 1;
        codec::inflate(&opened, plain)
    }
}

fn open_body(
    keys: &Keys,
    header: &Header,
    name: &Key,
    object: &[u8],
    part: Part,
    each: impl FnMut(&[u8]) -> Result<(), FormatError>,
) -> Result<(), RepoError> {
    Frames::of(keys, header, name, object, part)?.for_each(each)
}

fn ids_of<'a>(keys: &'a Keys, header: &Header, name: &Key) -> Result<&'a IdKeys, RepoError> {
    keys.ids_of(header.sealing.id_generation).map_err(|error| RepoError::format(name, error))
}

fn check_digest(found: Digest, header: &Header, name: &Key) -> Result<(), RepoError> {
    if found == header.digest {
        return Ok(());
    }
    Err(RepoError::format(
        name,
        FormatError::Unexpected {
            what: "digest of the contents",
            expected: header.digest.to_string(),
            found: found.to_string(),
        },
    ))
}

/// How an object's contents are known to be what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By the seals of their frames: each is authentic, in its place, of this object, and of this
    /// chunk in packs.
    Seals,
    /// And by their keyed hash (SHA-256), which finds also what was wrong before it was sealed. It
    /// costs more than all else.
    Hash,
}

/// Opens an archive object as a whole and hands its plaintext out frame by frame, in order.
///
/// # Errors
/// When the object is not whole or not authentic. Bytes were handed out before that is known: the
/// caller must not let anybody see them until this has returned.
pub fn open_archive(
    keys: &Keys,
    name: &Key,
    object: &[u8],
    limit_bytes: u64,
    proof: Proof,
    mut each: impl FnMut(&[u8]),
) -> Result<(), RepoError> {
    let header = read_header(name, Kind::Archive, object)?;
    let tail = Tail::decode(object).map_err(|error| RepoError::format(name, error))?;
    let mut digester = match proof {
        Proof::Seals => None,
        Proof::Hash => Some(ids_of(keys, &header, name)?.digester()),
    };
    let mut total = 0_u64;
    let frames = Frames::of(keys, &header, name, object, Part::Frames(tail.body_frames))?;
    let take = |part: &[u8]| {
        total += wide(part.len());
        if total > limit_bytes {
            return Err(FormatError::TooLarge {
                what: "the archived file",
                limit: limit_bytes,
                found: total,
            });
        }
        if let Some(digester) = &mut digester {
            digester.update(part);
        }
        each(part);
        Ok(())
    };
    match tail.body_frames {
        0 | 1 => frames.for_each(take)?,
        2.. => frames.for_each_ahead(std::thread::Builder::new(), take)?,
    }
    match digester {
        None => Ok(()),
        Some(digester) => check_digest(digester.finish(), &header, name),
    }
}

/// The trailer of an object, from bytes that end where the object does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrailerRead {
    /// The trailer's plaintext.
    Trailer(Vec<u8>),
    /// More bytes of the object's end are needed, this many in all.
    NeedMore(u64),
}

/// Opens an object's trailer with its header and its last bytes alone.
///
/// # Errors
/// When the tail or the trailer is damaged.
pub fn open_trailer(
    keys: &Keys,
    header: &Header,
    name: &Key,
    end_of_object: &[u8],
) -> Result<TrailerRead, RepoError> {
    let fail = |error| RepoError::format(name, error);
    let tail = Tail::decode(end_of_object).map_err(fail)?;
    if tail.trailer_len > frame::FRAME_BYTES_MAX {
        return Err(fail(FormatError::TooLarge {
            what: "trailer length",
            limit: frame::FRAME_BYTES_MAX.into(),
            found: tail.trailer_len.into(),
        }));
    }
    let framed = match tail.trailer_frame(end_of_object) {
        Ok(framed) => framed,
        Err(FormatError::Truncated { needed, .. }) => return Ok(TrailerRead::NeedMore(needed)),
        Err(error) => return Err(fail(error)),
    };
    let cipher =
        keys.cipher(&header.sealing, KeyClass::Meta, header.kind, name.as_str()).map_err(fail)?;
    let mut reader = Reader::new(framed);
    let sealed = frame::take(&mut reader).map_err(fail)?;
    reader.end("trailer").map_err(fail)?;
    let mut scratch = Vec::new();
    let opened = cipher.open(Place::trailer(), sealed, &mut scratch).map_err(fail)?;
    let mut plain = Vec::with_capacity(narrow(opened.plain_len));
    codec::inflate(&opened, &mut plain).map_err(fail)?;
    Ok(TrailerRead::Trailer(plain))
}

#[cfg(test)]
mod tests;
