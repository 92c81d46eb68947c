//! `init` and `key`: making a repository, joining it, and who can open it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::program::{Place, Run};

/// A folder with a data directory's control file, written by PostgreSQL 17.
struct Host {
    place: Place,
}

impl Host {
    fn new() -> Self {
        let place = Place::new("");
        let global = place.data().join("global");
        std::fs::create_dir(&global).expect("a global folder");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pg/17/pg_control");
        std::fs::copy(fixture, global.join("pg_control")).expect("copying pg_control");
        Self { place }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.config().with_file_name(name)
    }

    fn init(&self, repository: &Path, config: &str, more: &str) -> Run {
        let (config, data) = (self.file(config), self.place.data());
        self.place.run(&format!(
            "--config {} init --repo file://{} --cluster main --pgdata {} {more}",
            config.display(),
            repository.display(),
            data.display(),
        ))
    }

    fn run(&self, config: &str, line: &str) -> Run {
        self.place.run(&format!("--config {} {line}", self.file(config).display()))
    }
}

fn good(run: &Run) -> &Run {
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    run
}

#[test]
fn a_strict_umask_does_not_shut_the_servers_user_out() {
    let host = Host::new();
    let (config, data) = (host.file("deep/er/main.toml"), host.place.data());
    let line = format!(
        "--config {} init --repo file://{} --cluster main --pgdata {}",
        config.display(),
        host.file("repository").display(),
        data.display(),
    );
    good(&host.place.run_after("umask 077", &line));
    for (name, expected) in [
        ("deep", 0o755),
        ("deep/er", 0o755),
        ("deep/er/main.toml", 0o640),
        ("deep/er/main.key", 0o600),
    ] {
        let found = std::fs::metadata(host.file(name)).expect("made").permissions().mode() & 0o777;
        assert_eq!(found, expected, "{name}: {found:o}");
    }
}

#[test]
fn a_repository_is_made_with_a_key_a_configuration_and_plain_words() {
    let host = Host::new();
    let repository = host.file("repository");
    let run = host.init(&repository, "new/main.toml", "");
    let said = &good(&run).stdout;
    assert!(said.contains("archive_mode = on"), "{said}");
    let config = host.file("new/main.toml");
    let expected = format!("--config {} wal push %p'", config.display());
    assert!(said.contains("archive_command = '/") && said.contains(&expected), "{said}");
    assert!(said.contains("Without it nobody can restore"), "{said}");
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&host.file("new/main.key")), 0o600);
    assert_eq!(mode(&config), 0o640);
    assert!(repository.join("pgrecall.json").exists());
    assert!(repository.join("store/0000000000000000").exists(), "the probe left no record");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    assert!(text.contains("\nid = \"") && text.contains("\nkey_fingerprint = \""), "{text}");

    // Again it changes nothing.
    let key = std::fs::read(host.file("new/main.key")).expect("the key");
    let again = host.run("new/main.toml", "init");
    assert!(good(&again).stdout.contains("nothing to add"), "{}", again.stdout);
    assert_eq!(std::fs::read_to_string(&config).expect("the configuration"), text);
    assert_eq!(std::fs::read(host.file("new/main.key")).expect("the key"), key);
}

#[test]
fn an_existing_configuration_is_not_touched_but_told_what_it_lacks() {
    let host = Host::new();
    std::fs::write(host.file("mine.toml"), "# mine\n[backup]\nthreads = 1\n").expect("writing");
    let run = host.init(&host.file("repository"), "mine.toml", "");
    assert!(good(&run).stdout.contains("[[repository]]\nid = \""), "{}", run.stdout);
    assert!(run.stdout.contains("[[cluster]]\nname = \"main\"\npgdata = "), "{}", run.stdout);
    let text = std::fs::read_to_string(host.file("mine.toml")).expect("the configuration");
    assert_eq!(text, "# mine\n[backup]\nthreads = 1\n");
}

#[test]
fn a_folder_that_is_missing_above_or_a_directory_without_a_cluster_is_told() {
    let host = Host::new();
    let run = host.init(&host.file("not/mounted"), "a.toml", "");
    assert_eq!(run.code, 10, "{}", run.stderr);
    assert!(run.stderr.contains("Mount the disk"), "{}", run.stderr);
    assert!(!host.file("a.key").exists() && !host.file("a.toml").exists());
    std::fs::remove_file(host.place.data().join("global/pg_control")).expect("removing");
    let run = host.init(&host.file("repository"), "a.toml", "");
    assert_eq!(run.code, 10, "{}", run.stderr);
    assert!(run.stderr.contains("pg_control"), "{}", run.stderr);
    assert!(!host.file("repository").exists() && !host.file("a.key").exists());
}

#[test]
fn a_second_host_joins_by_a_key_or_a_passphrase_and_not_without() {
    let (first, second) = (Host::new(), Host::new());
    let repository = first.file("repository");
    good(&first.init(&repository, "a.toml", "--key-file a.key"));
    let run = second.init(&repository, "b.toml", "");
    assert_eq!(run.code, 16, "{}", run.stderr);
    assert!(run.stderr.contains("--unlock"), "{}", run.stderr);
    assert!(!second.file("main.key").exists() && !second.file("b.toml").exists());

    let key = first.place.data().join("a.key");
    good(&second.init(&repository, "b.toml", &format!("--unlock {}", key.display())));
    let listed = second.run("b.toml", "key list --json");
    assert_eq!(good(&listed).stdout.matches("\"id\"").count(), 2, "{}", listed.stdout);

    let third = Host::new();
    let secret = third.file("passphrase");
    std::fs::write(&secret, "correct horse battery staple\n").expect("writing");
    good(&second.run("b.toml", &format!("key add --new-passphrase-file {}", secret.display())));
    let line = format!(
        "--config {} init --repo file://{} --cluster main --pgdata {}",
        third.file("c.toml").display(),
        repository.display(),
        third.place.data().display(),
    );
    let wrong = third.place.run_with(&line, &[("PGRECALL_PASSPHRASE", "wrong horse battery")]);
    assert_eq!(wrong.code, 16, "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wrong horse"), "{}", wrong.stderr);
    let right = [("PGRECALL_PASSPHRASE", "correct horse battery staple")];
    good(&third.place.run_with(&line, &right));
    assert!(third.file("main.key").exists());
}

