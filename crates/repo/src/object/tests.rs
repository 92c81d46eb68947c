//! Tests of the envelope: objects open under their own name, kind and keys, and under no other.

use super::*;
use crate::format::document::DomainKeysDocument;
use crate::format::header::{KeyClass, Suite};
use crate::keys::first_domain_keys;

fn keys(suite: Suite, document: &DomainKeysDocument) -> Keys {
    Keys::of_domain(suite, &"main".parse().unwrap(), std::slice::from_ref(document), &[]).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

#[test]
fn blobs_open_under_their_name_and_kind_only() {
    let random = SharedRandom::system();
    let document = first_domain_keys(&random);
    for suite in [Suite::Clear, Suite::Aes256Gcm] {
        let keys = keys(suite, &document);
        for len in [0, 1, FRAME_PLAIN_BYTES, FRAME_PLAIN_BYTES + 1] {
            let plain: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let name = key("a/b");
            let (kind, class) = (Kind::Manifest, KeyClass::Meta);
            let object = seal_blob(&keys, kind, class, &name, &plain, &random).unwrap();
            let open =
                |name: &Key, kind, bytes: &[u8]| open_blob(&keys, kind, name, bytes, 4 << 20);
            assert_eq!(open(&name, kind, &object).unwrap(), plain);
            assert!(open(&key("a/c"), kind, &object).is_err());
            assert!(open(&name, Kind::Tombstone, &object).is_err());
            assert!(
                open_blob(&keys, kind, &name, &object, len.saturating_sub(1)).is_err() || len == 0
            );
            for cut in [0, 10, object.len() / 2, object.len() - 1] {
                assert!(open(&name, kind, &object[..cut]).is_err());
            }
            let mut longer = object.to_vec();
            longer.push(0);
            assert!(open(&name, kind, &longer).is_err());
        }
    }
}

#[test]
fn frames_open_also_where_the_system_gives_no_thread() {
    let random = SharedRandom::system();
    let keys = keys(Suite::Aes256Gcm, &first_domain_keys(&random));
    let name = key("a");
    let plain: Vec<u8> = (0..3 * FRAME_PLAIN_BYTES + 5).map(|n| (n % 251) as u8).collect();
    let object = seal_blob(&keys, Kind::Manifest, KeyClass::Meta, &name, &plain, &random).unwrap();
    let header = read_header(&name, Kind::Manifest, &object).unwrap();
    let opened = |thread: std::thread::Builder| {
        let frames = Frames::of(&keys, &header, &name, &object, Part::UntilEnd).unwrap();
        let mut opened = Vec::new();
        frames
            .for_each_ahead(thread, |part| {
                opened.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        opened
    };
    // No system has so much room for a stack.
    let none = std::thread::Builder::new().stack_size(1 << 56);
    assert!(opened(none) == plain);
    assert!(opened(std::thread::Builder::new()) == plain);
}

#[test]
fn a_whole_frame_cut_off_is_seen() {
    let random = SharedRandom::system();
    let keys = keys(Suite::Aes256Gcm, &first_domain_keys(&random));
    let name = key("a");
    let plain = vec![3; FRAME_PLAIN_BYTES + 5];
    let object = seal_blob(&keys, Kind::Manifest, KeyClass::Meta, &name, &plain, &random).unwrap();
    let header = read_header(&name, Kind::Manifest, &object).unwrap();
    let start = usize::try_from(header.encoded_len()).unwrap();
    let mut reader = Reader::new(&object[start..]);
    let first = frame::take(&mut reader).unwrap().len();
    let cut = &object[..start + frame::PREFIX_BYTES + first];
    assert!(open_blob(&keys, Kind::Manifest, &name, cut, 4 << 20).is_err());
}

#[test]
fn trailers_are_read_alone() {
    let random = SharedRandom::system();
    let keys = keys(Suite::Aes256Gcm, &first_domain_keys(&random));
    let name = key("wal/1");
    let plain = vec![5; 3 * FRAME_PLAIN_BYTES];
    let body: Vec<_> =
        frames_of(&plain).map(|part| Payload::compress(part, Level::default())).collect();
    let digest = keys.digest(&plain);
    let object =
        seal_archive(&keys, KeyClass::Data, &name, digest, &body, b"summary", &random).unwrap();
    let header = read_header(&name, Kind::Archive, &object).unwrap();
    let end = &object[object.len() - 20..];
    let TrailerRead::NeedMore(needed) = open_trailer(&keys, &header, &name, end).unwrap() else {
        panic!("20 bytes cannot hold the trailer");
    };
    let end = &object[object.len() - usize::try_from(needed).unwrap()..];
    let read = open_trailer(&keys, &header, &name, end).unwrap();
    assert_eq!(read, TrailerRead::Trailer(b"summary".to_vec()));
    let mut out = Vec::new();
    let limit = wide(plain.len());
    open_archive(&keys, &name, &object, limit, Proof::Hash, |part| {
        out.extend_from_slice(part);
    })
    .unwrap();
    assert_eq!(out, plain);
    assert!(open_archive(&keys, &name, &object, limit - 1, Proof::Hash, |_| ()).is_err());
}

#[test]
fn a_tail_that_counts_the_frames_wrong_is_seen() {
    let random = SharedRandom::system();
    let keys = keys(Suite::Clear, &first_domain_keys(&random));
    let name = key("wal/1");
    for frames in [1, 2] {
        let body = vec![Payload::stored(vec![]); frames];
        let digest = keys.digest(b"");
        let object =
            seal_archive(&keys, KeyClass::Data, &name, digest, &body, b"summary", &random).unwrap();
        let tail = Tail::decode(&object).unwrap();
        for counted in 0..4 {
            let mut object = object[..object.len() - 16].to_vec();
            Tail { body_frames: counted, ..tail }.encode(&mut object);
            let opened = open_archive(&keys, &name, &object, 9, Proof::Seals, |_| ());
            assert_eq!(opened.is_ok(), counted == tail.body_frames, "{counted} of {frames}");
        }
    }
}
