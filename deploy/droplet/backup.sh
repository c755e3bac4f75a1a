#!/usr/bin/env bash
# Copies the relay's state, journal, accounts and sent files while it runs, into one archive; prints its path.
set -euo pipefail
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE

usage() {
  cat <<'TEXT'
Usage: backup.sh [--data-dir DIR] [--state FILE] [--journal FILE] [--users FILE] [--files none] [--to DIR] [--keep N]

  --data-dir DIR   the relay's files (default: relay/ in the DATA_DIR of .env)
  --state FILE     the state, where --persist of the relay names it (default: state.json in the data-dir); or none
  --journal FILE   the journal, where --journal of the relay names it (default: journal.db in the data-dir); or none
  --users FILE     the accounts, where --auth-db names them (default: every other *.db in the data-dir); or none
  --files none     leaves out what people sent to each other (files/ and files.db in the data-dir)
  --to DIR         where the archive goes (default: backups/ in the DATA_DIR of .env)
  --keep N         deletes all but the newest N archives there (default: none is deleted)
TEXT
}

fail() {
  printf 'backup.sh: %s\n' "$*" >&2
  exit 1
}

# The relay's user owns the folder, and this script may be root, so only regular files are opened.
# A database is copied as of one moment, whatever the relay writes meanwhile, and checked; the copy is one file without
# a WAL. The state file is as old as the journal's copy or newer: then no change is missing between the two, since the
# relay trims from the journal only changes that the previous state file has.
copy_files() {
  python3 - "$@" <<'PYTHON'
import os, re, shutil, sqlite3, stat, sys
from contextlib import ExitStack, closing
from pathlib import Path


def copy_file(source_path, target_path):
    # Opening does not follow a link, and does not wait for a writer of a named pipe.
    try:
        descriptor = os.open(source_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            sys.exit(f"backup.sh: {source_path}: not a plain file")
        with open(descriptor, "rb") as source, open(target_path, "xb") as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        about = "not a plain file" if os.path.islink(source_path) else error.strerror
        sys.exit(f"backup.sh: {source_path}: {about}")


def open_database(path, mode):
    for part in (path, *(Path(f"{path}-{suffix}") for suffix in ("wal", "shm", "journal"))):
        if os.path.lexists(part) and not stat.S_ISREG(os.lstat(part).st_mode):
            sys.exit(f"backup.sh: {part}: not a plain file")
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)


def copy_database(source, target_path):
    with closing(sqlite3.connect(target_path)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
        (verdict,) = target.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


# Sent files never change, so a link is as good as a copy. A file that is deleted meanwhile is missing in the folder, and
# a relay that starts on the copy removes its record.
def link_files(source_folder, names):
    Path("files").mkdir()
    try:
        folder = os.open(source_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        sys.exit(f"backup.sh: {source_folder}: {error.strerror}")
    for name in names:
        target = Path("files", name)
        try:
            os.link(name, target, src_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError:  # another disk, or one without links
            if os.path.lexists(source_folder / name):
                copy_file(source_folder / name, target)
            continue
        if not stat.S_ISREG(os.lstat(target).st_mode):
            sys.exit(f"backup.sh: {source_folder / name}: not a plain file")


def copy_sent_files(database):
    global path
    path = database
    with closing(open_database(database, "rw")) as source:
        copy_database(source, Path("files.db"))
    with closing(sqlite3.connect("files.db")) as copy:
        names = [row[0] for row in copy.execute("SELECT id FROM files")]
    if not all(isinstance(name, str) and re.fullmatch("[0-9a-f]{32}", name) for name in names):
        sys.exit(f"backup.sh: {database}: names files that no relay makes")
    link_files(database.parent / "files", names)


# A relay refuses to start where changes between the two are missing.
def check_state(state, journal):
    with open("state.json", "rb") as file:
        begin = re.match(rb'\{"version":1,"journal_seq":([0-9]+),', file.read(64))
    with closing(sqlite3.connect("journal.db")) as copy:
        (trimmed,) = copy.execute("SELECT seq FROM trimmed").fetchone() or (0,)
        # Rows of another relay's history are in its state, which names none of ours.
        is_taken_over = copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'taken_over'").fetchone()
        (begun,) = (copy.execute("SELECT seq FROM taken_over").fetchone() if is_taken_over else None) or (0,)
    if max(begun, 0 if begin is None else int(begin[1])) < trimmed:
        sys.exit(
            f"backup.sh: {state} is older than the oldest change in {journal};"
            " give the file that --persist of the relay names to --state"
        )


state, journal, sent, *pairs = map(Path, sys.argv[1:])
work = Path()
path = journal
try:
    with ExitStack() as stack:
        if journal != work:
            # Read-only: only the relay's own connection may checkpoint the journal.
            source = stack.enter_context(closing(open_database(journal, "ro")))
            source.execute("BEGIN")
            source.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # the transaction's view begins here
        if state != work:
            copy_file(state, work / "state.json")
        if journal != work:
            copy_database(source, work / "journal.db")
    if state != work and journal != work:
        check_state(state, journal)
    if sent != work:
        copy_sent_files(sent)
    # The accounts last, so that they have every user whom the other files name.
    for path, target_path in zip(pairs[::2], pairs[1::2]):
        with closing(open_database(path, "rw")) as source:
            copy_database(source, target_path)
except sqlite3.Error as error:
    sys.exit(f"backup.sh: {path}: damaged, or not to be read ({error})")
PYTHON
}

env_dir=
[ ! -f "$HERE/.env" ] || env_dir=$(sed -n 's/^DATA_DIR=//p' "$HERE/.env" | tail -n 1)
data_dir=${env_dir:-/mnt/data}/relay
to=${env_dir:-/mnt/data}/backups
keep=
state=
journal=
users=
sent=
while [ $# -gt 0 ]; do
  case $1 in
    --data-dir | --state | --journal | --users | --files | --to | --keep) [ $# -ge 2 ] || fail "$1: got no value; see --help" ;;&
    --data-dir) data_dir=$2 ;;
    --state) state=$2 ;;
    --journal) journal=$2 ;;
    --users) users=$2 ;;
    --files) sent=$2 ;;
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
[[ $sent =~ ^(none)?$ ]] || fail "--files: got '$sent', expected none"
[ -d "$data_dir" ] || fail "--data-dir: $data_dir is no folder"
mkdir -p "$to"

