# shellcheck shell=bash
# A throw-away virtual machine: its disk, starting it, reaching it over ssh.
#
# Its directory holds disk.raw (the distribution, made once), run.qcow2 (what this run wrote),
# kernel, initrd, admin and user keys, and console.

vm_packages=apt,systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,kmod,apparmor,initramfs-tools
vm_packages+=,openssh-server,openssh-sftp-server,uidmap,passt,nftables,iproute2,procps,libseccomp2,ca-certificates

# What mmdebstrap is asked for each distribution, after the packages that all have.
vm_distribution() {
    case $1 in
        bookworm) vm_source=(--components=main --include=linux-image-amd64 bookworm) ;;
        noble)
            ubuntu_keys "$2"
            vm_source=("--components=main,universe" --include=linux-image-virtual --keyring="$2/ubuntu.gpg" noble)
            vm_mirror=(http://archive.ubuntu.com/ubuntu)
            ;;
        *) die "no machine of $1 is known: there are bookworm and noble" ;;
    esac
}

# Debian has no package of Ubuntu's keys.
ubuntu_keys() {
    local package=$1/keys.deb pool=https://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring
    [ ! -e "$1/ubuntu.gpg" ] || return 0
    curl -sSfL -o "$package" "$pool/ubuntu-keyring_2023.11.28.1_all.deb"
    sha256sum --quiet --check <<<"36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  $package"
    dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/keyrings/ubuntu-archive-keyring.gpg >"$1/new.gpg"
    mv "$1/new.gpg" "$1/ubuntu.gpg"
}

# make_disk DIR SUITE: the distribution, from its own packages; again only if this recipe has changed.
make_disk() {
    local dir=$1 suite=$2 root recipe vm_source=() vm_mirror=()
    recipe="$suite $(sha256sum <"${BASH_SOURCE[0]}")"
    [ "$(cat "$dir/recipe" 2>/dev/null)" != "$recipe" ] || return 0
    rm -f "$dir/recipe" "$dir/disk.raw"
    vm_distribution "$suite" "$dir"
    root=$(mktemp -d "$dir/root.XXXXXX")
    say "making the disk of a machine"
    nice mmdebstrap --quiet --mode=root --variant=minbase --include="$vm_packages" \
        "${vm_source[@]}" "$root" "${vm_mirror[@]}" >&2
    local key
    for key in admin user; do
        [ -e "$dir/$key" ] || ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$dir/$key"
    done
    install -d -m 700 "$root/root/.ssh"
    install -m 600 "$dir/admin.pub" "$root/root/.ssh/authorized_keys"
    echo podspawn-vm >"$root/etc/hostname"
    echo '127.0.0.1 localhost podspawn-vm' >"$root/etc/hosts"
    printf '/dev/vda / ext4 defaults 0 1\n/dev/vdb /mnt ext4 ro 0 0\n' >"$root/etc/fstab"
    # Fixed, as qemu's user network has it: nothing waits for an answer.
    printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
        >"$root/etc/systemd/network/80-vm.network"
    mkdir -p "$root/etc/systemd/system.conf.d"
    # Emulated, on a busy machine: nothing is late.
    printf '[Manager]\nDefaultTimeoutStartSec=900s\nDefaultDeviceTimeoutSec=900s\n' >"$root/etc/systemd/system.conf.d/vm.conf"
    printf 'LoginGraceTime 900\n' >"$root/etc/ssh/sshd_config.d/10-vm.conf"
    # sshd itself, where it would be systemd that listens for it.
    [ ! -e "$root/lib/systemd/system/ssh.socket" ] || chroot "$root" systemctl disable --quiet ssh.socket
    chroot "$root" systemctl enable --quiet systemd-networkd ssh
    chroot "$root" systemctl mask --quiet systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
        e2scrub_all.timer fstrim.timer
    cp "$root"/boot/vmlinuz-* "$dir/kernel"
    cp "$root"/boot/initrd.img-* "$dir/initrd"
    mke2fs -q -t ext4 -d "$root" "$dir/disk.raw" 4G
    rm -rf --one-file-system "$root"
    printf '%s\n' "$recipe" >"$dir/recipe"
}

# start_vm DIR FILE…: boots it with a second disk that has these files, and waits until root can
# log in. Not by scp: an emulated machine decrypts slowly.
start_vm() {
    vm_dir=$1
    shift
    rm -rf "$vm_dir/files" "$vm_dir/files.raw"
    mkdir "$vm_dir/files"
    cp "$@" "$vm_dir/files/"
    mke2fs -q -t ext4 -d "$vm_dir/files" "$vm_dir/files.raw" 512M
    vm_port=$(free_port)
    rm -f "$vm_dir/run.qcow2"
    qemu-img create -q -f qcow2 -b disk.raw -F raw "$vm_dir/run.qcow2"
    say "booting, with its console in $vm_dir/console and ssh on port $vm_port"
    nice qemu-system-x86_64 -accel tcg -cpu max -m 2048 -smp 1 -display none -serial "file:$vm_dir/console" \
        -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$vm_port-:22" -device virtio-net-pci,netdev=net \
        -drive "file=$vm_dir/run.qcow2,if=virtio,cache=unsafe" \
        -drive "file=$vm_dir/files.raw,format=raw,if=virtio,read-only=on" \
        -kernel "$vm_dir/kernel" -initrd "$vm_dir/initrd" -append 'root=/dev/vda rw console=ttyS0 quiet' &
    vm_pid=$!
    wait_up
}

stop_vm() { stop_pid "$vm_pid"; }

wait_up() {
    wait_until 1800 as_root true || {
        tail -n 20 "$vm_dir/console" >&2
        die "the machine does not come up"
    }
}

wait_down() { wait_until 900 vm_is_down; }

# qemu accepts a connection for a machine that is down: what counts is that sshd greets.
vm_is_down() { ! timeout 60 bash -c "exec 3<>/dev/tcp/127.0.0.1/$vm_port && read -r -t 30 <&3"; }

vm_options() {
    # Nobody else knows the port, and the machine has made its host keys itself.
    printf '%s\n' -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o LogLevel=ERROR \
        -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o ConnectTimeout=120 -o ServerAliveInterval=60
}

as_root() {
    local options
    mapfile -t options < <(vm_options)
    ssh "${options[@]}" -i "$vm_dir/admin" -p "$vm_port" root@127.0.0.1 "$@"
}

as_alice() {
    local options
    mapfile -t options < <(vm_options)
    ssh "${options[@]}" -i "$vm_dir/user" -p "$vm_port" alice@127.0.0.1 "$@"
}

sftp_alice() {
    local options
    mapfile -t options < <(vm_options)
    sftp -q -b - "${options[@]}" -i "$vm_dir/user" -P "$vm_port" alice@127.0.0.1
}
