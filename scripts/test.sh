#!/usr/bin/env bash
# Runs all tests against real PostgreSQL and S3 servers, which it installs first if they are missing.
#
#   scripts/test.sh                                all tests; those on real clusters use PostgreSQL 17
#   PGRECALL_TEST_MAJORS=14,18 scripts/test.sh     the same on these versions
#   PGRECALL_TEST_MAJORS=all scripts/test.sh       the same on every version
#   scripts/test.sh --test cli                     what follows goes to cargo test
set -euo pipefail
cd "$(dirname "$0")/.."

# Examples of the documentation are run with jq, `script` makes terminals, strace sees what a restore syncs, and zone names
# are read from the system's database.
scripts/need.sh cc:gcc jq:jq script:bsdutils strace:strace /usr/share/zoneinfo/Europe/Berlin:tzdata
export PGRECALL_TEST_MAJORS=${PGRECALL_TEST_MAJORS:-17}
# Some tests compare versions whatever is asked for, so all servers are there.
scripts/servers.sh
PGRECALL_TEST_SERVERS=${PGRECALL_TEST_SERVERS:-$(scripts/servers.sh --where)}
export PGRECALL_TEST_SERVERS
# Tests wait for servers half of their time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
[ $# -gt 0 ] || set -- --workspace
exec cargo test "$@"
