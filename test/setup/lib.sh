# Shared by the set-up scripts. Where something cannot be had, CI fails; elsewhere the tests that need it skip and say so.
# shellcheck shell=bash

tidemark_cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidemark

# unavailable WHAT : ends the script, with an error in CI only.
unavailable() {
  printf 'setup: %s\n' "$1" >&2
  if [ "${CI:-}" = true ]; then exit 1; fi
  printf 'setup: going on without; the tests that need it are skipped and say so\n' >&2
  exit 0
}

# make_once DIRECTORY STAMP COMMAND... : runs the command with a new directory as its last argument and puts that in
# place of DIRECTORY in one step, unless DIRECTORY was made from the same stamp already. One process at a time.
# `set -e` does not reach into a function called here: its last status is what counts.
make_once() {
  local directory=$1 stamp=$2 partial
  shift 2
  [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  mkdir -p "$(dirname "$directory")"
  exec 9>"$directory.lock"
  flock 9
  [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  partial=$(mktemp -d "$directory.partial.XXXXXX")
  if ! "$@" "$partial"; then
    rm -rf "$partial"
    return 1
  fi
  printf '%s\n' "$stamp" >"$partial/.stamp"
  chmod 755 "$partial"
  rm -rf "$directory"
  mv "$partial" "$directory"
}
