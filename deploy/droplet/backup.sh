#!/usr/bin/env bash
# Copies the relay's state and accounts while it runs, into one archive; prints its path.
set -euo pipefail
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE

usage() {
  cat <<'TEXT'
Usage: backup.sh [--data-dir DIR] [--state FILE] [--users FILE] [--to DIR] [--keep N]

  --data-dir DIR   the relay's files (default: relay/ in the DATA_DIR of .env)
  --state FILE     the state, where --persist of the relay names it (default: state.json in the data-dir); or none
  --users FILE     the accounts, where --auth-db names them (default: every *.db in the data-dir); or none
  --to DIR         where the archive goes (default: backups/ in the DATA_DIR of .env)
  --keep N         deletes all but the newest N archives there (default: none is deleted)
TEXT
}

fail() {
  printf 'backup.sh: %s\n' "$*" >&2
  exit 1
}

# The relay's user owns the folder, and this script may be root: what is no plain file is not opened. Opening does not
# follow a link, and does not wait for somebody at the other end of a pipe.
copy_file() {
  python3 - "$1" "$2" <<'PYTHON'
import os, shutil, stat, sys

source_path, target_path = sys.argv[1:]
try:
    descriptor = os.open(source_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        sys.exit(f"backup.sh: {source_path}: not a plain file")
    with open(descriptor, "rb") as source, open(target_path, "xb") as target:
        shutil.copyfileobj(source, target)
except OSError as error:
    about = "not a plain file" if os.path.islink(source_path) else error.strerror
    sys.exit(f"backup.sh: {source_path}: {about}")
PYTHON
}

# A copy of one moment, whatever the relay writes meanwhile, checked, in one file and without a journal.
copy_database() {
  python3 - "$1" "$2" <<'PYTHON'
import os, sqlite3, stat, sys
from contextlib import closing
from pathlib import Path

source_path, target_path = map(Path, sys.argv[1:])
for path in (source_path, *(Path(f"{source_path}-{suffix}") for suffix in ("wal", "shm", "journal"))):
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        sys.exit(f"backup.sh: {path}: not a plain file")
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
state=
users=
while [ $# -gt 0 ]; do
  case $1 in
    --data-dir | --state | --users | --to | --keep) [ $# -ge 2 ] || fail "$1: got no value; see --help" ;;&
    --data-dir) data_dir=$2 ;;
    --state) state=$2 ;;
    --users) users=$2 ;;
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

# Whether there is anything under a name, be it a link to nowhere.
exists() { [ -e "$1" ] || [ -L "$1" ]; }

notes=()

# The state first: whoever it mentions is in the accounts, which are copied later. The relay never writes into the
# file, it puts a new one in its place; so what is opened here stays whole.
if [ "$state" != none ]; then
  if exists "${state:-$data_dir/state.json}"; then
    copy_file "${state:-$data_dir/state.json}" "$work/files/state.json"
  elif [ -n "$state" ]; then
    fail "--state: $state is missing"
  else
    notes+=("$data_dir has no state.json, so the archive has no state: give its path with --state, or --state none")
  fi
fi
databases=("$data_dir"/*.db)
case $users in
  none) databases=() ;;
  ?*) databases=("$users") ;;
esac
for database in "${databases[@]}"; do
  if exists "$database"; then
    name=$(basename "$database")
    [[ $name =~ ^[A-Za-z0-9_-]+\.db$ ]] || name=users.db # as restore.sh takes them
    copy_database "$database" "$work/files/$name"
  elif [ -n "$users" ]; then
    fail "--users: $users is missing"
  else
    notes+=("$data_dir has no *.db, so the archive has no accounts: give their path with --users, or --users none")
  fi
done

(
  cd "$work/files"
  shopt -s nullglob
  files=(*)
  [ "${#files[@]}" -gt 0 ] || fail "$data_dir: has neither state.json nor accounts"
  sha256sum -- "${files[@]}" >SHA256SUMS
  tar --create --gzip --owner=0 --group=0 --file "$work/archive" -- "${files[@]}" SHA256SUMS
)
for note in "${notes[@]}"; do printf 'backup.sh: %s\n' "$note" >&2; done
archive=$to/clasp-relay-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
sync "$work/archive"
mv -- "$work/archive" "$archive"

if [ -n "$keep" ]; then
  archives=("$to"/clasp-relay-*.tar.gz) # oldest first, by their names
  surplus=$((${#archives[@]} - keep))
  if [ "$surplus" -gt 0 ]; then rm -- "${archives[@]:0:surplus}"; fi
fi
printf '%s\n' "$archive"
