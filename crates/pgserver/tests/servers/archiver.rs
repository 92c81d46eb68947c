//! The archiver's record.

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::connect;

#[tokio::test]
async fn successes_and_failures_are_counted() {
    for major in majors() {
        let flag = "archiving_works";
        let options = ClusterOptions::new(major).archive_command(&format!("test -e {flag}"));
        let cluster = Cluster::create(options.wal_segment_size_mib(1));
        let server = connect(&cluster).await;
        let fresh = server.archiver_status().await.unwrap();
        assert_eq!((fresh.archived_count, fresh.last_archived), (0, None));
        assert!(fresh.stats_reset.is_some());
        cluster.psql("CREATE TABLE t (i int)");
        let closed = server.switch_wal().await.unwrap().closed_segment;
        let failed = "SELECT last_failed_wal IS NOT NULL FROM pg_stat_archiver";
        cluster.wait_until("archiving fails", || cluster.psql(failed) == "t");
        cluster.append_to(flag, "");
        cluster.reload();
        let archived = format!("SELECT last_archived_wal = '{closed}' FROM pg_stat_archiver");
        cluster.wait_until("it is archived", || cluster.psql(&archived) == "t");
        let status = server.archiver_status().await.unwrap();
        assert!(status.archived_count >= 1 && status.failed_count >= 1);
        let (done, failed) = (status.last_archived.unwrap(), status.last_failed.unwrap());
        assert_eq!(done.name, closed);
        assert!(failed.time <= done.time, "{failed:?} {done:?}");
        let since = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let now: i64 = cluster.psql(since).parse().unwrap();
        let age_micros = now - done.time.to_unix_micros();
        assert!((0..60_000_000).contains(&age_micros), "{age_micros}");
    }
}
