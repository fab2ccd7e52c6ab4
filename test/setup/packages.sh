#!/usr/bin/env bash
# Installs the Debian packages the tests use that are not there yet. Looks at programs, not packages, so that it costs
# nothing when all are there and accepts what came by another way.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# Programs of the system live outside an ordinary user's PATH on Debian.
PATH=$PATH:/usr/sbin:/sbin

has() { command -v "$1" >/dev/null; }
has_java_17() { has java && [ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" -ge 17 ]; }
# Debian's own Python: another one in PATH does not see Debian's modules.
has_python_nbd() { /usr/bin/python3 -c 'import nbd' 2>/dev/null; }
# libc6-dev's static library: the guest's workload is linked with it.
has_static_libc() { has gcc && [ -f "$(gcc -print-file-name=libc.a)" ]; }
has_static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

missing=()
need() { # PACKAGE CHECK...
  local package=$1
  shift
  "$@" || missing+=("$package")
}
need qemu-system-x86 has qemu-system-x86_64
need qemu-utils has qemu-img
need nbdkit has nbdkit
need libnbd-bin has nbdfuse
need nbd-client has nbd-client
need python3-libnbd has_python_nbd
need fio has fio
need e2fsprogs has mkfs.ext4
need xfsprogs has mkfs.xfs
need btrfs-progs has mkfs.btrfs
need strace has strace
need openssl has openssl
need busybox-static has_static_busybox
need cpio has cpio
need gcc has gcc
need libc6-dev has_static_libc
need kmod has modprobe
need openjdk-17-jre-headless has_java_17
need maven has mvn

if [ ${#missing[@]} = 0 ]; then exit 0; fi
command -v apt-get >/dev/null || unavailable "this system has no apt-get; needed as on Debian: ${missing[*]}"
[ "$(id -u)" = 0 ] || unavailable "not root, so these Debian packages were not installed: ${missing[*]}"

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null || echo 'setup: apt-get update failed; trying with the lists that are there' >&2
apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
  unavailable "apt-get could not install: ${missing[*]}"
