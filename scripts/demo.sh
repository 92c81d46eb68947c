#!/usr/bin/env bash
# The main job, from nothing: makes a throwaway PostgreSQL 17, archives and backs it up, writes on, drops a table by
# mistake, loses the whole data directory, and gets every row back as it was just before the mistake. Prints each
# command before it runs it, and removes everything at the end.
#
#   scripts/demo.sh            on a Debian 12 with Rust, as root or as anybody else
#   PGRECALL=/usr/bin/pgrecall scripts/demo.sh      with a program that is built already
set -euo pipefail
cd "$(dirname "$0")/.."

# PostgreSQL refuses to run as root: the demonstration itself runs as an ordinary user.
if [ -z "${DEMO_STAGE:-}" ]; then
  scripts/need.sh cc:gcc setpriv:util-linux
  scripts/servers.sh 17
  home=$(scripts/servers.sh --where)
  if [ -z "${PGRECALL:-}" ]; then
    printf '\n== Building pgrecall (a few minutes the first time)\n'
    cargo build --locked --package pgrecall
    target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    PGRECALL=$target/debug/pgrecall
  fi
  # A place that any user can read, whatever the rights of the source folder are.
  stage=$(mktemp -d /var/tmp/pgrecall-demo.XXXXXX)
  trap 'rm -rf "$stage"' EXIT
  chmod 755 "$stage"
  install -m 755 "$PGRECALL" "$stage/pgrecall"
  install -m 755 "$0" "$stage/demo.sh"
  mkdir -m 700 "$stage/scratch"
  run=(env -i PATH="$stage:$home/postgresql-17/bin:/usr/bin:/bin" HOME="$stage/scratch" LANG=C.UTF-8 TERM="${TERM:-dumb}"
    DEMO_STAGE="$stage" "$stage/demo.sh")
  if [ "$(id -u)" = 0 ]; then
    user=nobody
    id postgres >/dev/null 2>&1 && user=postgres
    chown -R "$user" "$stage/scratch"
    setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups "${run[@]}"
  else
    "${run[@]}"
  fi
  exit
fi

cd "$HOME"
work=$HOME
export PGHOST=$work PGPORT=5499 PGDATABASE=postgres PGUSER=demo
export PGRECALL_CONFIG=$work/etc/pgrecall.toml

title() { printf '\n== %s\n' "$*"; }
# Shows a command, then runs it.
show() {
  printf '$ %s\n' "$*"
  "$@"
}
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
stop_servers() {
  local dir
  for dir in data restored; do
    [ -f "$work/$dir/postmaster.pid" ] && pg_ctl -D "$work/$dir" -m immediate stop >/dev/null 2>&1
  done
  return 0
}
trap stop_servers EXIT

title "A throwaway PostgreSQL 17"
initdb -D data --username demo --auth trust --data-checksums >/dev/null
cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
port = $PGPORT
fsync = on
shared_buffers = 32MB
CONF
echo "in $work/data"

title "A repository beside it, encrypted"
mkdir etc
show pgrecall init --repo "file://$work/repository" --cluster demo --pgdata "$work/data" | tee init.txt
# The lines that init has just told.
grep -E '^ *archive_(mode|command|timeout) =' init.txt >>data/postgresql.conf
pg_ctl -D data -l data.log -w start >/dev/null

title "Does archiving work? Then a first backup"
show pgrecall check
sql -c "CREATE TABLE accounts (id int PRIMARY KEY, owner text, cents bigint)" \
  -c "INSERT INTO accounts SELECT n, 'owner ' || n, n * 100 FROM generate_series(1, 50000) n"
show pgrecall backup --fast-checkpoint

title "Life goes on: more rows after the backup, into WAL only"
sql -c "INSERT INTO accounts SELECT n, 'late owner ' || n, n FROM generate_series(50001, 60000) n" \
  -c "UPDATE accounts SET cents = cents + 7 WHERE id % 10 = 0"
# What must come back, and the moment it was so.
sql -c "SELECT * FROM accounts ORDER BY id" >expected.txt
sleep 1.1
moment=$(sql -c "SELECT now()")
sleep 1.1
echo "accounts has $(wc -l <expected.txt) rows at $moment"

title "The mistake"
show psql -X -c "DELETE FROM accounts WHERE id <= 59000"
show psql -X -c "DROP TABLE accounts"
sql -c "CREATE TABLE unrelated AS SELECT 1 AS work_of_others"
show pgrecall backup --fast-checkpoint

title "And then the disk dies"
pg_ctl -D data -m fast -w stop >/dev/null
show rm -rf "$work/data"

title "What is there, and can that moment be reached?"
show pgrecall list
show pgrecall plan --to-time "$moment"

title "Bring it back as it was then, as a copy that never archives"
show pgrecall restore "$work/restored" --as copy --to-time "$moment" --action promote
pg_ctl -D restored -l restored.log -w -t 120 start >/dev/null
for _ in $(seq 600); do
  [ "$(sql -c 'SELECT pg_is_in_recovery()')" = f ] && break
  sleep 0.1
done

title "The rows"
sql -c "SELECT * FROM accounts ORDER BY id" >found.txt
show psql -X -c "SELECT count(*), sum(cents), max(owner) FROM accounts"
if ! cmp expected.txt found.txt; then
  echo "THE ROWS ARE NOT THOSE OF $moment" >&2
  exit 1
fi
if [ -n "$(sql -c "SELECT to_regclass('unrelated')")" ]; then
  echo "something from after $moment is there" >&2
  exit 1
fi
printf '\nAll %s rows are back exactly as they were at %s.\n' "$(wc -l <found.txt)" "$moment"
