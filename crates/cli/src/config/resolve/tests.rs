//! Precedence, and which repository and cluster are meant.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Case {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, OsString>,
    flags: Vec<Flag>,
    cluster: ClusterNeed,
}

impl Case {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("pgrecall.toml"), text).expect("writing the file");
        Self {
            folder,
            variables: BTreeMap::new(),
            flags: Vec::new(),
            cluster: ClusterNeed::IfClear,
        }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), OsString::from(value));
        self
    }

    fn flag(mut self, path: &'static str, flag: &'static str, value: &str) -> Self {
        self.flags.push(Flag { path, flag, value: OsString::from(value) });
        self
    }

    fn need(mut self, cluster: ClusterNeed) -> Self {
        self.cluster = cluster;
        self
    }

    fn resolve_in(self, directory: &Path) -> Outcome<Resolved> {
        let request = Request {
            config: Some(self.folder.path().join("pgrecall.toml")),
            flags: self.flags,
            cluster: self.cluster,
        };
        let around = Surroundings {
            variables: self.variables,
            directory: directory.to_owned(),
            is_root: true,
            system_file: PathBuf::from(SYSTEM_FILE),
        };
        resolve(&request, &around)
    }

    fn resolve(self) -> Outcome<Resolved> {
        self.resolve_in(Path::new("/"))
    }

    fn error(self) -> String {
        match self.resolve() {
            Ok(_) => panic!("this configuration must be refused"),
            Err(failure) => format!("{failure} | {}", failure.hints.join(" ")),
        }
    }
}

/// Whoever names a data directory must not be served the cluster of the working directory.
#[test]
fn a_data_directory_that_no_cluster_has_is_refused() -> Outcome<()> {
    let both = "[[cluster]]\nname = \"a\"\npgdata = \"/srv/a\"\n\
                [[cluster]]\nname = \"b\"\npgdata = \"/srv/b\"\n";
    let one = "[[cluster]]\nname = \"a\"\npgdata = \"/srv/a\"\n";
    let open = "[[cluster]]\nname = \"a\"\n";
    let named = |text: &str, pgdata| {
        Case::new(text).need(ClusterNeed::One).flag("cluster.pgdata", "--pgdata", pgdata)
    };
    for text in [both, one] {
        let failure = named(text, "/srv/c").resolve_in(Path::new("/srv/a")).err();
        let said = failure.map(|failure| failure.to_string()).unwrap_or_default();
        assert!(said.contains("no [[cluster]] has the data directory /srv/c"), "{said}");
    }
    let found = named(both, "/srv/b").resolve_in(Path::new("/srv/a"))?;
    assert_eq!(shown(&found, "cluster.name").0, "b");
    let found = named(open, "/srv/c").resolve()?;
    assert_eq!(shown(&found, "cluster.name").0, "a");
    let found = named(one, "/srv/c").flag("cluster.name", "--cluster", "a").resolve()?;
    assert_eq!(shown(&found, "cluster.pgdata").0, "/srv/c");
    Ok(())
}

fn shown(resolved: &Resolved, path: &str) -> (String, Origin) {
    let item = resolved.items.iter().find(|item| item.setting.path() == path).expect("a setting");
    (item.value.as_ref().map(Value::show).unwrap_or_default(), item.origin.clone())
}

const TWO_CLUSTERS: &str = "[[cluster]]\nname = 'a'\npgdata = '/srv/a'\n\
                            [[cluster]]\nname = 'b'\npgdata = '/srv/b'\nport = 5433\n";

#[test]
fn flag_beats_environment_beats_file_beats_default() -> Outcome<()> {
    let file = "[backup]\nthreads = 2\n";
    let path = "backup.threads";
    let all = Case::new(file).variable("PGRECALL_BACKUP_THREADS", "3").flag(path, "--threads", "4");
    let found = shown(&all.resolve()?, path);
    assert_eq!(found, ("4".to_owned(), Origin::Flag("--threads")));
    let environment = Case::new(file).variable("PGRECALL_BACKUP_THREADS", "3").resolve()?;
    let variable = Origin::Variable("PGRECALL_BACKUP_THREADS".to_owned());
    assert_eq!(shown(&environment, path), ("3".to_owned(), variable));
    let (value, origin) = shown(&Case::new(file).resolve()?, path);
    assert_eq!(value, "2");
    assert!(matches!(origin, Origin::File { line: 2, .. }), "{origin:?}");
    let (value, origin) = shown(&Case::new("").resolve()?, "restore.memory_budget");
    assert_eq!((value.as_str(), origin), ("192MiB", Origin::Default));
    let (_, origin) = shown(&Case::new("").resolve()?, path);
    assert!(matches!(origin, Origin::Derived(_)));
    Ok(())
}

