//! `backup_manifest` is only written; whatever the files are called, it is the JSON that
//! `pg_verifybackup` reads. Each line of the input is a path, its first byte a checksum's kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::Major;
use pgrecall_pgformat::backup_manifest::{
    FileChecksum, ManifestFile, ManifestHasher, ManifestWriter,
};

/// The manifest's own checksum is not looked at here.
struct NoHash;

impl ManifestHasher for NoHash {
    fn update(&mut self, _bytes: &[u8]) {}

    fn finish(self) -> [u8; 32] {
        [7; 32]
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut writer = ManifestWriter::new(String::new(), NoHash, Major::V17, u64::MAX)
        .expect("a text takes everything");
    let mut paths = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((&kind, path)) = line.split_first() else { continue };
        let checksum = match kind % 3 {
            0 => FileChecksum::None,
            1 => FileChecksum::Crc32c(u32::from(kind)),
            _ => FileChecksum::Sha256([kind; 32]),
        };
        let seconds = path.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        let file =
            ManifestFile { path, size_bytes: u64::MAX, modified_unix_secs: seconds, checksum };
        writer.add_file(&file).expect("a text takes everything");
        paths.push(path);
    }
    let text = writer.finish(&[]).expect("a text takes everything");
    let read: serde_json::Value = serde_json::from_str(&text).expect("a manifest is JSON");
    let files = read["Files"].as_array().expect("with a list of files");
    assert_eq!(files.len(), paths.len());
    for (file, path) in files.iter().zip(paths) {
        match std::str::from_utf8(path) {
            Ok(path) => assert_eq!(file["Path"], path),
            Err(_) => assert!(file["Encoded-Path"].is_string()),
        }
    }
});
