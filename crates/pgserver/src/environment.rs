//! libpq's environment variables, over a lookup so that nothing here reads the environment.

use std::time::Duration;

use crate::connect::{ChannelBinding, ConnectOptions, Host, Password, RootCertificates, TlsMode};
use crate::error::ServerError;

/// Variables that change whom we speak to or how safely, and that we cannot follow: ignoring them
/// would connect to another server, or less safely, than psql does in the same shell.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("PGSERVICE", "Use PGHOST, PGPORT, PGUSER and PGDATABASE, or the configuration."),
    ("PGHOSTADDR", "Use PGHOST with the address."),
    ("PGSSLCERT", "Client certificates are not supported: use a password or a Unix socket."),
    ("PGSSLCRL", "Revocation lists are not supported."),
    ("PGSSLCRLDIR", "Revocation lists are not supported."),
    ("PGREQUIREPEER", "Use a socket in a folder that only the server may write."),
];

impl ConnectOptions {
    /// Lays libpq's variables over these options. A variable that is empty counts as unset, as in
    /// libpq. `.pgpass` is [`crate::PassFile`].
    pub fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ServerError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        for (name, instead) in UNSUPPORTED {
            if set(name).is_some() {
                return Err(ServerError::UnsupportedOption { option: name.to_owned(), instead });
            }
        }
        if let Some(text) = set("PGHOST") {
            self.host = Host::parse(&text).map_err(|error| in_variable("PGHOST", error))?;
        }
        if let Some(text) = set("PGPORT") {
            self.port = text.trim().parse().map_err(|_| invalid("PGPORT", "is no port", &text))?;
        }
        if let Some(user) = set("PGUSER") {
            self.user = user;
        }
        if let Some(password) = set("PGPASSWORD") {
            self.password = Some(Password::new(password));
        }
        if let Some(database) = set("PGDATABASE") {
            self.database = database;
        }
        if let Some(text) = set("PGSSLMODE") {
            self.tls = TlsMode::parse(&text)?;
        }
        if let Some(path) = set("PGSSLROOTCERT") {
            self.root_certificates = Some(match path.as_str() {
                "system" => RootCertificates::System,
                _ => RootCertificates::File(path.into()),
            });
        }
        if let Some(text) = set("PGCHANNELBINDING") {
            self.channel_binding = match text.as_str() {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(invalid("PGCHANNELBINDING", "is no channel_binding", &text)),
            };
        }
        if let Some(text) = set("PGCONNECT_TIMEOUT") {
            let problem = || invalid("PGCONNECT_TIMEOUT", "is no number of seconds", &text);
            let secs: i64 = text.trim().parse().map_err(|_| problem())?;
            // 0 and less mean for ever in libpq, which nothing here may wait.
            if let Some(secs) = u64::try_from(secs).ok().filter(|secs| *secs > 0) {
                self.connect_timeout = Duration::from_secs(secs);
            }
        }
        Ok(self)
    }
}

impl TlsMode {
    /// Reads a value of `sslmode`.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            "allow" => Err(ServerError::UnsupportedOption {
                option: "sslmode=allow".to_owned(),
                instead: "Use prefer, which tries TLS first.",
            }),
            _ => Err(invalid("sslmode", "is no sslmode", text)),
        }
    }
}

fn invalid(option: &str, problem: &str, found: &str) -> ServerError {
    ServerError::Option { option: option.to_owned(), problem: format!("{found:?} {problem}") }
}

fn in_variable(name: &str, error: ServerError) -> ServerError {
    match error {
        ServerError::Option { problem, .. } => {
            ServerError::Option { option: name.to_owned(), problem }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn with(variables: &[(&str, &str)]) -> Result<ConnectOptions, ServerError> {
        let base = ConnectOptions::new(Host::Socket("/tmp".into()), 5432, "me");
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        base.with_environment(find)
    }

    #[test]
    fn variables_lie_over_the_options() {
        let options = with(&[
            ("PGHOST", "db"),
            ("PGPORT", "5433"),
            ("PGUSER", "backup"),
            ("PGPASSWORD", "secret"),
            ("PGDATABASE", "app"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/etc/root.crt"),
            ("PGCHANNELBINDING", "require"),
            ("PGCONNECT_TIMEOUT", "3"),
        ])
        .unwrap();
        let mut expected = ConnectOptions::new(Host::Tcp("db".to_owned()), 5433, "backup");
        expected.password = Some(Password::new("secret".to_owned()));
        expected.database = "app".to_owned();
        expected.tls = TlsMode::VerifyFull;
        expected.root_certificates = Some(RootCertificates::File("/etc/root.crt".into()));
        expected.channel_binding = ChannelBinding::Require;
        expected.connect_timeout = Duration::from_secs(3);
        assert_eq!(options, expected);
    }

    #[test]
    fn empty_means_unset() {
        let untouched = ConnectOptions::new(Host::Socket("/tmp".into()), 5432, "me");
        assert_eq!(with(&[("PGHOST", ""), ("PGSERVICE", ""), ("PGPORT", "")]).unwrap(), untouched);
        assert_eq!(with(&[("PGCONNECT_TIMEOUT", "0")]).unwrap(), untouched);
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for name in ["PGSERVICE", "PGHOSTADDR", "PGSSLCERT", "PGREQUIREPEER"] {
            let error = with(&[(name, "x")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
            assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
        }
        assert_eq!(with(&[("PGSSLMODE", "allow")]).unwrap_err().kind(), ErrorKind::Unsupported);
        for (name, value) in [
            ("PGHOST", "a,b"),
            ("PGPORT", "70000"),
            ("PGSSLMODE", "yes"),
            ("PGCHANNELBINDING", "x"),
            ("PGCONNECT_TIMEOUT", "soon"),
        ] {
            assert_eq!(with(&[(name, value)]).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }
}
