#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /run /var/run
while read m; do insmod /mod/$m.ko || echo "GUEST insmod $m failed"; done < /mod/order
arg() { sed -n "s/.*\btm\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
mode=$(arg mode); fs=$(arg fs); dev=/dev/vda
nbd=$(arg nbd) # host:port/export: the disk is not QEMU's but the kernel's own NBD client's
if [ -n "$nbd" ]; then
  ifconfig lo up; ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; server=${nbd%%/*}; dev=/dev/nbd0
  nbd-client ${server%:*} ${server#*:} -N ${nbd#*/} -C $(arg nbdconnections) $dev || echo "GUEST nbd-client failed"
fi
for i in 1 2 3 4 5 6 7 8 9; do [ -b $dev ] && break; sleep 1; done
echo "GUEST booted $(uname -r) up=$(cut -d' ' -f1 /proc/uptime) mode=$mode"
port=$(ls /dev/vport*p1 2>/dev/null | head -1); [ -x /bin/qemu-ga ] && [ -n "$port" ] && qemu-ga -d -m virtio-serial -p $port
[ "$mode" = shell ] && { setsid cttyhack sh; poweroff -f; }
mount -t ${fs:-ext4} -o $(arg opts),rw $dev /mnt 2>/dev/null || mount -t ${fs:-ext4} $dev /mnt || { echo "GUEST mount failed"; poweroff -f; }
echo "GUEST mounted up=$(cut -d' ' -f1 /proc/uptime)"; mkdir -p /mnt/rec; sync
case $mode in
write) last=$(ls /mnt/rec | sed -n 's/^r0*\([0-9]*\)$/\1/p' | tail -1); c=$(arg count); u=$(arg usleep); rec write /mnt/rec ${last:-1} ${c:-1000000000} ${u:-0} ;;
verify) rec verify /mnt/rec; echo "GUEST verify rc=$?" ;;
hold) echo "GUEST holding"; sleep 1000000 ;;
esac
umount /mnt; [ -n "$nbd" ] && nbd-client -d $dev; echo "GUEST done up=$(cut -d' ' -f1 /proc/uptime)"; poweroff -f
