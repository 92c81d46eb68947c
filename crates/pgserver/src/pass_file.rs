//! libpq's password file, `.pgpass` (`passwordFromFile` in `fe-connect.c`).

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::connect::{ConnectOptions, Host, Password};

/// The text of a password file. No `Debug`; wiped when dropped.
pub struct PassFile(Zeroizing<String>);

/// The file to look in: `PGPASSFILE`, else `.pgpass` in `HOME`. Who reads it must leave it alone
/// when others than its owner may read it, as libpq does.
#[must_use]
pub fn pass_file_path(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    set("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".pgpass")))
}

impl PassFile {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password of the first line that fits: `host:port:database:user:password`, `*` for any,
    /// a backslash before a colon or backslash that is meant. Sockets go by `localhost` when they
    /// are in libpq's own folders, and by their folder.
    #[must_use]
    pub fn password_for(&self, options: &ConnectOptions) -> Option<Password> {
        let hosts: Vec<String> = match &options.host {
            Host::Tcp(host) => vec![host.clone()],
            Host::Socket(folder) => {
                let folder = folder.display().to_string();
                let usual = folder == "/tmp" || folder == "/var/run/postgresql";
                if usual { vec![folder, "localhost".to_owned()] } else { vec![folder] }
            }
        };
        let port = options.port.to_string();
        for line in self.0.lines().filter(|line| !line.starts_with('#')) {
            let Some((fields, password)) = split(line) else { continue };
            let [host, for_port, database, user] = &fields;
            let any_host = hosts.iter().any(|known| fits(host, known));
            if any_host
                && fits(for_port, &port)
                && fits(database, &options.database)
                && fits(user, &options.user)
                && !password.is_empty()
            {
                return Some(Password::new(password));
            }
        }
        None
    }
}

/// A field of a line: any, or this.
enum Field {
    Any,
    Exactly(String),
}

fn fits(field: &Field, value: &str) -> bool {
    match field {
        Field::Any => true,
        Field::Exactly(text) => text == value,
    }
}

/// The first four fields and the password.
fn split(line: &str) -> Option<([Field; 4], String)> {
    let mut rest = line.trim_end_matches('\r').chars();
    let mut next = |last: bool| {
        let (mut text, mut escaped_any, mut closed) = (String::new(), false, last);
        while let Some(character) = rest.next() {
            match character {
                '\\' => {
                    escaped_any = true;
                    text.extend(rest.next());
                }
                ':' if !last => {
                    closed = true;
                    break;
                }
                other => text.push(other),
            }
        }
        closed.then_some((text, escaped_any))
    };
    let mut field = || {
        let (text, escaped) = next(false)?;
        Some(if text == "*" && !escaped { Field::Any } else { Field::Exactly(text) })
    };
    let fields = [field()?, field()?, field()?, field()?];
    Some((fields, next(true)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, options: &ConnectOptions) -> Option<bool> {
        PassFile::new(file.to_owned())
            .password_for(options)
            .map(|password| password == Password::new("right".to_owned()))
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let options = ConnectOptions::new(Host::Tcp("db".to_owned()), 5432, "me");
        let cases = [
            ("db:5432:postgres:me:right", Some(true)),
            ("# comment\n*:*:*:other:wrong\r\n*:*:*:me:right\r\ndb:*:*:*:wrong", Some(true)),
            ("db:5433:postgres:me:wrong", None),
            ("db:5432:other:me:wrong", None),
            ("\\*:5432:postgres:me:wrong", None),
            ("db:5432:postgres:me", None),
            ("db:5432:postgres:me:", None),
            ("", None),
        ];
        for (file, expected) in cases {
            assert_eq!(found(file, &options), expected, "{file}");
        }
    }

    #[test]
    fn backslashes_and_colons_can_be_meant() {
        let mut options = ConnectOptions::new(Host::Tcp("::1".to_owned()), 5432, "me");
        assert_eq!(found(r"\:\:1:*:*:*:right", &options), Some(true));
        options.user = r"a\b".to_owned();
        assert_eq!(found(r"*:*:*:a\\b:ri\ght", &options), Some(true));
        let colons = PassFile::new("*:*:*:*:a:b".to_owned()).password_for(&options);
        assert!(colons == Some(Password::new("a:b".to_owned())));
    }

    #[test]
    fn sockets_go_by_folder_or_localhost() {
        let mut options = ConnectOptions::new(Host::Socket("/tmp".into()), 1, "me");
        assert_eq!(found("localhost:*:*:*:right", &options), Some(true));
        assert_eq!(found("/tmp:*:*:*:right", &options), Some(true));
        options.host = Host::Socket("/elsewhere".into());
        assert_eq!(found("localhost:*:*:*:right", &options), None);
    }

    #[test]
    fn the_file_is_named_or_at_home() {
        let at = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(pass_file_path(at), Some("/home/me/.pgpass".into()));
        let both = |name: &str| Some(format!("/{name}"));
        assert_eq!(pass_file_path(both), Some("/PGPASSFILE".into()));
        assert_eq!(pass_file_path(|_| None), None);
    }
}