work=$(mktemp -d "$to/.backup.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/files"

# Whether anything has this name, a dangling link included.
exists() { [ -e "$1" ] || [ -L "$1" ]; }

notes=()

# Prints the absolute path of a file that is to be copied; nothing if there is none.
found() {
  local option=$1 given=$2 usual=$3
  if [ "$given" = none ]; then return; fi
  if exists "${given:-$usual}"; then
    realpath --no-symlinks -- "${given:-$usual}"
  elif [ -n "$given" ]; then
    fail "$option: $given is missing"
  fi
}

state_file=$(found --state "$state" "$data_dir/state.json")
journal_file=$(found --journal "$journal" "$data_dir/journal.db")
sent_files=$(found --files "$sent" "$data_dir/files.db")
[ -n "$state$state_file" ] \
  || notes+=("$data_dir has no state.json, so the archive has no state: give its path with --state, or --state none")
accounts=()
if [ -n "$users" ]; then
  users_file=$(found --users "$users" "")
  if [ -n "$users_file" ]; then accounts=("$users_file"); fi
else
  for database in "$data_dir"/*.db; do
    if exists "$database" && [[ $(basename "$database") != @(journal|files).db ]]; then accounts+=("$(realpath --no-symlinks -- "$database")"); fi
  done
  [ "${#accounts[@]}" -gt 0 ] \
    || notes+=("$data_dir has no accounts (*.db), so the archive has none: give their path with --users, or --users none")
fi
pairs=()
for database in "${accounts[@]}"; do
  name=$(basename "$database")
  if ! [[ $name =~ ^[A-Za-z0-9_-]+\.db$ ]] || [[ $name = @(journal|files).db ]]; then name=users.db; fi # as restore.sh takes them
  pairs+=("$database" "$name")
done
(cd "$work/files" && copy_files "$state_file" "$journal_file" "$sent_files" "${pairs[@]}")
if [ -z "$journal$journal_file" ] && [ -n "$state_file" ] \
  && head --bytes 64 "$work/files/state.json" | grep --quiet '"journal_seq":'; then
  notes+=("$data_dir has no journal.db, so changes after the state are missing: give its path with --journal, or --journal none")
fi

(
  cd "$work/files"
  shopt -s nullglob
  files=(*)
  [ "${#files[@]}" -gt 0 ] || fail "$data_dir: has no state.json, no journal.db and no accounts"
  find . -type f -printf '%P\0' | sort --zero-terminated >"$work/names"
  xargs --null sha256sum -- <"$work/names" >SHA256SUMS
  printf 'SHA256SUMS\0' >>"$work/names"
  tar --create --gzip --owner=0 --group=0 --hard-dereference --null --files-from "$work/names" --file "$work/archive"
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
