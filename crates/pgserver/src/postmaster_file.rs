//! `postmaster.pid`, which says where the server of a local data directory listens
//! (`utils/pidfile.h`).

use std::path::PathBuf;

use crate::connect::{ConnectOptions, Host};
use crate::error::ServerError;

/// What the file says. It may be left over from a crash: only a connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostmasterFile {
    /// The postmaster's process id; negative in a standalone backend's file.
    pub pid: i64,
    /// The data directory, as the server saw it.
    pub data_dir: PathBuf,
    /// When the postmaster was started, seconds since 1970.
    pub started_unix_secs: i64,
    /// The port.
    pub port: u16,
    /// The folder of its first Unix socket.
    pub socket_dir: Option<PathBuf>,
    /// The first TCP address it listens at, `*` for all.
    pub listen_address: Option<String>,
}

impl PostmasterFile {
    /// Reads its lines: pid, data directory, start time, port, socket folder, listen address, and
    /// two more that do not matter here. A file whose server is just starting lacks the later ones.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let line = |number: usize, what: &str| {
            lines.get(number - 1).copied().ok_or_else(|| ServerError::PostmasterFile {
                problem: format!("it ends before line {number} ({what})"),
            })
        };
        let wrong = |number: usize, what: &str, found: &str| ServerError::PostmasterFile {
            problem: format!("line {number} is no {what}: {found:?}"),
        };
        let pid = line(1, "process id")?;
        let started = line(3, "start time")?;
        let port = line(4, "port")?;
        let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            pid: pid.trim().parse().map_err(|_| wrong(1, "process id", pid))?,
            data_dir: line(2, "data directory")?.into(),
            started_unix_secs: started
                .trim()
                .parse()
                .map_err(|_| wrong(3, "start time", started))?,
            port: port.trim().parse().map_err(|_| wrong(4, "port", port))?,
            socket_dir: lines.get(4).and_then(|text| present(text)).map(PathBuf::from),
            listen_address: lines.get(5).and_then(|text| present(text)),
        })
    }

    /// Where to connect: the socket if there is one, else the TCP address, with the wildcards
    /// turned into this host's own addresses (as `pg_ctl` does).
    pub fn host(&self) -> Result<Host, ServerError> {
        if let Some(folder) = &self.socket_dir {
            return Ok(Host::Socket(folder.clone()));
        }
        let address = self.listen_address.as_deref().ok_or_else(|| {
            ServerError::PostmasterFile { problem: "the server listens nowhere yet".to_owned() }
        })?;
        Ok(Host::Tcp(match address {
            "*" => "localhost".to_owned(),
            "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" => "::1".to_owned(),
            other => other.to_owned(),
        }))
    }
}

impl ConnectOptions {
    /// The way to the server of a local data directory, by the text of its `postmaster.pid`.
    pub fn from_postmaster_pid(text: &str, user: &str) -> Result<Self, ServerError> {
        let file = PostmasterFile::parse(text)?;
        Ok(Self::new(file.host()?, file.port, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "4242\n/data\n1700000000\n5433\n/run/pg\nlocalhost\n  1  2\nready   \n";

    #[test]
    fn the_socket_comes_first() {
        let options = ConnectOptions::from_postmaster_pid(FILE, "me").unwrap();
        assert_eq!((options.host, options.port), (Host::Socket("/run/pg".into()), 5433));
        let file = PostmasterFile::parse(FILE).unwrap();
        assert_eq!((file.pid, file.data_dir), (4242, "/data".into()));
        assert_eq!(file.started_unix_secs, 1_700_000_000);
    }

    #[test]
    fn wildcards_become_this_host() {
        for (address, host) in
            [("*", "localhost"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")]
        {
            let text = FILE.replace("/run/pg", "").replace("localhost", address);
            let options = ConnectOptions::from_postmaster_pid(&text, "me").unwrap();
            assert_eq!(options.host, Host::Tcp(host.to_owned()));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let nowhere = FILE.replace("/run/pg", "").replace("localhost", "");
        for text in [
            "",
            "x\n",
            "1\n/d\n0\n",
            "1\n/d\n0\n99999\n/run\n\n",
            "1\n/d\nnow\n9\n/run\n\n",
            &nowhere,
        ] {
            assert!(ConnectOptions::from_postmaster_pid(text, "me").is_err(), "{text:?}");
        }
    }
}
