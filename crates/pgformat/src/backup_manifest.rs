//! `backup_manifest`: the list of files that `pg_verifybackup` checks a directory against.
//!
//! The form is that of `src/backend/backup/backup_manifest.c`: version 1, from 17 on version 2,
//! which names the cluster. The last line carries a SHA-256 of all lines before it; the hash is the
//! caller's, through [`ManifestHasher`].

use std::fmt::{self, Write};

use data_encoding::HEXLOWER;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::Major;

/// SHA-256, from whoever has one.
pub trait ManifestHasher {
    /// Adds bytes.
    fn update(&mut self, bytes: &[u8]);
    /// The hash of all bytes added.
    fn finish(self) -> [u8; 32];
}

/// The checksum of a file in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChecksum {
    /// None: `pg_verifybackup` compares the size alone.
    None,
    /// CRC-32C.
    Crc32c(u32),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// A file of the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFile<'a> {
    /// Its path below the data directory, `/` between the parts; need not be UTF-8. Files of
    /// tablespaces are `pg_tblspc/<oid>/…`.
    pub path: &'a [u8],
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was last changed: seconds since 1970-01-01 UTC.
    pub modified_unix_secs: i64,
    /// Its checksum.
    pub checksum: FileChecksum,
}

/// WAL that the backup needs on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First position.
    pub start: Lsn,
    /// The position after the last byte.
    pub end: Lsn,
}

