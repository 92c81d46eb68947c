//! What is to be copied: the data directory's files, every tablespace's, and the configuration
//! files in force outside of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgserver::{Server, ServerError, ServerInfo};

use crate::backup::run::blocking;
use crate::backup::source::{Listing, LocalSource, OutsideFile, Source};
use crate::details::Tablespace;
use crate::error::{EngineError, ErrorKind};

/// The files, and where they are read.
pub struct Located {
    /// Reads them.
    pub source: Arc<dyn Source>,
    /// Lists them.
    pub listing: Listing,
    /// The server's tablespaces.
    pub tablespaces: Vec<Tablespace>,
}

/// Lists all files, and makes sure that no tablespace is missing: a link that does not resolve on
/// this host looks like one that was dropped.
///
/// # Errors
/// `Invalid` when a tablespace that the server has is not to be seen here.
pub async fn list(
    pgdata: &Path,
    control: &ControlFile,
    outside: Vec<OutsideFile>,
    server: &Server,
) -> Result<Located, EngineError> {
    let local = LocalSource::new(pgdata, control, outside);
    let within = local.version_directory().to_owned();
    let source: Arc<dyn Source> = Arc::new(local);
    let before = server.tablespaces().await?;
    let listing = {
        let source = source.clone();
        blocking(move || source.list()).await?
    };
    let oids: Vec<u32> = before.iter().map(|tablespace| tablespace.oid).collect();
    let lacking = listing.lacking_tablespaces(&oids, &within);
    if !lacking.is_empty() {
        // One that was dropped meanwhile is dropped by WAL replay too.
        let now = server.tablespaces().await?;
        if let Some(lost) = now.iter().find(|tablespace| lacking.contains(&tablespace.oid)) {
            return Err(missing(pgdata, lost, &within));
        }
    }
    let mut listing = listing;
    for tablespace in before.iter().filter(|tablespace| tablespace.location.is_relative()) {
        // CheckTablespaceDirectory (xlogrecovery.c).
        listing.notes.push(format!(
            "tablespace {} was made in place: PostgreSQL recovers a backup of it only with \
             allow_in_place_tablespaces = on",
            tablespace.name
        ));
    }
    let kept = before.iter().filter(|tablespace| !lacking.contains(&tablespace.oid));
    let tablespaces = kept
        .map(|t| Tablespace { oid: t.oid, location: t.location.display().to_string() })
        .collect();
    Ok(Located { source, listing, tablespaces })
}

fn missing(pgdata: &Path, lost: &pgrecall_pgserver::Tablespace, within: &str) -> EngineError {
    EngineError::refused(
        ErrorKind::Invalid,
        format!(
            "tablespace {} is not to be seen: the server has it at {}, and {}/pg_tblspc/{} leads \
             to no {within} here",
            lost.name,
            lost.location.display(),
            pgdata.display(),
            lost.oid
        ),
    )
    .hint(
        "Run the backup where the server runs; in a container, mount the tablespaces at the same \
         paths.",
    )
}

/// The configuration files in force outside of the data directory: the three that the server names,
/// and those that settings in force come from (`include_dir`).
///
/// # Errors
/// When the server cannot be asked.
pub async fn configuration_files(
    server: &Server,
    pgdata: &Path,
    info: &ServerInfo,
) -> Result<Vec<OutsideFile>, ServerError> {
    let settings = &info.settings;
    let mut files =
        vec![settings.config_file.clone(), settings.hba_file.clone(), settings.ident_file.clone()];
    files.extend(server.settings_files().await?);
    let roots = [pgdata, &settings.data_directory];
    Ok(outside(&files, &roots, settings.config_file.parent()))
}

/// A file in or below the folder of `postgresql.conf` keeps its place relative to that, so that
/// `include_dir` goes on to work; others go by their names.
fn outside(files: &[PathBuf], roots: &[&Path], folder: Option<&Path>) -> Vec<OutsideFile> {
    let mut all: Vec<OutsideFile> = Vec::new();
    for original in files {
        let inside = roots.iter().any(|root| original.starts_with(root));
        if !original.is_absolute() || inside {
            continue;
        }
        let relative = folder.and_then(|folder| original.strip_prefix(folder).ok());
        let Some(within) = relative.or(original.file_name().map(Path::new)) else { continue };
        let taken = all.iter().any(|file| file.original == *original || file.within == within);
        if !taken {
            all.push(OutsideFile { original: original.clone(), within: within.to_owned() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outside_keep_their_places_beside_postgresql_conf() {
        let files = [
            "/etc/postgresql/17/main/postgresql.conf",
            "/etc/postgresql/17/main/pg_hba.conf",
            "/srv/pg_ident.conf",
            "/etc/postgresql/17/main/conf.d/10.conf",
            "/etc/postgresql/17/main/postgresql.conf",
            "/data/postgresql.auto.conf",
        ]
        .map(PathBuf::from);
        let folder = Path::new("/etc/postgresql/17/main");
        let found = outside(&files, &[Path::new("/data")], Some(folder));
        let within: Vec<_> = found.iter().map(|file| file.within.to_str().unwrap()).collect();
        assert_eq!(within, ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/10.conf"]);
        assert_eq!(found[3].original, files[3]);
    }
}
