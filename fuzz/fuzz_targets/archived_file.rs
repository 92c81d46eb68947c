//! An archived file as a whole object. Frames, trailer and tail are the input's, sealed under the
//! right key, so that what is inside of them is reached: a byte for the number of body frames that
//! the tail claims, then parts by zero bytes, the last of them the trailer.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::archive::trailer::Trailer;
use pgrecall_repo::format::bytes::Reader;
use pgrecall_repo::format::document::DomainKeysDocument;
use pgrecall_repo::format::header::{Header, KeyClass, Suite, Tail};
use pgrecall_repo::id::Digest;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::object::{self, Payload, Proof, TrailerRead};
use pgrecall_repo::random::SharedRandom;
use pgrecall_store::Key;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let hex = "07".repeat(32);
    let document = DomainKeysDocument {
        epoch: 0,
        id_generation: 0,
        id_key: hex.clone(),
        data_key: hex.clone(),
        meta_key: hex,
    };
    Keys::of_domain(Suite::Clear, &"main".parse().expect("a name"), &[document], &[]).expect("keys")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&claimed, rest)) = bytes.split_first() else { return };
    let name = Key::parse("clusters/c/1/timelines/00000002.history").expect("a name");
    let mut parts: Vec<&[u8]> = rest.split(|byte| *byte == 0).collect();
    let trailer = parts.pop().unwrap_or_default();
    let frames: Vec<_> = parts.iter().map(|part| Payload::stored(part.to_vec())).collect();
    let digest: Digest = KEYS.digest(&parts.concat());
    let random = SharedRandom::system();
    let sealed =
        object::seal_archive(&KEYS, KeyClass::Data, &name, digest, &frames, trailer, &random);
    let mut object = sealed.expect("short frames are sealed").to_vec();
    let Ok(tail) = Tail::decode(&object) else { return };
    object.truncate(object.len() - 16);
    Tail { body_frames: claimed.into(), ..tail }.encode(&mut object);
    let opened = object::open_archive(&KEYS, &name, &object, 1 << 20, Proof::Hash, |_| {});
    assert!(opened.is_err() || usize::from(claimed) == frames.len());
    let header = Header::decode(&mut Reader::new(&object)).expect("the header is right");
    if let Ok(TrailerRead::Trailer(plain)) = object::open_trailer(&KEYS, &header, &name, &object) {
        assert_eq!(plain, trailer);
        let _ = Trailer::decode(&name, &plain);
    }
    // And as they come.
    let _ = object::open_archive(&KEYS, &name, bytes, 1 << 20, Proof::Hash, |_| {});
});