#[test]
fn keys_come_and_go_but_not_the_last_one_or_the_one_in_use() {
    let host = Host::new();
    good(&host.init(&host.file("repository"), "a.toml", ""));
    let more = host.file("more.key");
    let added = host.run("a.toml", &format!("key add --new-key-file {} --json", more.display()));
    let id = |text: &str| {
        let after = text.split_once("\"id\": \"").map(|(_, rest)| rest).unwrap_or_default();
        after.split('"').next().unwrap_or_default().to_owned()
    };
    let new = id(&good(&added).stdout);
    let again = host.run("a.toml", &format!("key add --new-key-file {}", more.display()));
    assert_eq!(again.code, 11, "{}", again.stderr);
    let used = host.run("a.toml", &format!("key remove {new} --yes --unlock {}", more.display()));
    assert_eq!(used.code, 17, "{}", used.stderr);
    let why = "it is the key that this very command opened the repository with: use another";
    assert!(used.stderr.contains(&new) && used.stderr.contains(why), "{}", used.stderr);
    let own = host.run("a.toml", "key list --json").stdout;
    let own = id(own.split_once("\"label\"").map_or("", |(first, _)| first));
    let alone = host.run("a.toml", &format!("key remove {own} --yes"));
    assert_eq!(alone.code, 17, "{}", alone.stderr);
    assert!(alone.stderr.contains(why), "{}", alone.stderr);
    let unasked = host.run("a.toml", &format!("key remove {new}"));
    assert_eq!(unasked.code, 2, "{}", unasked.stderr);
    assert!(unasked.stderr.contains("Give --yes if you are sure"), "{}", unasked.stderr);
    good(&host.run("a.toml", &format!("key remove {} --yes", &new[..6])));
    let gone = host.run("a.toml", &format!("key list --unlock {}", more.display()));
    assert_eq!(gone.code, 16, "{}", gone.stderr);
    let weak = host.file("weak");
    std::fs::write(&weak, "short\n").expect("writing");
    let run = host.run("a.toml", &format!("key add --new-passphrase-file {}", weak.display()));
    assert_eq!(run.code, 2, "{}", run.stderr);
    let rotated = host.run("a.toml", "key rotate --yes --json");
    assert!(good(&rotated).stdout.contains("\"epoch\": 1"), "{}", rotated.stdout);
}

#[test]
fn what_cannot_be_rotated_is_told_and_stays_as_it_was() {
    let host = Host::new();
    good(&host.init(&host.file("repository"), "a.toml", ""));
    for (line, code, words) in [
        ("key rotate --ids", 2, "this needs a confirmation, and there is no terminal"),
        (
            "key rotate --ids --yes --cluster nosuch",
            17,
            "domain nosuch: the repository at file:///",
        ),
        ("key rotate --ids --yes --unlock /nonexistent.key", 16, "/nonexistent.key"),
    ] {
        let run = host.run("a.toml", line);
        assert_eq!(run.code, code, "{line}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{line}: {}", run.stderr);
    }
    let epochs = std::fs::read_dir(host.file("repository").join("domains/main/keys"));
    assert_eq!(epochs.expect("the domain's keys").count(), 1, "an epoch was begun");

    let clear = Host::new();
    good(&clear.init(&clear.file("repository"), "a.toml", "--encryption none"));
    let run = clear.run("a.toml", "key rotate --ids --yes");
    assert_eq!(run.code, 17, "{}", run.stderr);
    assert!(
        run.stderr.contains("the repository is in the clear: it has no keys"),
        "{}",
        run.stderr
    );
}

#[test]
fn another_repository_in_the_place_of_the_pinned_one_is_refused() {
    let (host, other) = (Host::new(), Host::new());
    let repository = host.file("repository");
    good(&host.init(&repository, "a.toml", ""));
    good(&other.init(&other.file("repository"), "b.toml", ""));
    std::fs::rename(&repository, host.file("away")).expect("renaming");
    std::fs::rename(other.file("repository"), &repository).expect("renaming");
    let run = host.run("a.toml", "key list");
    assert_eq!(run.code, 17, "{}", run.stderr);
    assert!(run.stderr.contains("the configuration asks for"), "{}", run.stderr);
    std::fs::remove_dir_all(&repository).expect("removing");
    std::fs::create_dir(&repository).expect("an empty mount point");
    let run = host.run("a.toml", "key list");
    assert_eq!(run.code, 10, "{}", run.stderr);
    let run = host.run("a.toml", "init");
    assert_eq!(run.code, 10, "init made a second repository: {}", run.stdout);
}

#[test]
fn a_repository_in_the_clear_is_made_only_when_asked_for_and_loudly() {
    let host = Host::new();
    let run = host.init(&host.file("repository"), "a.toml", "--encryption none");
    assert!(good(&run).stdout.contains("NOT ENCRYPTED"), "{}", run.stdout);
    assert!(!host.file("main.key").exists());
    let text = std::fs::read_to_string(host.file("a.toml")).expect("the configuration");
    assert!(text.contains("\nencryption = \"none\"\n"), "{text}");
    let encrypted = host.init(&host.file("repository"), "b.toml", "");
    assert_eq!(encrypted.code, 17, "{}", encrypted.stderr);
}
