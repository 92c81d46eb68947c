//! A file map; its extents lie within their chunks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::map::{FileMap, Source};

fuzz_target!(|bytes: &[u8]| {
    let Ok(map) = FileMap::decode(bytes) else { return };
    for extent in &map.extents {
        let Source::Chunk { chunk, offset } = extent.source else { continue };
        let chunk = &map.chunks[chunk as usize];
        assert!(u64::from(offset) + extent.len <= u64::from(chunk.plain_len));
        let _ = map.pages_of(chunk.plain_len);
    }
    let _ = map.len();
    assert_eq!(FileMap::decode(&map.encode()).as_ref(), Ok(&map));
});