/// Writes a manifest file by file; nothing but the text of one file is held.
#[derive(Debug)]
pub struct ManifestWriter<W, H> {
    out: W,
    hasher: H,
    line: String,
    files: FileLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileLines {
    NoneYet,
    Some,
}

impl<W: Write, H: ManifestHasher> ManifestWriter<W, H> {
    /// Starts a manifest.
    ///
    /// # Errors
    /// The sink's own.
    pub fn new(
        out: W,
        hasher: H,
        major: Major,
        system_identifier: u64,
    ) -> Result<Self, fmt::Error> {
        let mut writer = Self { out, hasher, line: String::new(), files: FileLines::NoneYet };
        let version = if major >= Major::V17 { 2 } else { 1 };
        writeln!(writer.line, "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},")?;
        if major >= Major::V17 {
            writeln!(writer.line, "\"System-Identifier\": {system_identifier},")?;
        }
        writer.line.push_str("\"Files\": [");
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The sink's own.
    pub fn add_file(&mut self, file: &ManifestFile<'_>) -> fmt::Result {
        self.line.push_str(match self.files {
            FileLines::NoneYet => "\n",
            FileLines::Some => ",\n",
        });
        self.files = FileLines::Some;
        match std::str::from_utf8(file.path) {
            Ok(path) => {
                let json = serde_json::to_string(path).map_err(|_| fmt::Error)?;
                write!(self.line, "{{ \"Path\": {json}")?;
            }
            Err(_) => {
                write!(self.line, "{{ \"Encoded-Path\": \"{}\"", HEXLOWER.encode(file.path))?;
            }
        }
        let modified = UtcSeconds(file.modified_unix_secs);
        write!(self.line, ", \"Size\": {}, \"Last-Modified\": \"{modified}\"", file.size_bytes)?;
        let checksum = match file.checksum {
            FileChecksum::None => None,
            // pg_checksum_final writes the four bytes as they lie in memory.
            FileChecksum::Crc32c(crc) => Some(("CRC32C", HEXLOWER.encode(&crc.to_le_bytes()))),
            FileChecksum::Sha256(hash) => Some(("SHA256", HEXLOWER.encode(&hash))),
        };
        if let Some((algorithm, text)) = checksum {
            write!(self.line, ", \"Checksum-Algorithm\": \"{algorithm}\"")?;
            write!(self.line, ", \"Checksum\": \"{text}\"")?;
        }
        self.line.push_str(" }");
        self.flush()
    }

    /// Adds the WAL needed, oldest timeline last as PostgreSQL does or in any order, and the
    /// manifest's own checksum; gives the sink back.
    ///
    /// # Errors
    /// The sink's own.
    pub fn finish(mut self, ranges: &[WalRange]) -> Result<W, fmt::Error> {
        self.line.push_str("\n],\n\"WAL-Ranges\": [");
        for (index, WalRange { timeline, start, end }) in ranges.iter().enumerate() {
            self.line.push_str(if index == 0 { "\n" } else { ",\n" });
            write!(self.line, "{{ \"Timeline\": {}, \"Start-LSN\": \"{start}\", ", timeline.0)?;
            write!(self.line, "\"End-LSN\": \"{end}\" }}")?;
        }
        self.line.push_str("\n],\n");
        self.flush()?;
        let checksum = HEXLOWER.encode(&self.hasher.finish());
        writeln!(self.out, "\"Manifest-Checksum\": \"{checksum}\"}}")?;
        Ok(self.out)
    }

    fn flush(&mut self) -> fmt::Result {
        self.hasher.update(self.line.as_bytes());
        self.out.write_str(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

/// A moment as the manifest has it: `2026-11-22 14:03:07 GMT`.
struct UtcSeconds(i64);

impl fmt::Display for UtcSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_SECS: i64 = 86_400;
        let (days, secs) = (self.0.div_euclid(DAY_SECS), self.0.rem_euclid(DAY_SECS));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years begin in
/// March here, so that the leap day comes last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    // From 0000-03-01, the start of an era of 400 years.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leap_corrected =
        day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096;
    let year_of_era = leap_corrected / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{FileChecksum, ManifestFile, ManifestHasher, ManifestWriter, UtcSeconds, WalRange};
    use crate::lsn::Lsn;
    use crate::timeline::TimelineId;
    use crate::version::Major;

    struct Hasher(Sha256);

    impl ManifestHasher for Hasher {
        fn update(&mut self, bytes: &[u8]) {
            Digest::update(&mut self.0, bytes);
        }

        fn finish(self) -> [u8; 32] {
            self.0.finalize().into()
        }
    }

    fn compose(major: Major) -> String {
        let mut writer =
            ManifestWriter::new(String::new(), Hasher(Sha256::new()), major, 77).unwrap();
        for (path, checksum) in [
            (&b"base/1/2"[..], FileChecksum::None),
            (b"with \"quotes\"\n", FileChecksum::Crc32c(0x0102_0304)),
            (b"\xff", FileChecksum::Sha256([7; 32])),
        ] {
            let file =
                ManifestFile { path, size_bytes: 9, modified_unix_secs: 951_782_400, checksum };
            writer.add_file(&file).unwrap();
        }
        let range = WalRange { timeline: TimelineId(1), start: Lsn(0x28), end: Lsn(0x100) };
        writer.finish(&[range]).unwrap()
    }

    #[test]
    fn is_json_with_a_checksum_of_all_lines_but_the_last() {
        for (major, version) in [(Major::V16, 1), (Major::V18, 2)] {
            let text = compose(major);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["PostgreSQL-Backup-Manifest-Version"], version);
            assert_eq!(json.get("System-Identifier").is_some(), version == 2);
            assert_eq!(json["Files"][1]["Path"], "with \"quotes\"\n");
            assert_eq!(json["Files"][1]["Checksum"], "04030201");
            assert_eq!(json["Files"][2]["Encoded-Path"], "ff");
            assert_eq!(json["Files"][0]["Last-Modified"], "2000-02-29 00:00:00 GMT");
            assert_eq!(json["WAL-Ranges"][0]["End-LSN"], "0/100");
            let hashed = text.find("\"Manifest-Checksum\"").unwrap();
            let hash: [u8; 32] = Sha256::digest(&text.as_bytes()[..hashed]).into();
            let hash = data_encoding::HEXLOWER.encode(&hash);
            assert_eq!(json["Manifest-Checksum"], hash.as_str());
        }
    }

    #[test]
    fn dates_are_right() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 GMT"),
            (-1, "1969-12-31 23:59:59 GMT"),
            (1_795_356_187, "2026-11-22 14:03:07 GMT"),
            (4_107_542_400, "2100-03-01 00:00:00 GMT"),
            (4_107_542_399, "2100-02-28 23:59:59 GMT"),
        ] {
            assert_eq!(UtcSeconds(secs).to_string(), text);
        }
    }
}
