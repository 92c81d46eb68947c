//! Where a server is, and as whom it is spoken to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::config::{ChannelBinding as PgChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::error::{ServerError, ServerMessage, cause_of};
use crate::tls;

/// What the server sees us as in `pg_stat_activity`.
const APPLICATION_NAME: &str = "pgrecall";

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The folder of a Unix socket. TLS is not used there, as in libpq.
    Socket(PathBuf),
    /// A host name or address.
    Tcp(String),
}

impl Host {
    /// Tells them apart as libpq does: what starts with a slash is a folder. (libpq's abstract
    /// sockets, which start with `@`, are not supported.)
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let unsupported = |problem: &str| {
            Err(ServerError::Option { option: "host".to_owned(), problem: problem.to_owned() })
        };
        if text.is_empty() {
            return unsupported("it is empty");
        }
        if text.contains(',') {
            return unsupported("one host only: a backup speaks to one server");
        }
        if text.starts_with('@') {
            return unsupported("abstract sockets are not supported");
        }
        if text.starts_with('/') {
            Ok(Self::Socket(text.into()))
        } else {
            Ok(Self::Tcp(text.to_owned()))
        }
    }
}

/// `sslmode`, with libpq's meanings. Its `allow` does not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; protects from nobody who can change packets.
    Prefer,
    /// Always. The certificate is verified if root certificates are given, as in libpq, else not.
    Require,
    /// The certificate must chain to the root certificates.
    VerifyCa,
    /// And carry the host's name.
    VerifyFull,
}

/// Whom a server's certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificates {
    /// The PEM file of `sslrootcert`.
    File(PathBuf),
    /// The operating system's (`sslrootcert=system`).
    System,
}

/// `channel_binding`: whether the password exchange is tied to the TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If both sides can.
    Prefer,
    /// Always, or the connection is refused.
    Require,
}

/// A password. It has no `Debug`, is wiped when dropped, and leaves only through the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// When a silent TCP peer is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is dead.
    pub retries: u32,
}

impl Keepalives {
    /// Dead after about a minute, while a backup on the session is still cheap to start again.
    pub const USUAL: Self =
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), retries: 3 };
}

/// How to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Where.
    pub host: Host,
    /// The port, for a socket the number in its name.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password, if one is needed.
    pub password: Option<Password>,
    /// The database; any will do for backups.
    pub database: String,
    /// TLS, on TCP.
    pub tls: TlsMode,
    /// Trusted roots.
    pub root_certificates: Option<RootCertificates>,
    /// Channel binding.
    pub channel_binding: ChannelBinding,
    /// Time for a connection to come about, password exchange included.
    pub connect_timeout: Duration,
    /// TCP keepalives.
    pub keepalives: Keepalives,
}

impl ConnectOptions {
    /// Options with libpq's defaults (`sslmode=prefer`), database `postgres` and a timeout of 10 s.
    #[must_use]
    pub fn new(host: Host, port: u16, user: &str) -> Self {
        Self {
            host,
            port,
            user: user.to_owned(),
            password: None,
            database: "postgres".to_owned(),
            tls: TlsMode::Prefer,
            root_certificates: None,
            channel_binding: ChannelBinding::Prefer,
            connect_timeout: Duration::from_secs(10),
            keepalives: Keepalives::USUAL,
        }
    }

