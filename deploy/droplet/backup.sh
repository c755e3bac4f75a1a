#!/usr/bin/env bash
# Copies the relay's state and accounts while it runs, into one archive; prints its path.
set -euo pipefail
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE

usage() {
  cat <<'TEXT'
Usage: backup.sh [--data-dir DIR] [--to DIR] [--keep N]

  --data-dir DIR   the relay's files (default: relay/ in the DATA_DIR of .env)
  --to DIR         where the archive goes (default: backups/ in the DATA_DIR of .env)
  --keep N         deletes all but the newest N archives there (default: none is deleted)
TEXT
}

fail() {
  printf 'backup.sh: %s\n' "$*" >&2
  exit 1
}

# A copy of one moment, whatever the relay writes meanwhile, checked, in one file and without a journal.
copy_database() {
  python3 - "$1" "$2" <<'PYTHON'
import sqlite3, sys
from contextlib import closing
from pathlib import Path

source_path, target_path = map(Path, sys.argv[1:])
try:
    with closing(sqlite3.connect(source_path.absolute().as_uri() + "?mode=rw", uri=True, timeout=30)) as source:
        with closing(sqlite3.connect(target_path)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            (verdict,) = target.execute("PRAGMA integrity_check").fetchone()
except sqlite3.Error as error:
    verdict = error
if verdict != "ok":
    sys.exit(f"backup.sh: {source_path}: damaged, or not to be read ({verdict})")
PYTHON
}

env_dir=
[ ! -f "$HERE/.env" ] || env_dir=$(sed -n 's/^DATA_DIR=//p' "$HERE/.env" | tail -n 1)
data_dir=${env_dir:-/mnt/data}/relay
to=${env_dir:-/mnt/data}/backups
keep=
while [ $# -gt 0 ]; do
  case $1 in
    --data-dir | --to | --keep) [ $# -ge 2 ] || fail "$1: got no value; see --help" ;;&
    --data-dir) data_dir=$2 ;;
    --to) to=$2 ;;
    --keep) keep=$2 ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift 2
done
[[ $keep =~ ^([1-9][0-9]*)?$ ]] || fail "--keep: got '$keep', expected a whole number from 1"
[ -d "$data_dir" ] || fail "--data-dir: $data_dir is no folder"
mkdir -p "$to"

work=$(mktemp -d "$to/.backup.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/files"

# The state first: whoever it mentions is in the accounts, which are copied later. The relay never writes into the
# file, it puts a new one in its place; so what is opened here stays whole.
if [ -e "$data_dir/state.json" ]; then cp -- "$data_dir/state.json" "$work/files/state.json"; fi
for database in "$data_dir"/*.db; do
  if [ -e "$database" ]; then copy_database "$database" "$work/files/$(basename "$database")"; fi
done

(
  cd "$work/files"
  shopt -s nullglob
  files=(*)
  [ "${#files[@]}" -gt 0 ] || fail "$data_dir: has neither state.json nor accounts"
  sha256sum -- "${files[@]}" >SHA256SUMS
  tar --create --gzip --owner=0 --group=0 --file "$work/archive" -- "${files[@]}" SHA256SUMS
)
archive=$to/clasp-relay-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
sync "$work/archive"
mv -- "$work/archive" "$archive"

if [ -n "$keep" ]; then
  archives=("$to"/clasp-relay-*.tar.gz) # oldest first, by their names
  surplus=$((${#archives[@]} - keep))
  if [ "$surplus" -gt 0 ]; then rm -- "${archives[@]:0:surplus}"; fi
fi
printf '%s\n' "$archive"
