#!/usr/bin/env bash
# Runs scripts/read_repository.py, the reader that was written from docs/format.md alone, with the Python packages that
# it needs. They are installed once, each pinned to one version, beside the servers that tests run against.
#
#   scripts/read_repository.sh ARGUMENTS      see scripts/read_repository.py
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

packages=(cryptography==50.0.2 zstandard==0.25.0 xxhash==4.1.0)
python=$(command -v python3)
tag=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
root=$("$here/servers.sh" --where)
home=$root/reader-python-$tag

mkdir -p "$root"
if [ "$(cat "$home/.version" 2>/dev/null)" != "${packages[*]}" ]; then
  # Two tests may start together: the second waits, then finds everything installed.
  exec 9>"$root/.lock"
  flock 9
  if [ "$(cat "$home/.version" 2>/dev/null)" != "${packages[*]}" ]; then
    work=$(mktemp -d "$root/.fetch.XXXXXX")
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
      --target "$work/home" "${packages[@]}" >&2
    echo "${packages[*]}" >"$work/home/.version"
    rm -rf "$home"
    mv "$work/home" "$home"
    rm -rf "$work"
  fi
  exec 9>&-
fi
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$home exec "$python" "$here/read_repository.py" "$@"
