//! Whose the files are, and who may read them: a restore by root gives everything to the owner of
//! the place, and a cluster whose group may read stays so.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::fresh::fresh_copy;
use crate::site::{Run, Site, switch};

/// Everything below a folder, itself included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let meta = std::fs::symlink_metadata(&path).expect("metadata");
        if meta.is_dir() { found.extend(everything(&path)) } else { found.push(path) }
    }
    found
}

/// The program, as the user that runs the tests, who is root in CI.
fn as_ourselves(site: &Site, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
    command.arg("--config").arg(site.config()).args(words).current_dir("/");
    command
}

#[test]
fn a_cluster_with_group_access_comes_back_for_its_user_and_its_group() {
    for major in majors() {
        let site = Site::new();
        let options = ClusterOptions::new(major).archive_command(&site.archive_command());
        let primary = Cluster::create(options.initdb_arg("--allow-group-access"));
        primary.psql("CREATE TABLE t AS SELECT generate_series(1, 100) n");
        let pgdata = primary.data_dir().to_string_lossy().into_owned();
        let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint"];
        site.run(primary.data_dir(), &words).expect_code(0);
        site.wait_archived(&primary, &switch(&primary));

        let site = fresh_copy(&site, &[]);
        let dir = site.scratch().path().join("copy");
        let text = dir.to_string_lossy().into_owned();
        let words = ["restore", &text, "--as", "copy"];
        Run::of(as_ourselves(&site, &words)).expect_code(0);
        // The folder around it belongs to the server's user.
        let owner = std::fs::metadata(site.scratch().path()).expect("the folder");
        for path in everything(&dir) {
            let meta = std::fs::symlink_metadata(&path).expect("metadata");
            let shown = path.display();
            assert_eq!((meta.uid(), meta.gid()), (owner.uid(), owner.gid()), "{shown}");
            let mode = if meta.is_dir() { 0o750 } else { 0o640 };
            assert_eq!(meta.permissions().mode() & 0o777, mode, "{shown}");
        }
        let copy = CheckedCluster::adopt(major, &dir);
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SHOW data_directory_mode"), "0750");
        assert_eq!(copy.psql("SELECT count(*) FROM t"), "100");
    }
}
