//! Statements that make many kinds of WAL.

use pgrecall_pgformat::Major;

/// Tables with an index of each kind, filled, changed, vacuumed, truncated.
pub(crate) const TABLES: &str = "
create table t(id serial primary key, k int, v text, d text, j jsonb, p point, r int4range);
alter table t alter d set storage external;
create index t_hash on t using hash (v);
create index t_gin on t using gin (j);
create index t_gist on t using gist (r);
create index t_spgist on t using spgist (p);
create index t_brin on t using brin (k) with (pages_per_range = 4);
create unlogged table u(a int);
insert into u select generate_series(1, 100);
insert into t(k, v, d, j, p, r)
  select i, 'v' || i, repeat('d' || i, 5), jsonb_build_object('a', i, 'b', array[i, i % 7]),
         point(i % 50, i / 50), int4range(i, i + 10)
  from generate_series(1, 1500) i;
checkpoint;
update t set k = k + 1 where id % 3 = 0;
update t set d = repeat(md5(id::text), 400) where id % 200 = 0;
delete from t where id % 5 = 0;
vacuum t;
checkpoint;
insert into t(k, v) select i, 'w' || i from generate_series(1, 300) i;
begin; insert into t(k) values (1); savepoint a; insert into t(k) values (2);
rollback to a; insert into t(k) values (3); savepoint b; insert into t(k) values (4); commit;
begin; insert into t(k) values (5); rollback;
begin; select pg_current_xact_id(); commit;
create table small(a int); insert into small values (1); truncate small;
begin; truncate small; insert into small values (2); commit;
cluster t using t_pkey;
vacuum full t;
reindex table t;
create materialized view m as select count(*) from t; refresh materialized view m;
create table hot(id int primary key, v int) with (fillfactor = 50);
insert into hot select i, i from generate_series(1, 200) i;
update hot set v = v + 1; update hot set v = v + 1; update hot set v = v + 1;
select for_update.id from (select id from hot for update) for_update limit 1;
begin; select * from hot where id = 1 for share; commit;
copy t(k, v) from program 'seq -f \"%g,x\" 1 400' with (format csv);
select nextval('t_id_seq') from generate_series(1, 100);
drop table small;
";

/// Prepared transactions, ended both ways, with all that their records can carry.
pub(crate) const PREPARED: &str = "
create table m1(a int);
begin; insert into t(k) values (10); savepoint a; insert into t(k) values (11); release a;
create table prep1(a int); prepare transaction 'one';
begin; insert into t(k) values (12); drop table m1; savepoint x; insert into t(k) values (1);
prepare transaction 'two';
begin; insert into t(k) values (13); create table prep3(a int); prepare transaction 'three';
commit prepared 'one';
rollback prepared 'three';
commit prepared 'two';
";

/// Full-page images under each compression that the server was built with, FPIs for hints, large
/// messages.
pub(crate) fn images(methods: &[&str]) -> String {
    let mut sql = String::new();
    for method in methods {
        sql.push_str(&format!(
            "checkpoint; set wal_compression = {method};
             update t set k = k + 1; update hot set v = v + 1; select count(*) from t;\n"
        ));
    }
    sql.push_str(
        "set wal_compression = off; checkpoint; update t set k = k + 1 where id % 2 = 0;
         set wal_consistency_checking = 'all'; update hot set v = v + 1 where id < 20;
         insert into t(k, v) values (1, 'checked'); reset wal_consistency_checking;
         select pg_create_restore_point('before message');
         select pg_logical_emit_message(true, 'test', repeat('y', 100000));
         select pg_logical_emit_message(false, 'test', repeat('z', 20));
         select pg_logical_emit_message(false, 'test', repeat('z', 3500000));
         select pg_create_restore_point('after message');\n",
    );
    sql
}

/// Databases made in each way there is, and dropped.
pub(crate) fn databases(major: Major) -> String {
    let mut sql = "create database copied template template0;\n".to_owned();
    if major >= Major::V15 {
        sql.push_str("create database by_files template template0 strategy file_copy;\n");
        sql.push_str("drop database by_files;\n");
    }
    sql.push_str("drop database copied;\n");
    sql
}