#[test]
fn the_usual_variables_of_libpq_count_and_pgdata_only_fills_a_gap() -> Outcome<()> {
    let case =
        || Case::new(TWO_CLUSTERS).variable("PGPORT", "6000").variable("PGDATA", "/srv/other");
    let resolved = case().flag("cluster.name", "--cluster", "b").resolve()?;
    assert_eq!(shown(&resolved, "cluster.port").0, "6000");
    assert_eq!(shown(&resolved, "cluster.pgdata").0, "/srv/b");
    let alone = Case::new("").variable("PGDATA", "/srv/other").resolve()?;
    assert_eq!(shown(&alone, "cluster.pgdata").1, Origin::Variable("PGDATA".to_owned()));
    Ok(())
}

#[test]
fn the_cluster_is_named_or_where_we_stand_or_the_only_one() -> Outcome<()> {
    let named = Case::new(TWO_CLUSTERS).variable("PGRECALL_CLUSTER", "b").resolve()?;
    assert_eq!(shown(&named, "cluster.port").0, "5433");
    let by_flag = Case::new(TWO_CLUSTERS).flag("cluster.pgdata", "--pgdata", "/srv/a").resolve()?;
    assert_eq!(shown(&by_flag, "cluster.name").0, "a");
    let here = Case::new(TWO_CLUSTERS).need(ClusterNeed::One).resolve_in(Path::new("/srv/b"))?;
    assert_eq!(shown(&here, "cluster.name").0, "b");
    let only = Case::new("[[cluster]]\nname = 'solo'\n").need(ClusterNeed::One).resolve()?;
    assert_eq!(shown(&only, "cluster.name").0, "solo");
    let unclear = Case::new(TWO_CLUSTERS).resolve()?;
    assert!(!unclear.cluster_known);
    let error = Case::new(TWO_CLUSTERS).need(ClusterNeed::One).error();
    assert!(error.contains("more than one cluster") && error.contains("a, b"), "{error}");
    let error = Case::new(TWO_CLUSTERS)
        .need(ClusterNeed::One)
        .flag("cluster.name", "--cluster", "c")
        .error();
    assert!(error.contains("no cluster is named \"c\"") && error.contains("a, b"), "{error}");
    assert!(Case::new("").need(ClusterNeed::One).error().contains("no cluster is named"));
    Ok(())
}

#[test]
fn the_working_directory_is_followed_through_links() -> Outcome<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    std::fs::create_dir(&real).expect("a folder");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let text = format!("{TWO_CLUSTERS}[[cluster]]\nname = 'c'\npgdata = '{}'\n", link.display());
    let resolved = Case::new(&text).need(ClusterNeed::One).resolve_in(&real)?;
    assert_eq!(shown(&resolved, "cluster.name").0, "c");
    Ok(())
}

const TWO_REPOSITORIES: &str = "[[repository]]\nname = 'near'\nurl = 'file:///b'\nid = 'n'\n\
                                [[repository]]\nname = 'far'\nurl = 's3://b'\nid = 'f'\n";

#[test]
fn several_repositories_need_a_name_or_a_url() -> Outcome<()> {
    let error = Case::new(TWO_REPOSITORIES).error();
    assert!(error.contains("more than one repository") && error.contains("near, far"), "{error}");
    let named = Case::new(TWO_REPOSITORIES).flag("repository.url", "--repo", "far").resolve()?;
    assert_eq!(shown(&named, "repository.id").0, "f");
    let (url, origin) = shown(&named, "repository.url");
    assert!(url == "s3://b" && matches!(origin, Origin::File { line: 7, .. }), "{url} {origin:?}");
    let by_url = Case::new(TWO_REPOSITORIES).variable("PGRECALL_REPO", "file:///b").resolve()?;
    assert_eq!(shown(&by_url, "repository.id").0, "n");
    let error = Case::new(TWO_REPOSITORIES).flag("repository.url", "--repo", "nera").error();
    assert!(error.contains("Did you mean \"near\"?"), "{error}");
    assert!(
        Case::new(TWO_REPOSITORIES).variable("PGRECALL_REPO", "s3://c").error().contains("far")
    );
    Ok(())
}

#[test]
fn another_way_to_the_only_repository_keeps_what_is_pinned() -> Outcome<()> {
    let file = "[[repository]]\nurl = 'file:///b'\nid = 'pinned'\n";
    let resolved = Case::new(file).flag("repository.url", "--repo", "file:///mnt/b").resolve()?;
    assert_eq!(shown(&resolved, "repository.url").0, "file:///mnt/b");
    assert_eq!(shown(&resolved, "repository.id").0, "pinned");
    Ok(())
}

