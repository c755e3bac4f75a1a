#!/usr/bin/env bash
# Makes a fresh Ubuntu machine serve the relay and its chat behind HTTPS. Safe to run again at any time: completed steps
# are left as they are, and a new checkout or image is rolled out.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly ENV_FILE=$HERE/.env
readonly WEB_DIR=/srv/chat
readonly WEB_IN_IMAGE=/usr/share/clasp/chat
readonly FSTAB=/etc/fstab
readonly RELAY_ID=999 # user and group of the image
readonly OLD_ASSETS_DAYS=30 # pages that are still open load them
readonly START_PATIENCE_S=120
readonly TURN_PORT=3478
readonly TURN_RELAYED=49160:49359 # as in turnserver.conf

dry_run=no
firewall=yes
new_turn=no
new_domain=
new_volume=

usage() {
  cat <<'TEXT'
Usage: setup.sh [--domain NAME] [--volume DEVICE] [--turn] [--no-firewall] [--dry-run]

  --domain NAME     name of the site; kept in .env
  --volume DEVICE   block device for the data, formatted only if nothing at all is on it; kept in .env
  --turn            runs a TURN server for calls, too; kept in .env
  --no-firewall     leaves the firewall as it is
  --dry-run         says what would be done, and does nothing

All other settings: .env (see .env.example).
TEXT
}

say() { printf '%s\n' "==> $*"; }

fail() {
  printf 'setup.sh: %s\n' "$*" >&2
  exit 1
}

# Runs a command, or prints it in a dry run.
run() {
  if [ "$dry_run" = yes ]; then
    printf '    would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --domain | --volume)
        [ $# -ge 2 ] || fail "$1: got no value; see --help"
        if [ "$1" = --domain ]; then new_domain=$2; else new_volume=$2; fi
        shift
        ;;
      --turn) new_turn=yes ;;
      --no-firewall) firewall=no ;;
      --dry-run) dry_run=yes ;;
      --help | -h)
        usage
        exit 0
        ;;
      *) fail "unknown argument $1; see --help" ;;
    esac
    shift
  done
}

# Prints a setting of .env; the file is read, not run.
setting() {
  local file=$ENV_FILE value
  [ -f "$file" ] || file=$HERE/.env.example
  value=$(sed -n "s/^$1=//p" "$file" | tail -n 1)
  value=${value%\"}
  printf '%s' "${value#\"}"
}

# Writes NAME=VALUE into .env.
keep_setting() {
  if [ -f "$ENV_FILE" ] && ! grep -q "^$1=" "$ENV_FILE"; then run sed -i "\$ a $1=" "$ENV_FILE"; fi
  run sed -i "s|^$1=.*|$1=$2|" "$ENV_FILE"
}

read_settings() {
  if [ ! -f "$ENV_FILE" ]; then
    say "Making .env from .env.example"
    run cp "$HERE/.env.example" "$ENV_FILE"
  fi
  DOMAIN=${new_domain:-$(setting DOMAIN)}
  VOLUME=${new_volume:-$(setting VOLUME)}
  DATA_DIR=$(setting DATA_DIR)
  DATA_DIR=${DATA_DIR:-/mnt/data}
  CLASP_IMAGE=$(setting CLASP_IMAGE)
  [[ $DOMAIN =~ ^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]] ||
    fail "DOMAIN: got '$DOMAIN', expected the name of the site: setup.sh --domain chat.example.org, or in $ENV_FILE"
  [[ $DATA_DIR =~ ^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$ ]] ||
    fail "DATA_DIR: got '$DATA_DIR', expected the path of a folder, in $ENV_FILE"
  [[ $VOLUME =~ ^(/dev/[A-Za-z0-9._/:-]+)?$ ]] || fail "VOLUME: got '$VOLUME', expected a device below /dev, or nothing"
  if [ -n "$new_domain" ]; then keep_setting DOMAIN "$DOMAIN"; fi
  if [ -n "$new_volume" ]; then keep_setting VOLUME "$VOLUME"; fi
  if [ "$new_turn" = yes ]; then
    keep_setting TURN_URL "turn:$DOMAIN:$TURN_PORT?transport=udp,turn:$DOMAIN:$TURN_PORT?transport=tcp"
    keep_setting TURN_SECRET /run/turn/secret
    keep_setting COMPOSE_PROFILES turn
  fi
  turn=$new_turn
  if [ "$(setting COMPOSE_PROFILES)" = turn ]; then turn=yes; fi
}

install_packages() {
  local packages=()
  docker compose version >/dev/null 2>&1 || packages+=(docker.io docker-compose-v2 docker-buildx)
  command -v python3 >/dev/null || packages+=(python3) # backup.sh
  command -v flock >/dev/null || packages+=(util-linux) # restore.sh
  if [ "$firewall" = yes ] && ! command -v ufw >/dev/null; then packages+=(ufw); fi
  if [ "${#packages[@]}" -gt 0 ]; then
    say "Installing ${packages[*]}"
    command -v apt-get >/dev/null || fail "apt-get is missing: install these yourself and run me again: ${packages[*]}"
    run apt-get update -q
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
    run systemctl enable --now docker
  fi
}

# Prints the signature on a device, as NAME=VALUE lines; nothing if there is no known one.
signature() {
  local status=0 found
  found=$(blkid --probe --output export "$1") || status=$?
  case $status in
    0) printf '%s\n' "$found" ;;
    2) ;;
    *) fail "$1: cannot tell what is on it (blkid ended with $status), so it is left alone" ;;
  esac
}

