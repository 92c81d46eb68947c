//! A session on a server, and what is asked of it once at the start of an operation.

use std::path::PathBuf;

use pgrecall_pgformat::TimelineId;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::connect::{ConnectOptions, Session};
use crate::error::ServerError;
use crate::settings::{Rights, SETTING_NAMES, Settings};
use crate::version::ServerVersion;
use crate::wal::{RecoveryState, TIMELINE_SQL, parse_timeline};

/// Parameters of a statement with their types, so that it takes one round trip.
pub(crate) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A session on a server of a known major.
///
/// Its time-outs are off, its search path is `pg_catalog`, and it speaks ISO dates, UTC and UTF-8,
/// whatever the role or the database is set to.
#[derive(Debug)]
pub struct Server {
    session: Session,
    version: ServerVersion,
    address: String,
    user: String,
}

/// A tablespace of its own place, `pg_default` and `pg_global` apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name in SQL.
    pub name: String,
    /// Where it is; relative (`pg_tblspc/<oid>`) for one made in place.
    pub location: PathBuf,
}

/// What tells a running server from one that was started at another time or port: its
/// `postmaster.pid` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerInstance {
    /// The port that it listens at.
    pub port: u16,
    /// When it was started, seconds since 1970.
    pub started_unix_secs: i64,
}

/// What a server is and how it is set up.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Its version.
    pub version: ServerVersion,
    /// What tells clusters apart (`pg_control`).
    pub system_identifier: u64,
    /// Primary or standby.
    pub state: RecoveryState,
    /// The timeline it writes, or replays.
    pub timeline: TimelineId,
    /// Its settings.
    pub settings: Settings,
    /// Its tablespaces by oid.
    pub tablespaces: Vec<Tablespace>,
    /// The role of this session.
    pub role: String,
    /// What that role may do.
    pub rights: Rights,
}

impl Server {
    /// Connects, refuses unknown majors, and sets the session up.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ServerError> {
        let session = options.open().await?;
        let sql = "SELECT pg_catalog.current_setting('server_version_num')";
        let act = "ask for the version";
        let rows = session.client.query_typed(sql, &[]).await;
        let rows = rows.map_err(|error| ServerError::of_statement(error, act, String::new))?;
        let version = ServerVersion::parse(&only::<String>(&rows, act)?)?;
        let address = options.address();
        let server = Self { session, version, address, user: options.user.clone() };
        server.set_up().await?;
        Ok(server)
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Where it was found, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Reads all that an operation needs to know, in one round trip.
    pub async fn info(&self) -> Result<ServerInfo, ServerError> {
        const ACT: &str = "read all settings";
        let sql = format!(
            "SELECT pg_is_in_recovery(),
                    (SELECT system_identifier FROM pg_control_system()),
                    {TIMELINE_SQL},
                    (SELECT array_agg(name ORDER BY name) FROM pg_settings WHERE name = ANY ($1)),
                    (SELECT array_agg(setting ORDER BY name) FROM pg_settings WHERE name = ANY ($1)),
                    ARRAY(SELECT oid::int8 FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY oid),
                    ARRAY(SELECT spcname::text FROM pg_tablespace WHERE spcname !~ '^pg_'
                           ORDER BY oid),
                    ARRAY(SELECT pg_tablespace_location(oid) FROM pg_tablespace
                           WHERE spcname !~ '^pg_' ORDER BY oid),
                    current_user::text,
                    {}",
            Rights::sql(self.version)
        );
        let names: Vec<&str> = SETTING_NAMES.to_vec();
        let rows = self.rows(ACT, &sql, &[(&names, Type::TEXT_ARRAY)], String::new).await?;
        let row = first(&rows, ACT)?;
        let names: Vec<String> = column(row, 3, ACT)?;
        let values: Vec<Option<String>> = column(row, 4, ACT)?;
        let settings = names.into_iter().zip(values.into_iter().map(Option::unwrap_or_default));
        let grant = || self.grant("pg_read_all_settings");
        Ok(ServerInfo {
            version: self.version,
            system_identifier: column::<i64>(row, 1, ACT)?.cast_unsigned(),
            state: RecoveryState::of(column(row, 0, ACT)?),
            timeline: parse_timeline(column(row, 2, ACT)?)?,
            settings: Settings::from_rows(settings.collect(), self.version, grant)?,
            tablespaces: tablespaces(row, ACT)?,
            role: column(row, 8, ACT)?,
            rights: Rights::from_row(row, 9, ACT)?,
        })
    }

    /// Its tablespaces now, by oid.
    pub async fn tablespaces(&self) -> Result<Vec<Tablespace>, ServerError> {
        const ACT: &str = "list tablespaces";
        let sql = "SELECT oid::int8, spcname::text, pg_tablespace_location(oid)
                     FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY oid";
        let rows = self.rows(ACT, sql, &[], String::new).await?;
        rows.iter()
            .map(|row| {
                let (oid, name) = (column(row, 0, ACT)?, column(row, 1, ACT)?);
                tablespace(oid, name, column(row, 2, ACT)?)
            })
            .collect()
    }

