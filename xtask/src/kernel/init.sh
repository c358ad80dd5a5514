#!/bin/sh
# The first process of the guest: makes the machine that the suites expect, runs them one by one
# and says on the console how each ended. The host reads the lines that start with "suite".

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /sbin /usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec < /dev/null > /dev/console 2>&1

# The full programs come first, busybox fills the gaps.
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/tmp
/bin/busybox --install -s /bin
mkdir -p /dev/pts /dev/shm /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ip link set lo up

while read -r module; do
    insmod "/modules/$module" || echo "module $module was not loaded"
done < /modules/order

echo "release: $(uname -r)"
/portguard --version

export PORTGUARD_BIN=/portguard PORTGUARD_BPF_OBJECT=/portguard.o RUST_BACKTRACE=1
# The network cards of this machine; without any, none are tested.
PORTGUARD_CARDS=$(cat /etc/cards)
export PORTGUARD_CARDS
# Nobody else is here to miss a processor.
export PORTGUARD_DISPOSABLE_MACHINE=1
for path in /suites/*; do
    suite=${path##*/}
    echo "suite $suite: started"
    # Two emulated processors: tests beside each other would only disturb their clocks.
    # Why a test was skipped and how much was verified is in what passed, which is silent otherwise.
    # shellcheck disable=SC2046 # No argument has blanks.
    "$path" --test-threads=1 --show-output $(cat /etc/arguments)
    status=$?
    if [ "$status" -eq 0 ]; then
        echo "suite $suite: ok"
    else
        dmesg | tail -n 20
        echo "suite $suite: failed with exit status $status"
    fi
done

echo "suites: done"
poweroff -f
