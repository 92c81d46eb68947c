//! The main data of commits and aborts, which say when and as whom a transaction ended. The first
//! two bytes are the major and the record's info.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::record::{Record, RecordHeader};
use pgrecall_pgformat::resource_manager::ResourceManager;
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{Lsn, Major, TimelineId};

fuzz_target!(|bytes: &[u8]| {
    let [major, info, main_data @ ..] = bytes else { return };
    let major = Major::ALL[usize::from(*major) % Major::ALL.len()];
    let header = RecordHeader {
        total_len: 0,
        xid: 7,
        previous: Lsn(0),
        info: *info,
        resource_manager: ResourceManager::TRANSACTION,
        crc: 0,
    };
    let (lsn, end_lsn) = (Lsn(0x0100_0028), Lsn(0x0100_0100));
    let record = Record { lsn, end_lsn, timeline: TimelineId(1), major, header, bytes: &[] };
    let _ = TransactionEnd::decode(&record, main_data);
});
