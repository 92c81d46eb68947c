#!/usr/bin/env bash
# Times pgrecall beside pgBackRest and pg_basebackup: whole commands, in turn, on the same clusters. Builds and
# installs what it needs (as root: pgBackRest comes from Debian's unstable suite, into a folder of its own).
#
#   benches/compare.sh                                   everything: about an hour on two cores
#   benches/compare.sh --datasets pgbench --rounds 1     what follows goes to compare.py
#   benches/compare.sh --json out.json
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run this as root: it installs pgBackRest, then drops to an ordinary user" >&2; exit 1; }

scripts/servers.sh 17
home=$(scripts/servers.sh --where)

# pgBackRest's newest release is in Debian's unstable suite only; its libraries are newer than this system's, so the
# program is told where its own are.
install_pgbackrest() {
  [ -x "$home/pgbackrest/pgbackrest" ] && return
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap patchelf >/dev/null
  local mirror suite=$home/pgbackrest/suite
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
  rm -rf "$home/pgbackrest"
  mkdir -p "$home/pgbackrest"
  debootstrap --variant=minbase --include=pgbackrest unstable "$suite" "$mirror" >"$home/pgbackrest/install.log" 2>&1 ||
    { echo "pgBackRest from the unstable suite cannot be had: see $home/pgbackrest/install.log" >&2; return 1; }
  cp "$suite/usr/bin/pgbackrest" "$home/pgbackrest/pgbackrest.new"
  patchelf --set-interpreter "$suite$(patchelf --print-interpreter "$suite/usr/bin/pgbackrest")" \
    --set-rpath "$suite/lib/$(uname -m)-linux-gnu:$suite/usr/lib/$(uname -m)-linux-gnu" --force-rpath \
    "$home/pgbackrest/pgbackrest.new"
  mv "$home/pgbackrest/pgbackrest.new" "$home/pgbackrest/pgbackrest"
}
install_pgbackrest
"$home/pgbackrest/pgbackrest" version

cargo build --release --locked --package pgrecall
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

work=$(mktemp -d /var/tmp/pgrecall-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
user=nobody
id postgres >/dev/null 2>&1 && user=postgres
install -m 755 "$target/release/pgrecall" "$work/pgrecall"
install -m 755 benches/compare.py "$work/compare.py"
mkdir -m 700 "$work/scratch"
chmod 755 "$work"
json=$(mktemp "$work/json.XXXXXX")
chown -R "$user" "$work/scratch" "$json"
out=
args=()
while [ $# -gt 0 ]; do
  case $1 in
    --json) out=$2; shift 2 ;;
    *) args+=("$1"); shift ;;
  esac
done
cd /
env -i PATH=/usr/bin:/bin HOME="$work/scratch" LANG=C.UTF-8 \
  setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups \
  python3 "$work/compare.py" --pgrecall "$work/pgrecall" --pgbackrest "$home/pgbackrest/pgbackrest" \
  --postgres "$home/postgresql-17/bin" --work "$work/scratch" --json "$json" "${args[@]}"
cd - >/dev/null
[ -z "$out" ] || cp "$json" "$out"
