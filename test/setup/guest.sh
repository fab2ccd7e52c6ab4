#!/usr/bin/env bash
# The test guest (kernel, initial ram disk, workload), built outside the checkout. Prints its directory.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

guest=$(cd "$(dirname "$0")/../guest" && pwd)
directory=${TIDEMARK_GUEST:-$tidemark_cache/guest}
# Rebuilt when what it is built from changed.
stamp=$(cat "$guest/build-guest.sh" "$guest/rec.c" "$guest/init.sh" | sha256sum | cut -d' ' -f1)

build() { # DIRECTORY
  echo 'setup: building the test guest' >&2
  "$guest/build-guest.sh" "$1" >&2
}

for tool in busybox gcc cpio apt-get; do
  [ -d "$directory" ] || command -v "$tool" >/dev/null || unavailable "no $tool, so no test guest"
done
make_once "$directory" "$stamp" build || unavailable 'the test guest could not be built'
echo "$directory"