    /// For messages: the socket's path, or host and port.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.host {
            Host::Socket(folder) => {
                folder.join(format!(".s.PGSQL.{}", self.port)).display().to_string()
            }
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
        }
    }

    /// Opens a session. The connection is driven by a task of the running tokio runtime.
    pub(crate) async fn open(&self) -> Result<Session, ServerError> {
        let config = self.config()?;
        let connected = async {
            match &self.host {
                Host::Socket(_) => {
                    let (client, connection) =
                        config.connect(NoTls).await.map_err(|error| self.explain(error))?;
                    Ok(Session::drive(client, connection))
                }
                Host::Tcp(_) => {
                    let tls = tls::client_config(self.tls, self.root_certificates.as_ref())?;
                    let (client, connection) = config
                        .connect(MakeRustlsConnect::new(tls))
                        .await
                        .map_err(|error| self.explain(error))?;
                    Ok(Session::drive(client, connection))
                }
            }
        };
        // The client library's own time-out ends with the TCP handshake.
        match tokio::time::timeout(self.connect_timeout, connected).await {
            Ok(result) => result,
            Err(elapsed) => {
                Err(ServerError::Unreachable { address: self.address(), source: elapsed.into() })
            }
        }
    }

    fn config(&self) -> Result<Config, ServerError> {
        let mut config = Config::new();
        match &self.host {
            Host::Socket(folder) => {
                check_socket(folder)?;
                config.host_path(folder).ssl_mode(SslMode::Disable);
            }
            Host::Tcp(host) => {
                config.host(host).ssl_mode(match self.tls {
                    TlsMode::Disable => SslMode::Disable,
                    TlsMode::Prefer => SslMode::Prefer,
                    TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
                });
            }
        }
        config
            .port(self.port)
            .user(&self.user)
            .dbname(&self.database)
            .application_name(APPLICATION_NAME)
            .channel_binding(match self.channel_binding {
                ChannelBinding::Disable => PgChannelBinding::Disable,
                ChannelBinding::Prefer => PgChannelBinding::Prefer,
                ChannelBinding::Require => PgChannelBinding::Require,
            })
            .connect_timeout(self.connect_timeout)
            .keepalives(true)
            .keepalives_idle(self.keepalives.idle)
            .keepalives_interval(self.keepalives.interval)
            .keepalives_retries(self.keepalives.retries);
        if let Some(password) = &self.password {
            config.password(password.bytes());
        }
        Ok(config)
    }

    /// Sorts out why no session came about.
    fn explain(&self, error: tokio_postgres::Error) -> ServerError {
        let address = self.address();
        let Some(source) = ServerMessage::of(&error) else {
            return self.explain_client_error(error);
        };
        if source.code.starts_with("28") {
            let (user, source) = (self.user.clone(), Box::new(source));
            return ServerError::AuthenticationFailed { address, user, source };
        }
        if source.is(&SqlState::INVALID_CATALOG_NAME) {
            let database = self.database.clone();
            return ServerError::NoDatabase { address, database, source };
        }
        ServerError::NotAccepting { address, source }
    }

    fn explain_client_error(&self, error: tokio_postgres::Error) -> ServerError {
        let address = self.address();
        // The library keeps the kinds of its errors to itself; the first words tell them apart,
        // and a test holds them.
        let text = error.to_string();
        let source = cause_of(error);
        if text.starts_with("error performing TLS handshake") {
            return ServerError::Tls { address, source };
        }
        if text.starts_with("authentication error") || text.starts_with("invalid configuration") {
            let user = self.user.clone();
            return ServerError::AuthenticationFailed { address, user, source };
        }
        ServerError::Unreachable { address, source }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("address", &self.address())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "set"))
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("root_certificates", &self.root_certificates)
            .field("channel_binding", &self.channel_binding)
            .field("connect_timeout", &self.connect_timeout)
            .field("keepalives", &self.keepalives)
            .finish()
    }
}

/// An open session and the news of its end.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    ended: watch::Receiver<Option<String>>,
}

impl Session {
    fn drive<S, T>(client: Client, connection: tokio_postgres::Connection<S, T>) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
    {
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let why = match connection.await {
                Ok(()) => "the session was closed".to_owned(),
                Err(error) => match ServerMessage::of(&error) {
                    Some(message) => message.to_string(),
                    None => cause_of(error).to_string(),
                },
            };
            tracing::debug!(why, "session ended");
            // Nobody may be left to hear it.
            let _ = tell.send(Some(why));
        });
        Self { client, ended }
    }

    /// Resolves with the reason once the connection is gone; the receiver outlives the session.
    pub(crate) fn end(&self) -> impl Future<Output = String> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => "the runtime was shut down".to_owned(),
            }
        }
    }
}

/// `sun_path` has room for 107 bytes and a zero (unix(7)); the library would truncate or panic.
fn check_socket(folder: &Path) -> Result<(), ServerError> {
    let room_bytes = 107 - "/.s.PGSQL.65535".len();
    if folder.as_os_str().len() <= room_bytes {
        return Ok(());
    }
    Err(ServerError::Option {
        option: "host".to_owned(),
        problem: format!("a socket's folder has at most {room_bytes} bytes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!(Host::parse("/tmp").unwrap(), Host::Socket("/tmp".into()));
        assert_eq!(Host::parse("::1").unwrap(), Host::Tcp("::1".to_owned()));
        for bad in ["", "a,b", "@abstract"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_debug_show_no_password() {
        let mut options = ConnectOptions::new(Host::Tcp("::1".to_owned()), 5432, "u");
        options.password = Some(Password::new("hunter2".to_owned()));
        assert_eq!(options.address(), "[::1]:5432");
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter2") && shown.contains("set"), "{shown}");
        let local = ConnectOptions::new(Host::Socket("/tmp".into()), 5433, "u");
        assert_eq!(local.address(), "/tmp/.s.PGSQL.5433");
    }

    #[test]
    fn a_socket_folder_too_long_for_the_kernel_is_an_error() {
        let options =
            ConnectOptions::new(Host::Socket(format!("/{}", "x".repeat(92)).into()), 1, "u");
        assert!(options.config().is_err());
        let options =
            ConnectOptions::new(Host::Socket(format!("/{}", "x".repeat(91)).into()), 1, "u");
        assert!(options.config().is_ok());
    }
}
