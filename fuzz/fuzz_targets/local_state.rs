//! What this program keeps on a host between two runs: the marker of a restore under way, when a
//! collection first saw each backup under way, and what was seen of a repository.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::collection::dead::Sightings;
use pgrecall_engine::restore::target_dir::Marker;
use pgrecall_engine::seen::{SeenBackup, SeenLog, SeenSegment};

fuzz_target!(|bytes: &[u8]| {
    if let Some(marker) = Marker::decode(bytes) {
        assert_eq!(Marker::decode(&marker.encode()), Some(marker));
    }
    if let Some(seen) = SeenBackup::decode(bytes) {
        assert_eq!(SeenBackup::decode(&seen.encode()), Some(seen));
    }
    if let Some(seen) = SeenSegment::decode(bytes) {
        assert_eq!(SeenSegment::decode(&seen.encode()), Some(seen));
    }
    if let Some(seen) = SeenLog::decode(bytes) {
        assert_eq!(SeenLog::decode(&seen.encode()), Some(seen));
    }
    let sightings = Sightings::decode(bytes).encode();
    assert_eq!(Sightings::decode(&sightings).encode(), sightings);
});
