//! How a test cluster is made.

/// What `initdb` is told about data checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Every page carries one.
    On,
    /// None; on 18 they have to be turned off.
    Off,
}

/// Whether the server flushes its writes to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=off`: faster, and enough for every test that does not cut the machine's power.
    Off,
    /// As in production.
    On,
}

/// Where the server listens besides the socket in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere: no two clusters can clash.
    SocketOnly,
    /// On 127.0.0.1, at a port found free.
    Loopback,
}

/// What a cluster is made with.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The major version.
    pub major: u32,
    /// Page checksums.
    pub checksums: Checksums,
    /// Size of a WAL segment in MiB.
    pub wal_segment_size_mib: u32,
    /// More arguments of `initdb`.
    pub initdb_args: Vec<String>,
    /// Lines of `postgresql.conf`, after the defaults; names and unquoted values.
    pub settings: Vec<(String, String)>,
    /// Flushing.
    pub durability: Durability,
    /// TCP.
    pub listen: Listen,
}

impl ClusterOptions {
    /// A cluster with checksums, segments of 16 MiB, no fsync and no TCP.
    pub fn new(major: u32) -> Self {
        Self {
            major,
            checksums: Checksums::On,
            wal_segment_size_mib: 16,
            initdb_args: Vec::new(),
            settings: Vec::new(),
            durability: Durability::Off,
            listen: Listen::SocketOnly,
        }
    }

    /// Adds a line to `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds the lines that archive WAL through `command`.
    #[must_use]
    pub fn archive_command(self, command: &str) -> Self {
        self.setting("archive_mode", "on").setting("archive_command", command)
    }

    /// Sets the size of a WAL segment, in MiB.
    #[must_use]
    pub fn wal_segment_size_mib(mut self, size_mib: u32) -> Self {
        self.wal_segment_size_mib = size_mib;
        self
    }

    /// Sets page checksums.
    #[must_use]
    pub fn checksums(mut self, checksums: Checksums) -> Self {
        self.checksums = checksums;
        self
    }

    /// Sets where the server listens.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }

    /// Sets flushing.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds an argument of `initdb`.
    #[must_use]
    pub fn initdb_arg(mut self, arg: &str) -> Self {
        self.initdb_args.push(arg.to_owned());
        self
    }

    pub(super) fn initdb_command_args(&self) -> Vec<String> {
        let mut args: Vec<String> =
            ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
                .map(str::to_owned)
                .into();
        args.push(format!("--wal-segsize={}", self.wal_segment_size_mib));
        match self.checksums {
            Checksums::On => args.push("--data-checksums".to_owned()),
            Checksums::Off if self.major >= 18 => args.push("--no-data-checksums".to_owned()),
            Checksums::Off => {}
        }
        args.extend(self.initdb_args.iter().cloned());
        args
    }

    /// The text appended to `postgresql.conf`.
    pub(super) fn configuration(&self) -> String {
        let fsync = match self.durability {
            Durability::Off => "off",
            Durability::On => "on",
        };
        let defaults = [
            ("fsync", fsync),
            ("shared_buffers", "32MB"),
            ("max_connections", "60"),
            ("jit", "off"),
            // The commit log compares with pg_waldump and with the server's own commit times.
            ("track_commit_timestamp", "on"),
            ("wal_keep_size", "2GB"),
            ("max_wal_size", "1GB"),
            ("log_checkpoints", "on"),
            ("log_line_prefix", "%m [%p] %b "),
            ("log_timezone", "UTC"),
            ("timezone", "UTC"),
        ];
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text = String::from("\n# settings of the test\n");
        for (name, value) in defaults.into_iter().chain(own) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        text
    }
}
