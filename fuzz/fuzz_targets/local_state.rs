//! What this program keeps on a host between two runs: the marker of a restore under way, and when
//! a collection first saw each backup under way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::collection::dead::Sightings;
use pgrecall_engine::restore::target_dir::Marker;

fuzz_target!(|bytes: &[u8]| {
    if let Some(marker) = Marker::decode(bytes) {
        assert_eq!(Marker::decode(&marker.encode()), Some(marker));
    }
    let sightings = Sightings::decode(bytes).encode();
    assert_eq!(Sightings::decode(&sightings).encode(), sightings);
});