# Whether both ends of a device are zeros, as on a volume that is new. Data without a known signature is not.
is_blank() {
  local size ends=$((16 * 1024 * 1024))
  size=$(blockdev --getsize64 "$1")
  [ "$size" -gt "$ends" ] || ends=$size
  cmp --silent --bytes="$ends" "$1" /dev/zero &&
    cmp --silent --bytes="$ends" --ignore-initial=$((size - ends)):0 "$1" /dev/zero
}

# Formats a device ($1) if it is blank, and otherwise checks that it has a file system that can be used. $2: the device
# that fstab mounts at the same place so far.
format_if_blank() {
  local device=$1 found type in_use
  found=$(signature "$device")
  type=$(sed -n 's/^TYPE=//p' <<<"$found")
  if [ -z "$found" ]; then
    [ -z "$2" ] || fail "$FSTAB: mounts $2 at $DATA_DIR, but $device is blank; take that line out first"
    in_use=$(lsblk --noheadings --output MOUNTPOINT "$device" | tr -d '[:space:]')
    [ -z "$in_use" ] || fail "$device: is in use"
    is_blank "$device" ||
      fail "$device: has data on it, of a kind I do not know, so it is not formatted. To give it up: wipefs and blkdiscard"
    say "Formatting $device, which is blank"
    run mkfs.ext4 -q -L clasp-data "$device"
  elif [ "$type" != ext4 ] && [ "$type" != xfs ]; then
    fail "$device: has ${type:-a partition table} on it, expected nothing, ext4 or xfs; it is left alone"
  fi
}

mount_volume() {
  local device mounted_from mounted_at uuid listed
  if [ -z "$VOLUME" ]; then
    say "No VOLUME: the data stays on the machine's own disk, in $DATA_DIR"
    run mkdir -p "$DATA_DIR"
    return
  fi
  device=$(readlink -f "$VOLUME")
  [ -b "$device" ] || fail "VOLUME: $VOLUME is no block device; attach the volume first"
  listed=$(awk -v at="$DATA_DIR" '$1 !~ /^#/ && $2 == at { print $1 }' "$FSTAB")
  mounted_from=$(findmnt --noheadings --output SOURCE --mountpoint "$DATA_DIR" || true)
  if [ "$mounted_from" = "$device" ]; then
    say "$DATA_DIR: is mounted already"
  else
    [ -z "$mounted_from" ] || fail "$DATA_DIR: $mounted_from is mounted there, expected $VOLUME"
    mounted_at=$(findmnt --noheadings --output TARGET --source "$device" || true)
    [ -z "$mounted_at" ] || fail "VOLUME: is mounted at $mounted_at: set DATA_DIR=$mounted_at, or unmount it"
    if [ -d "$DATA_DIR" ] && [ -n "$(ls -A "$DATA_DIR")" ]; then
      fail "$DATA_DIR: has files that the volume would hide; move them away first"
    fi
    format_if_blank "$device" "$listed"
  fi
  uuid=$(signature "$device" | sed -n 's/^UUID=//p')
  uuid=${uuid:-as-formatted} # in a dry run only
  if [ -z "$listed" ]; then
    say "Mounting it at $DATA_DIR at every start"
    # nofail: a machine without its volume still boots, and can be logged in to. Docker waits for a volume that is there.
    keep_mount "UUID=$uuid $DATA_DIR auto defaults,nofail,discard,x-systemd.before=docker.service 0 2"
  elif [ "$listed" != "UUID=$uuid" ] && [ "$(readlink -f "$listed")" != "$device" ]; then
    fail "$FSTAB: mounts $listed at $DATA_DIR, expected UUID=$uuid"
  fi
  if [ -z "$mounted_from" ]; then
    run mkdir -p "$DATA_DIR"
    run mount "$DATA_DIR"
    # With nofail, mount does not report that it did nothing.
    [ "$dry_run" = yes ] || mountpoint --quiet "$DATA_DIR" || fail "$DATA_DIR: $device could not be mounted there"
  fi
}

keep_mount() {
  if [ "$dry_run" = yes ]; then
    printf '    would add to %s: %s\n' "$FSTAB" "$1"
  else
    printf '%s\n' "$1" >>"$FSTAB"
    systemctl daemon-reload
  fi
}

