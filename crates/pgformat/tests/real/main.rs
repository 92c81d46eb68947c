//! PostgreSQL itself is the judge: WAL, control files, pages, labels and histories of real servers,
//! read by this crate and by PostgreSQL's own programs, must come out the same.
//!
//! Which majors: `PGRECALL_TEST_MAJORS` (`14,15`, `all`; 17 unless set). Where the servers are:
//! `PGRECALL_TEST_SERVERS`, else `/var/lib/pgrecall-test` for root and `~/.cache/pgrecall-test` for
//! others, as `scripts/servers.sh` leaves them.

// The major under test is the first thing that a failure must tell.
#![allow(clippy::print_stdout)]

mod backup;
mod cluster;
mod files;
mod wal;
mod waldump;
mod workload;

use pgrecall_pgformat::Major;

/// Runs a test for each major asked for; names the major in a panic's output.
fn for_each_major(test: fn(Major)) {
    for major in cluster::majors() {
        println!("PostgreSQL {major}");
        test(major);
    }
}

#[test]
fn wal_reads_as_pg_waldump_reads_it() {
    for_each_major(wal::reads_as_pg_waldump);
}

#[test]
fn promotion_in_mid_segment() {
    for_each_major(wal::promotion_in_mid_segment);
}

#[test]
fn lost_end_of_a_record_is_overwritten() {
    for_each_major(wal::overwritten_record);
}

#[test]
fn control_file_reads_as_pg_controldata_reads_it() {
    for_each_major(files::control_file);
}

#[test]
fn pages_are_judged_as_pg_checksums_judges_them() {
    for_each_major(files::pages);
}

#[test]
fn base_backup_holds_what_the_judgement_keeps() {
    for_each_major(backup::same_files);
}

#[test]
fn labels_come_back_byte_for_byte() {
    for_each_major(backup::labels);
}
