#!/usr/bin/env bash
# Puts an archive of backup.sh in place of the relay's files. What was there is kept beside them.
set -euo pipefail
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly START_PATIENCE_S=120

usage() {
  cat <<'TEXT'
Usage: restore.sh [--data-dir DIR] [--with docker|systemd|nothing] [--yes] ARCHIVE

  --data-dir DIR   the relay's files (default: relay/ in the DATA_DIR of .env; with systemd /var/lib/clasp-relay)
  --with WHAT      what stops and starts the relay (default: docker); nothing: it is stopped already
  --yes            does not ask
TEXT
}

fail() {
  printf 'restore.sh: %s\n' "$*" >&2
  exit 1
}

stop_relay() {
  case $runner in
    docker) docker compose --project-directory "$HERE" --file "$HERE/docker-compose.yml" stop relay ;;
    systemd) systemctl stop clasp-relay ;;
  esac
}

start_relay() {
  case $runner in
    docker)
      docker compose --project-directory "$HERE" --file "$HERE/docker-compose.yml" \
        up --detach --wait --wait-timeout "$START_PATIENCE_S" relay
      ;;
    systemd) systemctl start clasp-relay ;;
  esac
}

check_database() {
  python3 - "$1" <<'PYTHON'
import sqlite3, sys
from contextlib import closing

try:
    with closing(sqlite3.connect(sys.argv[1])) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
except sqlite3.Error as error:
    verdict = error
if verdict != "ok":
    sys.exit(f"restore.sh: {sys.argv[1]}: damaged ({verdict})")
PYTHON
}

end() {
  rm -rf "$work"
  if [ -n "$before" ]; then rmdir --ignore-fail-on-non-empty "$before"; fi
  if [ "$interrupted" = yes ]; then
    printf 'restore.sh: interrupted; to go back, move the files of %s into %s\n' "$before" "$data_dir" >&2
  fi
}

interrupted=no
data_dir=
archive=
runner=docker
sure=no
while [ $# -gt 0 ]; do
  case $1 in
    --data-dir | --with)
      [ $# -ge 2 ] || fail "$1: got no value; see --help"
      if [ "$1" = --with ]; then runner=$2; else data_dir=$2; fi
      shift
      ;;
    --yes) sure=yes ;;
    --help | -h)
      usage
      exit 0
      ;;
    -*) fail "unknown argument $1; see --help" ;;
    *)
      [ -z "$archive" ] || fail "got two archives; see --help"
      archive=$1
      ;;
  esac
  shift
done
case $runner in docker | systemd | nothing) ;; *) fail "--with: got '$runner', expected docker, systemd or nothing" ;; esac
[ -n "$archive" ] || fail "which archive? see --help"
[ -f "$archive" ] || fail "$archive: no such file"
if [ -z "$data_dir" ] && [ "$runner" = systemd ]; then
  data_dir=/var/lib/clasp-relay
elif [ -z "$data_dir" ]; then
  [ ! -f "$HERE/.env" ] || data_dir=$(sed -n 's/^DATA_DIR=//p' "$HERE/.env" | tail -n 1)
  data_dir=${data_dir:-/mnt/data}/relay
fi
[ -d "$data_dir" ] || fail "--data-dir: $data_dir is no folder"

# Everything is unpacked and checked before the relay is stopped.
work=$(mktemp -d "$data_dir/.restore.XXXXXXXX")
before=
trap end EXIT
names=$(tar --list --gzip --file "$archive") || fail "$archive: not an archive of backup.sh"
while IFS= read -r name; do
  [[ $name =~ ^([A-Za-z0-9_-]+\.db|state\.json|SHA256SUMS)$ ]] || fail "$archive: has '$name' in it, not one of backup.sh's"
done <<<"$names"
tar --extract --gzip --no-same-owner --no-same-permissions --directory "$work" --file "$archive"
(cd "$work" && sha256sum --check --quiet --strict SHA256SUMS) || fail "$archive: damaged"
rm "$work/SHA256SUMS"
for database in "$work"/*.db; do
  if [ -e "$database" ]; then check_database "$database"; fi
done

if [ "$sure" = no ]; then
  printf 'All that happened since the backup is taken back, in %s. Type yes to go on: ' "$data_dir"
  read -r answer
  [ "$answer" = yes ] || fail "nothing was changed"
fi

before=$(mktemp -d "$data_dir/before-restore-$(date -u +%Y%m%dT%H%M%SZ)-XXXX")
stop_relay
interrupted=yes
shopt -s nullglob
for file in "$data_dir"/state.json* "$data_dir"/*.db "$data_dir"/*.db-wal "$data_dir"/*.db-shm; do
  mv -- "$file" "$before/"
done
for file in "$work"/*; do
  chmod 0600 "$file"
  chown --reference="$data_dir/." "$file"
  sync "$file"
  mv -- "$file" "$data_dir/"
done
chown --reference="$data_dir/." "$before"
sync "$data_dir"
printf 'Restored. What was there before is in %s.\n' "$before"
interrupted=no
start_relay || fail "the relay did not start; to go back, stop it and move the files of $before into $data_dir"
