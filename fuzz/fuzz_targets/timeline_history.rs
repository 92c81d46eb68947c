//! `<timeline>.history`; what was read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{Lsn, Major, TimelineId};

fuzz_target!(|bytes: &[u8]| {
    let timeline = TimelineId(9);
    let Ok(history) = History::parse(timeline, bytes) else { return };
    assert_eq!(
        History::parse(timeline, history.compose(Major::V19).as_bytes()).as_ref(),
        Ok(&history)
    );
    for switch in history.switches() {
        let _ = history.owner_of(switch.lsn);
        let path = history.path_from(switch.timeline, switch.lsn);
        assert!(path.is_none_or(|spans| !spans.is_empty()));
    }
    let _ = history.fork(TimelineId(10), Lsn::MAX, "again");
});
