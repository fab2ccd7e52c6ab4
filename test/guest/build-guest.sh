#!/usr/bin/env bash
# build-guest.sh OUTDIR [KERNELDIR] : vmlinuz + initrd.gz + ./rec for run-guest.sh.
# KERNELDIR = an unpacked Debian linux-image .deb (default: apt-get download the cloud kernel).
# Needs: busybox-static, nbd-client, gcc + static libc, cpio, gzip. QGA=1 also packs qemu-ga (apt-get download).
# XFILES="/bin/x /bin/y" packs more host programs with their libraries; MODS adds kernel modules.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
kernel=${2:-}
tmp=$(mktemp -d "$out/build.XXXX")
trap 'rm -rf "$tmp"' EXIT

# apt-get drops to its own user for a download where it can: let that user write here.
download() { # PACKAGE DIRECTORY : unpacks the package without installing it
  chmod 755 "$tmp"
  (cd "$tmp" && apt-get download -q -o APT::Sandbox::User=root "$1" >/dev/null && dpkg-deb -x "$1"_*.deb "$2")
}

if [ -z "$kernel" ]; then
  [ -n "$(apt-cache depends linux-image-cloud-amd64 2>/dev/null)" ] || apt-get update -qq
  version=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
  # Lists that are older than the archive name a kernel that is gone.
  download "$version" kernel || { apt-get update -qq
    version=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
    download "$version" kernel; }
  kernel=$tmp/kernel
fi

root=$tmp/root
mkdir -p "$root"/{bin,dev,proc,sys,mnt,run,tmp,var/run,etc,mod,sbin,usr}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$kernel"/boot/vmlinuz-* "$out/vmlinuz"

add_module() { # NAME : with what it depends on, in load order; names may use - or _
  local name file depends dependency
  name=$(tr _ - <<<"$1")
  if grep -qx "$name" "$root/mod/order" 2>/dev/null; then return 0; fi
  file=$(find "$kernel/lib/modules" -name "$name.ko" -o -name "${name//-/_}.ko" | head -1)
  [ -n "$file" ] || return 0 # built in
  depends=$(grep -a -o -m1 'depends=[a-z0-9_,-]*' "$file" | head -1)
  depends=${depends#depends=}
  for dependency in ${depends//,/ }; do add_module "$dependency"; done
  cp "$file" "$root/mod/$name.ko"
  echo "$name" >>"$root/mod/order"
}
for module in virtio_pci virtio_blk virtio_console virtio_net virtio_rng nbd ${MODS:-}; do add_module "$module"; done

add_program() { # FILE : with its libraries
  local library
  install -D "$1" "$root/bin/$(basename "$1")"
  { ldd "$1" 2>/dev/null || :; } | { grep -o '/[^ ]*' || :; } | while read -r library; do
    [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
  done
}
if [ "${QGA:-0}" = 1 ]; then
  download qemu-guest-agent agent
  add_program "$tmp/agent/usr/sbin/qemu-ga"
fi
for program in /sbin/nbd-client ${XFILES:-}; do add_program "$program"; done

gcc -static -O2 -Wall -o "$root/bin/rec" "$here/rec.c"
cp "$root/bin/rec" "$out/rec"
install -m 755 "$here/init.sh" "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd.gz"
ls -l "$out/vmlinuz" "$out/initrd.gz"
