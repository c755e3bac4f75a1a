#!/usr/bin/env bash
# Replaces the relay's files by those of an archive of backup.sh. The old ones are kept beside them.
set -euo pipefail
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly START_PATIENCE_S=120

usage() {
  cat <<'TEXT'
Usage: restore.sh [--data-dir DIR] [--state FILE] [--journal FILE] [--users FILE]
                  [--with docker|systemd|nothing] [--yes] ARCHIVE

  --data-dir DIR   the relay's files (default: relay/ in the DATA_DIR of .env; with systemd /var/lib/clasp-relay)
  --state FILE     where the state goes, if --persist of the relay names another place
  --journal FILE   where the journal goes, if --journal of the relay names another place
  --users FILE     where the accounts go, if --auth-db names another place
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

# Prints where a file of the archive goes.
place_of() {
  case $1 in
    state.json) printf '%s' "${state:-$data_dir/state.json}" ;;
    journal.db) printf '%s' "${journal:-$data_dir/journal.db}" ;;
    files.db | files) printf '%s' "$data_dir/$1" ;;
    *) printf '%s' "${users:-$data_dir/$1}" ;;
  esac
}

# Whether a relay still uses one of the files. Its lock ends with the process; the lock file stays.
is_in_use() {
  local file lock
  for file in state.json journal.db files.db users.db; do
    lock=$(place_of "$file").lock
    if [ -f "$lock" ] && [ ! -L "$lock" ] && ! flock --nonblock "$lock" true; then return 0; fi
  done
  return 1
}

end() {
  cd /
  rm -rf "$work"
  if [ -n "$before" ]; then rmdir --ignore-fail-on-non-empty "$before"; fi
  if [ "$interrupted" = yes ]; then
    printf 'restore.sh: interrupted; to go back, move the files of %s into place\n' "$before" >&2
  fi
}

interrupted=no
data_dir=
state=
journal=
users=
archive=
runner=docker
sure=no
while [ $# -gt 0 ]; do
  case $1 in
    --data-dir | --state | --journal | --users | --with)
      [ $# -ge 2 ] || fail "$1: got no value; see --help"
      case $1 in
        --data-dir) data_dir=$2 ;;
        --state) state=$2 ;;
        --journal) journal=$2 ;;
        --users) users=$2 ;;
        --with) runner=$2 ;;
      esac
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

data_dir=$(realpath -- "$data_dir")
archive=$(realpath -- "$archive")
[ -z "$state" ] || state=$(realpath --no-symlinks -- "$state")
[ -z "$journal" ] || journal=$(realpath --no-symlinks -- "$journal")
[ -z "$users" ] || users=$(realpath --no-symlinks -- "$users")

# Everything is unpacked and checked before the relay is stopped. The files are handled in a folder of the script's own,
# and from inside it, so that the owner of the folder above cannot put another one or a link in its place.
work=$(mktemp -d "$data_dir/.restore.XXXXXXXX")
before=
trap end EXIT
names=$(tar --list --gzip --file "$archive") || fail "$archive: not an archive of backup.sh"
kinds=$(tar --list --verbose --gzip --file "$archive" | cut --characters=1 | sort --unique)
[ "$kinds" = - ] || fail "$archive: has something other than plain files in it, so it is not one of backup.sh's"
while IFS= read -r name; do
  [[ $name =~ ^([A-Za-z0-9_-]+\.db|state\.json|SHA256SUMS|files/[0-9a-f]{32})$ ]] || fail "$archive: has '$name' in it, not one of backup.sh's"
done <<<"$names"
cd "$work"
tar --extract --gzip --no-same-owner --no-same-permissions --file "$archive"
[ -z "$(find . -mindepth 1 ! -type f ! -path ./files)" ] || fail "$archive: has something other than plain files in it"
sha256sum --check --quiet --strict SHA256SUMS || fail "$archive: damaged"
rm SHA256SUMS
shopt -s nullglob
databases=(*.db)
files=(*)
accounts=0
for database in "${databases[@]}"; do if [[ $database != @(journal|files).db ]]; then accounts=$((accounts + 1)); fi; done
[ -z "$users" ] || [ "$accounts" -le 1 ] || fail "--users: the archive has more than one database of accounts"
for database in "${databases[@]}"; do check_database "$database"; done

if [ "$sure" = no ]; then
  printf 'All that happened since the backup is taken back, in %s. Type yes to go on: ' "$data_dir"
  read -r answer
  [ "$answer" = yes ] || fail "nothing was changed"
fi

stop_relay
if is_in_use; then fail "a relay still uses these files: stop it first; nothing was changed"; fi
before=$(mktemp -d "$data_dir/before-restore-$(date -u +%Y%m%dT%H%M%SZ)-XXXX")
interrupted=yes
old=()
for suffix in '' .1 .tmp .1.tmp; do old+=("$(place_of state.json)$suffix"); done
# The journal is replaced in any case: a newer one would be applied to the older state, or would not fit it.
for suffix in '' -wal -shm; do old+=("$(place_of journal.db)$suffix"); done
# Sent files and their records belong together, too; an archive without any removes none.
if [ -f files.db ]; then
  mkdir -p files
  files=(*)
  chmod 0700 files
  find files -type f -exec chmod 0600 {} + -exec chown --no-dereference --reference="$data_dir/." {} +
  sync --file-system files
  old+=("$data_dir/files" "$data_dir/files.db" "$data_dir/files.db-wal" "$data_dir/files.db-shm")
fi
if [ -n "$users" ]; then
  old+=("$users" "$users-wal" "$users-shm")
else
  for file in "$data_dir"/*.db "$data_dir"/*.db-wal "$data_dir"/*.db-shm; do
    if [[ $(basename "$file") != files.db* ]]; then old+=("$file"); fi
  done
fi
for file in "${old[@]}"; do
  if [ -e "$file" ] || [ -L "$file" ]; then mv --no-target-directory -- "$file" "$before/$(basename "$file")"; fi
done
for file in "${files[@]}"; do
  place=$(place_of "$file")
  if [ -f "./$file" ]; then chmod 0600 "./$file"; fi
  chown --no-dereference --reference="$(dirname "$place")/." "./$file"
  sync "./$file"
  mv --no-target-directory -- "./$file" "$place"
  sync "$(dirname "$place")"
done
chown --no-dereference --reference="$data_dir/." "$before"
printf 'Restored. What was there before is in %s.\n' "$before"
interrupted=no
start_relay || fail "the relay did not start; to go back, stop it and move the files of $before into place"
