//! Unlogged and temporary relations: what is in them is not kept, and they are in nobody's way.

use std::path::{Path, PathBuf};

use pgrecall_testkit::postgres::{Cluster, majors};
use tokio_postgres::Client;

use crate::fresh::Restored;
use crate::ground::back_up;
use crate::site::{Site, switch};

/// A session with a temporary table and a cursor that has gone to disk.
async fn session(cluster: &Cluster) -> Client {
    let client = cluster.client().await;
    let sql = "SET work_mem = '64kB';
        CREATE TEMPORARY TABLE passing AS SELECT generate_series(1, 50000) n;
        CREATE INDEX passing_n ON passing (n);
        BEGIN;
        DECLARE held CURSOR WITH HOLD FOR SELECT repeat(md5(i::text), 10) FROM generate_series(1, 50000) i;
        COMMIT;
        CHECKPOINT";
    client.batch_execute(sql).await.expect("a session");
    client
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Files of temporary relations (`t3_16384`) and of sorts and cursors (`pgsql_tmp12.0`).
fn temporary(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = files(&data_dir.join("base"));
    found.retain(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        let of_a_backend = name
            .strip_prefix('t')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        of_a_backend || name.starts_with("pgsql_tmp")
    });
    found
}

#[test]
fn an_unlogged_table_comes_back_empty_and_usable_and_temporary_files_do_not() {
    for major in majors() {
        let site = Site::new();
        let cluster = site.primary(major);
        cluster.psql(
            "CREATE UNLOGGED TABLE fleeting AS SELECT i AS id, md5(i::text) AS v
           FROM generate_series(1, 20000) i;
         CREATE INDEX fleeting_id ON fleeting (id);
         CREATE TABLE kept AS SELECT generate_series(1, 1000) n",
        );
        let path = cluster.psql("SELECT pg_relation_filepath('fleeting')");
        let index = cluster.psql("SELECT pg_relation_filepath('fleeting_id')");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let open = runtime.block_on(session(&cluster));
        let there = temporary(cluster.data_dir());
        let named = |part: &str| there.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(named("/t") && named("pgsql_tmp"), "{there:?}");
        back_up(&site, &cluster);
        assert!(
            !runtime.block_on(open.query("SELECT FROM passing", &[])).expect("rows").is_empty()
        );
        drop(open);
        site.wait_archived(&cluster, &switch(&cluster));

        // Before a server has started on it and tidied up.
        let copy = Restored::written(&site, major, "copy", &["--to-latest"]);
        assert_eq!(temporary(copy.data_dir()), [] as [PathBuf; 0]);
        for path in [&path, &index] {
            let main = copy.data_dir().join(path);
            assert!(!main.exists(), "{}", main.display());
            assert!(copy.data_dir().join(format!("{path}_init")).exists(), "{path}_init");
        }
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT count(*) FROM kept"), "1000");
        assert_eq!(copy.psql("SELECT count(*) FROM fleeting"), "0");
        copy.psql("INSERT INTO fleeting SELECT i, 'new' FROM generate_series(1, 5000) i");
        let sought = "SET enable_seqscan = off; SELECT v FROM fleeting WHERE id = 4711";
        assert_eq!(copy.psql(sought), "new");
        let schemas =
            "SELECT count(*) FROM pg_class WHERE relname = 'passing' AND pg_relation_size(oid) > 0";
        assert_eq!(copy.psql(schemas), "0");
    }
}