make_folders() {
  say "Making the folders"
  run install -d -m 0700 -o "$RELAY_ID" -g "$RELAY_ID" "$DATA_DIR/relay"
  run chown -R --no-dereference "$RELAY_ID:$RELAY_ID" "$DATA_DIR/relay"
  run install -d -m 0700 -o root -g root "$DATA_DIR/caddy" "$DATA_DIR/backups"
  run install -d -m 0755 -o root -g root "$WEB_DIR"
  run install -d -m 0700 -o "$RELAY_ID" -g "$RELAY_ID" "$DATA_DIR/turn"
  if [ "$turn" = yes ] && [ ! -f "$DATA_DIR/turn/secret" ]; then
    say "Making the secret that the relay and the TURN server share"
    run install -m 0400 -o "$RELAY_ID" -g "$RELAY_ID" <(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') "$DATA_DIR/turn/secret"
  fi
}

open_firewall() {
  local port ssh_ports
  [ "$firewall" = yes ] || return 0
  # Every port that an administrator may have logged in by, so that nobody is locked out.
  ssh_ports=$(sshd -T 2>/dev/null | awk '$1 == "port" { print $2 }' || true)
  if [ -n "${SSH_CONNECTION:-}" ]; then ssh_ports+=" ${SSH_CONNECTION##* }"; fi
  say "Opening the firewall for HTTP, HTTPS and SSH"
  for port in ${ssh_ports:-22}; do run ufw allow "$port/tcp"; done
  run ufw allow 80/tcp
  run ufw allow 443/tcp
  run ufw allow 443/udp
  if [ "$turn" = yes ]; then
    run ufw allow "$TURN_PORT/tcp"
    run ufw allow "$TURN_PORT/udp"
    run ufw allow "$TURN_RELAYED/udp"
  fi
  run ufw --force enable
}

compose() {
  run docker compose --project-directory "$HERE" --file "$HERE/docker-compose.yml" "$@"
}

get_images() {
  if [ -n "$CLASP_IMAGE" ]; then
    say "Getting $CLASP_IMAGE"
    compose pull relay || docker image inspect "$CLASP_IMAGE" >/dev/null ||
      fail "CLASP_IMAGE: $CLASP_IMAGE can be had from nowhere"
  else
    say "Building the relay and the app from this checkout"
    compose build --pull relay
  fi
  compose pull caddy
  if [ "$turn" = yes ]; then compose pull turn; fi
}

# Copies the app out of the image. The folder itself stays the same, since Caddy has it mounted; the page is copied last,
# so that it never names a file that is missing.
fill_web_dir() {
  local container staging
  say "Filling $WEB_DIR"
  if [ "$dry_run" = yes ]; then
    printf '    would copy %s out of the image\n' "$WEB_IN_IMAGE"
    return
  fi
  staging=$(mktemp -d)
  container=$(docker create "${CLASP_IMAGE:-clasp-relay:local}")
  if ! docker cp "$container:$WEB_IN_IMAGE/." "$staging" || [ ! -f "$staging/index.html" ]; then
    if [ -f "$WEB_DIR/index.html" ]; then
      say "The image has no app: what is in $WEB_DIR stays"
      cp "$WEB_DIR/index.html" "$staging/index.html"
    else
      say "The image has no app: a placeholder is shown"
      cp "$HERE/../placeholder/index.html" "$staging/index.html"
    fi
  fi
  docker rm --force "$container" >/dev/null
  mv "$staging/index.html" "$staging.html"
  cp -R "$staging/." "$WEB_DIR/"
  install -m 0644 "$staging.html" "$WEB_DIR/.index.html.new"
  mv -f "$WEB_DIR/.index.html.new" "$WEB_DIR/index.html"
  chmod -R a+rX "$WEB_DIR"
  rm -rf "$staging" "$staging.html"
  if [ -d "$WEB_DIR/assets" ]; then find "$WEB_DIR/assets" -type f -mtime +"$OLD_ASSETS_DAYS" -delete; fi
}

start() {
  say "Starting"
  if ! compose up --detach --remove-orphans --wait --wait-timeout "$START_PATIENCE_S"; then
    compose logs --tail 30 relay caddy >&2 || true
    fail "it did not start; its last words are above"
  fi
  # By standard input: if git or an editor has replaced the file, the container has still mounted the old one.
  compose exec -T caddy caddy reload --config - --adapter caddyfile <"$HERE/Caddyfile"
}

main() {
  parse "$@"
  if [ "$dry_run" = no ] && [ "$(id -u)" -ne 0 ]; then fail "must be run as root: sudo $0 $*"; fi
  read_settings
  install_packages
  mount_volume
  make_folders
  open_firewall
  get_images
  fill_web_dir
  start
  if [ "$dry_run" = no ]; then say "Done: https://$DOMAIN"; fi
}

main "$@"
