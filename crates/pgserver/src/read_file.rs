//! Files of the server's host over SQL, for hosts where nothing of ours runs.
//!
//! Paths are as PostgreSQL takes them: relative to the data directory, or absolute for roles that
//! may read any file (`pg_read_server_files`).

use pgrecall_pgformat::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use crate::archiver::with_micros;
use crate::error::ServerError;
use crate::server::{Server, column, only};

/// Most bytes of a file that one call reads: the server and we hold them in memory several times.
pub const READ_LEN_MAX_BYTES: u32 = 64 * 1024 * 1024;
/// Entries of a folder in one answer, at most.
const BATCH_LEN_MAX: u32 = 10_000;
/// `ERRCODE_UNDEFINED_FILE`.
const UNDEFINED_FILE: &str = "58P01";

/// What a name in a folder stands for; links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A file.
    File,
    /// A folder.
    Directory,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its name, without the folder.
    pub name: String,
    /// File or folder.
    pub file_type: FileType,
    /// Its size; of no meaning for a folder.
    pub size_bytes: u64,
    /// When it was last changed, in whole seconds.
    pub modified: Timestamp,
}

impl Server {
    /// One batch of a folder's entries, in byte order of their names, those after `after` only: an
    /// empty one is the end. Entries that vanish meanwhile are left out.
    pub async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ListedFile>, ServerError> {
        const ACT: &str = "list folders";
        let sql = with_micros(
            "SELECT entry.name, stat.isdir, stat.size, micros(stat.modification)
               FROM (SELECT name FROM pg_ls_dir($1, false, false) AS name
                      WHERE name COLLATE \"C\" > $2 ORDER BY name COLLATE \"C\" LIMIT $3) AS entry,
                    LATERAL pg_stat_file($1 || '/' || entry.name, true) AS stat
              WHERE stat.size IS NOT NULL
              ORDER BY entry.name COLLATE \"C\"",
        );
        let after = after.unwrap_or("");
        let limit = i64::from(limit.clamp(1, BATCH_LEN_MAX));
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&path, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.rows(ACT, &sql, &params, || self.files_grant()).await;
        let mut entries = Vec::new();
        for row in &rows.map_err(|error| not_there(error, path))? {
            let directory: bool = column(row, 1, ACT)?;
            let size: i64 = column(row, 2, ACT)?;
            entries.push(ListedFile {
                name: column(row, 0, ACT)?,
                file_type: if directory { FileType::Directory } else { FileType::File },
                size_bytes: size.try_into().map_err(|_| ServerError::Answer {
                    what: "size of a file",
                    found: size.to_string(),
                })?,
                modified: Timestamp::from_unix_micros(column(row, 3, ACT)?),
            });
        }
        Ok(entries)
    }

    /// Bytes of a file from `offset_bytes` on, fewer than `len_bytes` only at its end.
    pub async fn read_file(
        &self,
        path: &str,
        offset_bytes: u64,
        len_bytes: u32,
    ) -> Result<Vec<u8>, ServerError> {
        const ACT: &str = "read files";
        let offset = i64::try_from(offset_bytes).ok().filter(|_| len_bytes <= READ_LEN_MAX_BYTES);
        let offset = offset.ok_or_else(|| ServerError::Argument {
            what: "range of a file",
            problem: format!("{len_bytes} bytes at {offset_bytes}: at most {READ_LEN_MAX_BYTES}"),
        })?;
        let sql = "SELECT pg_read_binary_file($1, $2, $3, false)";
        let len = i64::from(len_bytes);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&path, Type::TEXT), (&offset, Type::INT8), (&len, Type::INT8)];
        let rows = self.rows(ACT, sql, &params, || self.files_grant()).await;
        only(&rows.map_err(|error| not_there(error, path))?, ACT)
    }

    fn files_grant(&self) -> String {
        let functions = [
            "pg_ls_dir(text, boolean, boolean)",
            "pg_stat_file(text, boolean)",
            "pg_read_binary_file(text, bigint, bigint, boolean)",
        ];
        let own = functions.map(|function| self.grant_function(function)).join(" ");
        format!("{own} {} (outside the data directory)", self.grant("pg_read_server_files"))
    }
}

fn not_there(error: ServerError, path: &str) -> ServerError {
    match error {
        ServerError::Refused { source, .. } if &*source.code == UNDEFINED_FILE => {
            ServerError::NoFile { path: path.to_owned(), source }
        }
        other => other,
    }
}
