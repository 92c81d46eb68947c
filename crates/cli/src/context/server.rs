//! How the cluster's server is reached.

use std::path::{Path, PathBuf};

use pgrecall_pgserver::{
    ConnectOptions, Host, PassFile, Password, PostmasterFile, RootCertificates, TlsMode,
    pass_file_path,
};
use zeroize::Zeroizing;

use crate::config::settings::{Cluster, Primary, SECRETS_WITHIN, Server, Settings};
use crate::failure::{Failure, Kind, Outcome};

/// The options to connect to the cluster's server with: the settings and libpq's variables, else
/// what `postmaster.pid` in the data directory says.
///
/// # Errors
/// When the server cannot be found that way, an option cannot be, or the password cannot be had.
pub(crate) fn options(settings: &Settings) -> Outcome<ConnectOptions> {
    let cluster = settings.cluster()?;
    let server = &cluster.server;
    let postmaster = match (&server.host, server.port) {
        (Some(_), Some(_)) => None,
        _ => postmaster(cluster)?,
    };
    let host = match (&server.host, &postmaster) {
        (Some(host), _) => Host::parse(host)?,
        (None, Some(file)) => file.host()?,
        (None, None) => Host::Socket("/var/run/postgresql".into()),
    };
    let port = server.port.or(postmaster.map(|file| file.port)).unwrap_or(5432);
    complete(server, ConnectOptions::new(host, port, &user(server.user.as_deref())?))
}

/// The options to connect to the primary with, for a backup taken on a standby.
///
/// # Errors
/// As [`options`].
pub(crate) fn primary_options(settings: &Settings) -> Outcome<Option<ConnectOptions>> {
    let cluster = settings.cluster()?;
    let Some(Primary { host, port, user: role }) = &cluster.primary else { return Ok(None) };
    let role = user(role.as_deref())?;
    complete(&cluster.server, ConnectOptions::new(Host::parse(host)?, *port, &role)).map(Some)
}

fn postmaster(cluster: &Cluster) -> Outcome<Option<PostmasterFile>> {
    let Some(pgdata) = &cluster.pgdata else { return Ok(None) };
    let path = pgdata.join("postmaster.pid");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(PostmasterFile::parse(&text)?)),
        // Without a host, the server is the one of this data directory: another must not answer.
        Err(error) if cluster.server.host.is_none() => Err(not_running(pgdata, &error)),
        Err(_) => Ok(None),
    }
}

fn not_running(pgdata: &Path, error: &std::io::Error) -> Failure {
    let path = pgdata.join("postmaster.pid");
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(
            Kind::Unavailable,
            format!("no server runs on {}: it has no postmaster.pid", pgdata.display()),
        )
        .hint("Start it, or say where it is by host and port in [[cluster]], or by PGHOST and PGPORT."),
        _ => Failure::from_error(Kind::Denied, error)
            .during(format!("reading {}", path.display()))
            .hint("Run the command as the owner of the data directory."),
    }
}

/// What holds for every connection of this cluster.
fn complete(server: &Server, mut options: ConnectOptions) -> Outcome<ConnectOptions> {
    options.database.clone_from(&server.dbname);
    options.tls = TlsMode::parse(&server.sslmode)?;
    options.root_certificates = server.sslrootcert.as_deref().map(|path| match path.to_str() {
        Some("system") => RootCertificates::System,
        _ => RootCertificates::File(path.to_owned()),
    });
    // The settings cover these already, with precedence among flags, variables and the file.
    let covered = ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE"];
    let variable = |name: &str| {
        let other = !covered.contains(&name) && name != "PGSSLROOTCERT";
        other.then(|| std::env::var(name).ok()).flatten()
    };
    options = options.with_environment(variable)?;
    options.password = match &server.password {
        Some(source) => Some(Password::new(
            source.obtain("server's password", SECRETS_WITHIN)?.expose().to_owned(),
        )),
        None => from_pass_file(&options),
    };
    Ok(options)
}

/// From `.pgpass`, which libpq ignores when others than its owner may read it.
fn from_pass_file(options: &ConnectOptions) -> Option<Password> {
    use std::os::unix::fs::PermissionsExt as _;
    let path: PathBuf = pass_file_path(|name| std::env::var(name).ok())?;
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{} is ignored: others may read it; chmod 600 it", path.display());
        return None;
    }
    let text = Zeroizing::new(std::fs::read_to_string(&path).ok()?);
    PassFile::new(text.to_string()).password_for(options)
}

/// The role: what was asked for, else the operating system's user, as in libpq.
fn user(asked: Option<&str>) -> Outcome<String> {
    if let Some(name) = asked {
        return Ok(name.to_owned());
    }
    let uid = rustix::process::geteuid().as_raw();
    user_of_uid(uid).ok_or_else(|| {
        Failure::configuration(format!("the user with the number {uid} has no name"))
            .hint("Set user in [[cluster]], or PGUSER.")
    })
}

fn user_of_uid(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let from_file = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Users of a directory service are not in the file.
    from_file.or_else(|| {
        let output =
            std::process::Command::new("id").arg("-un").arg(uid.to_string()).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_of_uid(0).as_deref(), Some("root"));
        assert_eq!(user_of_uid(4_000_000_000), None);
    }
}