/// A host with a file for all and one for its user, each where it is looked for.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, "").expect("writing the file");
        path
    }

    /// The variables name folders and files of this host.
    fn around(&self, variables: &[(&str, &str)]) -> Surroundings {
        let set = |(name, at): &(&str, &str)| ((*name).to_owned(), self.path(at).into());
        Surroundings {
            variables: variables.iter().map(set).collect(),
            directory: self.0.path().to_owned(),
            is_root: false,
            system_file: self.path("etc/pgrecall/pgrecall.toml"),
        }
    }
}

fn looked_for(around: &Surroundings, config: Option<&str>) -> (PathBuf, bool) {
    let request = Request {
        config: config.map(PathBuf::from),
        flags: Vec::new(),
        cluster: ClusterNeed::IfClear,
    };
    locate(&request, around).expect("a place for the file")
}

const XDG: (&str, &str) = ("XDG_CONFIG_HOME", "xdg");
const HOME: (&str, &str) = ("HOME", "home");

#[test]
fn the_first_file_that_is_named_or_exists_is_read() {
    let host = Host::new();
    let files = [
        host.write("home/.config/pgrecall/pgrecall.toml"),
        host.write("xdg/pgrecall/pgrecall.toml"),
        host.write("etc/pgrecall/pgrecall.toml"),
        host.write("variable.toml"),
        host.write("flag.toml"),
    ];
    let named = ("PGRECALL_CONFIG", "variable.toml");
    let there = |at: usize| (files[at].clone(), true);
    // Each wins over all that follow it.
    assert_eq!(looked_for(&host.around(&[named, XDG, HOME]), Some("flag.toml")), there(4));
    assert_eq!(looked_for(&host.around(&[named, XDG, HOME]), None), there(3));
    assert_eq!(looked_for(&host.around(&[XDG, HOME]), None), there(2));
    std::fs::remove_file(&files[2]).expect("removing");
    assert_eq!(looked_for(&host.around(&[XDG, HOME]), None), there(1));
    assert_eq!(looked_for(&host.around(&[HOME]), None), there(0));
    // Where XDG_CONFIG_HOME is set, ~/.config is not looked at.
    std::fs::remove_file(&files[1]).expect("removing");
    assert_eq!(looked_for(&host.around(&[XDG, HOME]), None), (files[1].clone(), false));
}

#[test]
fn where_no_file_is_roots_would_be_the_hosts_and_others_their_own() {
    let host = Host::new();
    let system = host.path("etc/pgrecall/pgrecall.toml");
    let own = host.path("home/.config/pgrecall/pgrecall.toml");
    let mut around = host.around(&[HOME]);
    assert_eq!(looked_for(&around, None), (own, false));
    around.is_root = true;
    assert_eq!(looked_for(&around, None), (system.clone(), false));
    // PostgreSQL's calls may have no HOME.
    assert_eq!(looked_for(&host.around(&[]), None), (system, false));
}

#[test]
fn a_file_that_cannot_be_looked_at_is_not_passed_over() {
    let host = Host::new();
    host.write("home/.config/pgrecall/pgrecall.toml");
    // A file where a folder should be: as with a folder that may not be entered, nobody can tell.
    host.write("etc/pgrecall");
    let system = host.path("etc/pgrecall/pgrecall.toml");
    assert_eq!(looked_for(&host.around(&[HOME]), None), (system, true));
}

#[test]
fn a_named_file_must_exist() {
    let request = Request {
        config: Some(PathBuf::from("/nonexistent/pgrecall.toml")),
        flags: Vec::new(),
        cluster: ClusterNeed::IfClear,
    };
    let around = Host::new().around(&[]);
    let error = resolve(&request, &around).err().map(|failure| failure.to_string());
    assert!(error.unwrap_or_default().contains("named by --config does not exist"));
}

#[test]
fn odd_variables_are_told_and_bad_ones_refused() -> Outcome<()> {
    let resolved = Case::new("").variable("PGRECALL_REPOSITORY_ULR", "x").resolve()?;
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].contains("PGRECALL_REPOSITORY_URL"), "{:?}", resolved.warnings);
    let error = Case::new("").variable("PGRECALL_WAL_PUSH_TIMEOUT", "30").error();
    assert!(
        error.contains("the variable PGRECALL_WAL_PUSH_TIMEOUT: \"30\" has no unit"),
        "{error}"
    );
    assert!(Case::new("").variable("PGDATA", "data").error().contains("is relative"));
    Ok(())
}

#[test]
fn secrets_in_a_file_that_everybody_reads_are_told() -> Outcome<()> {
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        let case = Case::new("[[repository]]\n[repository.s3]\nsecret_access_key = 'hush'\n");
        let path = case.folder.path().join("pgrecall.toml");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        let resolved = case.resolve()?;
        assert_eq!(resolved.warnings.len(), warnings);
        assert!(resolved.warnings.iter().all(|warning| !warning.contains("hush")));
        assert_eq!(shown(&resolved, "repository.s3.secret_access_key").0, "********");
    }
    Ok(())
}
