#!/usr/bin/env bash
# Installs programs that are missing, by apt-get, if this is root; else says which are.
#
#   scripts/need.sh jq:jq script:bsdutils /usr/share/zoneinfo/Europe/Berlin:tzdata     program or file, and its package
set -euo pipefail

missing=()
for pair in "$@"; do
  case $pair in
    /*) [ -e "${pair%%:*}" ] || missing+=("${pair##*:}") ;;
    *) command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "missing: ${missing[*]} (apt-get install them)" >&2; exit 1; }
DEBIAN_FRONTEND=noninteractive apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
