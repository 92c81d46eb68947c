//! What `/etc/passwd` and `/etc/group` say of a user: PostgreSQL's own environment is his, not that
//! of whoever calls.

use std::path::PathBuf;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    /// His further groups.
    pub(crate) groups: Vec<u32>,
}

/// Where commands are looked for when nobody says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Account {
    /// The user of that number; nothing if the host's own files do not know him.
    pub(crate) fn of(uid: u32) -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        Self::parse(uid, &read("/etc/passwd")?, &read("/etc/group").unwrap_or_default())
    }

    fn parse(uid: u32, passwd: &str, group: &str) -> Option<Self> {
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).is_some_and(|field| *field == uid.to_string()))?;
        let name = (*fields.first()?).to_owned();
        let groups = group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| {
                fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name))
            })
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .collect();
        Some(Self {
            gid: fields.get(3)?.parse().ok()?,
            home: PathBuf::from(fields.get(5)?),
            name,
            groups,
        })
    }

    /// The variables that tell a program whose it is.
    pub(crate) fn variables(&self) -> [(&'static str, std::ffi::OsString); 3] {
        [
            ("HOME", self.home.clone().into()),
            ("USER", self.name.clone().into()),
            ("LOGNAME", self.name.clone().into()),
        ]
    }
}

/// The environment of a service that runs as this process's user: PostgreSQL started by the system
/// has no more.
pub(crate) fn bare_environment() -> Vec<(&'static str, std::ffi::OsString)> {
    let mut variables = vec![("PATH", PATH.into())];
    match Account::of(rustix::process::geteuid().as_raw()) {
        Some(account) => variables.extend(account.variables()),
        None => variables.extend(std::env::var_os("HOME").map(|home| ("HOME", home))),
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_his_number_with_all_his_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:104:110::/var/lib/postgresql:/x\n";
        let group = "ssl-cert:x:109:www,postgres\npostgres:x:110:\nbackup:x:34:postgresql\n";
        let found = Account::parse(104, passwd, group);
        let expected = Account {
            name: "postgres".into(),
            gid: 110,
            home: "/var/lib/postgresql".into(),
            groups: vec![109],
        };
        assert_eq!(found, Some(expected));
        assert_eq!(Account::parse(10, passwd, group), None);
    }
}
