//! Records that go on in the next segment: the part at hand, and joining it with the rest.

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{FileKind, FormatError};
use crate::field::to_u64;
use crate::lsn::Lsn;
use crate::record::{Record, RecordHeader, record_checksum};
use crate::timeline::TimelineId;
use crate::version::Major;

/// Bytes, in JSON as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

impl std::ops::Deref for Base64Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The first part of a record that has not ended yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfinishedRecord {
    /// Where the record starts.
    pub lsn: Lsn,
    /// The length of the whole record, from its header.
    pub total_len: u32,
    /// Bytes of it that are there; `bytes` may hold fewer, if they were too many to keep.
    pub present_bytes: u32,
    /// The bytes, without page headers.
    pub bytes: Base64Bytes,
}

impl UnfinishedRecord {
    pub(crate) fn of(lsn: Lsn, total_len: u32, present: &[u8], bytes_max: usize) -> Self {
        Self {
            lsn,
            total_len,
            present_bytes: u32::try_from(present.len()).unwrap_or(u32::MAX),
            bytes: Base64Bytes(present.get(..bytes_max).unwrap_or(present).to_vec()),
        }
    }

    /// Whether all bytes that were there have been kept.
    #[must_use]
    pub fn is_kept_whole(&self) -> bool {
        to_u64(self.bytes.len()) == u64::from(self.present_bytes)
    }
}

/// The record that spans two segments (or more), put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanningRecord {
    lsn: Lsn,
    end_lsn: Lsn,
    timeline: TimelineId,
    major: Major,
    header: RecordHeader,
    bytes: Vec<u8>,
}

/// Where the second part of a spanning record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanningEnd {
    /// The position after the record.
    pub end_lsn: Lsn,
    /// The timeline of the page on which it ends.
    pub timeline: TimelineId,
    /// The major of the segment.
    pub major: Major,
}

impl SpanningRecord {
    /// Joins the end of one segment with the start of the next (for records longer than a segment,
    /// with the payload of all segments between, in order) and verifies the whole.
    ///
    /// # Errors
    /// Parts that have not been kept whole, that are too short or too long, or a wrong checksum.
    pub fn join(
        tail: &UnfinishedRecord,
        heads: &[&[u8]],
        end: SpanningEnd,
    ) -> Result<Self, FormatError> {
        let mut bytes = tail.bytes.to_vec();
        for head in heads {
            bytes.extend_from_slice(head);
        }
        let header = RecordHeader::decode(&bytes)
            .filter(|header| tail.is_kept_whole() && header.total_len == tail.total_len)
            .filter(|header| to_u64(bytes.len()) == u64::from(header.total_len))
            .ok_or(FormatError::Length {
                file: FileKind::WalRecord,
                expected: u64::from(tail.total_len),
                found: to_u64(bytes.len()),
            })?;
        let expected = record_checksum(&bytes).unwrap_or_default();
        if expected != header.crc {
            let found = header.crc;
            return Err(FormatError::RecordChecksum { lsn: tail.lsn, expected, found });
        }
        let SpanningEnd { end_lsn, timeline, major } = end;
        Ok(Self { lsn: tail.lsn, end_lsn, timeline, major, header, bytes })
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record {
            lsn: self.lsn,
            end_lsn: self.end_lsn,
            timeline: self.timeline,
            major: self.major,
            header: self.header,
            bytes: &self.bytes,
        }
    }
}