    /// Which run of the server this is.
    pub async fn instance(&self) -> Result<ServerInstance, ServerError> {
        const ACT: &str = "ask when it was started";
        let sql = "SELECT current_setting('port')::int4,
                          floor(extract(epoch FROM pg_postmaster_start_time()))::int8";
        let rows = self.rows(ACT, sql, &[], String::new).await?;
        let row = first(&rows, ACT)?;
        let port: i32 = column(row, 0, ACT)?;
        let port = u16::try_from(port)
            .map_err(|_| ServerError::Answer { what: "port", found: port.to_string() })?;
        Ok(ServerInstance { port, started_unix_secs: column(row, 1, ACT)? })
    }

    /// The files that settings in force come from, as far as the role may see them.
    pub async fn settings_files(&self) -> Result<Vec<PathBuf>, ServerError> {
        const ACT: &str = "ask for its configuration files";
        let sql = "SELECT DISTINCT sourcefile FROM pg_settings
                    WHERE sourcefile IS NOT NULL ORDER BY 1";
        let rows = self.rows(ACT, sql, &[], String::new).await?;
        rows.iter().map(|row| column::<String>(row, 0, ACT).map(PathBuf::from)).collect()
    }

    /// Closes the session and waits until it has ended.
    pub async fn close(self) {
        let end = self.session.end();
        drop(self.session);
        end.await;
    }

    /// Resolves once the connection is gone. The future does not borrow the session.
    pub fn lost(&self) -> impl Future<Output = ServerError> + Send + 'static {
        let end = self.session.end();
        async move {
            let why = end.await;
            ServerError::ConnectionLost { act: "an idle session", source: Some(why.into()) }
        }
    }

    /// Asks for a sign of life.
    pub async fn ping(&self) -> Result<(), ServerError> {
        self.rows("ask for a sign of life", "SELECT 1", &[], String::new).await?;
        Ok(())
    }

    /// Runs a statement that does `act`; `grant` is the remedy if the role may not.
    pub(crate) async fn rows(
        &self,
        act: &'static str,
        sql: &str,
        params: Params<'_>,
        grant: impl FnOnce() -> String,
    ) -> Result<Vec<Row>, ServerError> {
        let result = self.session.client.query_typed(sql, params).await;
        result.map_err(|error| ServerError::of_statement(error, act, grant))
    }

    /// `GRANT what TO` this session's role.
    pub(crate) fn grant(&self, what: &str) -> String {
        format!("GRANT {what} TO \"{}\";", self.user.replace('"', "\"\""))
    }

    async fn set_up(&self) -> Result<(), ServerError> {
        let mut sql = "SET search_path = pg_catalog; SET datestyle = ISO; SET timezone = 'UTC'; \
                       SET client_encoding = 'UTF8'; SET statement_timeout = 0; \
                       SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                       SET idle_session_timeout = 0"
            .to_owned();
        if self.version.major().number() >= 17 {
            sql.push_str("; SET transaction_timeout = 0");
        }
        let act = "set the session up";
        let result = self.session.client.batch_execute(&sql).await;
        result.map_err(|error| ServerError::of_statement(error, act, String::new))
    }
}

fn tablespaces(row: &Row, act: &'static str) -> Result<Vec<Tablespace>, ServerError> {
    let oids: Vec<i64> = column(row, 5, act)?;
    let names: Vec<String> = column(row, 6, act)?;
    let locations: Vec<String> = column(row, 7, act)?;
    let entries = oids.into_iter().zip(names).zip(locations);
    entries.map(|((oid, name), location)| tablespace(oid, name, location)).collect()
}

fn tablespace(oid: i64, name: String, location: String) -> Result<Tablespace, ServerError> {
    let oid = u32::try_from(oid)
        .map_err(|_| ServerError::Answer { what: "oid of a tablespace", found: oid.to_string() })?;
    Ok(Tablespace { oid, name, location: location.into() })
}

/// The first row of an answer that always has one.
pub(crate) fn first<'a>(rows: &'a [Row], what: &'static str) -> Result<&'a Row, ServerError> {
    rows.first().ok_or_else(|| ServerError::Answer { what, found: "no row".to_owned() })
}

/// A column of a row.
pub(crate) fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    at: usize,
    what: &'static str,
) -> Result<T, ServerError> {
    row.try_get(at).map_err(|source| ServerError::Shape { what, source })
}

/// The only value of an answer.
pub(crate) fn only<'a, T: FromSql<'a>>(
    rows: &'a [Row],
    what: &'static str,
) -> Result<T, ServerError> {
    column(first(rows, what)?, 0, what)
}
