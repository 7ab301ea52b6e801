# shellcheck shell=bash
# What the scripts need from the distribution, and a Rust that is new enough.

# For each purpose: Debian and Ubuntu packages.
packages_for() {
    case $1 in
        build) echo build-essential pkg-config libseccomp-dev ;;
        run) echo openssh-server openssh-client uidmap passt nftables ;;
        # scripts/make-images says what needs which.
        images) echo busybox-static mmdebstrap zstd gcc libc6-dev python3 util-linux ;;
        bench) echo podman isal openssl e2fsprogs ;;
        package) echo dpkg-dev lintian ;;
        # A root directory for scripts/package --check.
        check) echo mmdebstrap ;;
        # A virtual machine for scripts/vm-test.
        vm) echo qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client curl ca-certificates ;;
        faults) echo libfaketime ;;
        quickstart) echo curl ca-certificates python3 ;;
        # A registry, tools that read images independently, and the clients that users have.
        test)
            echo docker-registry skopeo umoci podman acl attr libcap2-bin procps iproute2 shellcheck \
                tmux sshfs lftp rsync git curl python3-paramiko python3-asyncssh ansible-core ncurses-term \
                xvfb xauth x11-apps x11-utils prometheus postgresql-client
            ;;
    esac
}

# Installs what is missing of the named groups: need_packages build run …
need_packages() {
    local group package all=() missing=()
    command -v dpkg-query >/dev/null || {
        say "this is not Debian or Ubuntu: nothing is installed, what is missing will show"
        return 0
    }
    for group in "$@"; do
        for package in $(packages_for "$group"); do
            all+=("$package")
            dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
                missing+=("$package")
        done
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local apt=(apt-get)
    if ! is_root; then
        can_sudo || die "missing packages; as root: apt-get install -y --no-install-recommends ${missing[*]}"
        apt=(sudo apt-get)
    fi
    say "installing ${missing[*]}"
    # All by name, so that none of them makes room for another.
    install_packages "${apt[@]}" -- "${all[@]}" || die "could not install ${missing[*]}"
}

# Without a password, or with somebody there to type it.
can_sudo() { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }

# Daemons that come with a package must not start for our sake: neither now nor at boot.
install_packages() {
    local apt=() sudo=() policy=/usr/sbin/policy-rc.d made='' log status=0 service
    while [ "$1" != -- ]; do
        apt+=("$1")
        shift
    done
    shift
    is_root || sudo=(sudo)
    log=$(mktemp)
    if [ ! -e "$policy" ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod 755 "$policy"
    fi
    { "${apt[@]}" -q update &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" -q install -y --no-upgrade --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null || status=$?
    [ -z "$made" ] || "${sudo[@]}" rm -f "$policy"
    if [ -d /run/systemd/system ]; then
        for service in "$@"; do
            case $service in
                openssh-server) "${sudo[@]}" systemctl disable -q ssh.service 2>/dev/null || true ;;
                docker-registry) "${sudo[@]}" systemctl disable -q docker-registry.service 2>/dev/null || true ;;
                prometheus) "${sudo[@]}" systemctl disable -q prometheus.service 2>/dev/null || true ;;
            esac
        done
    fi
    [ "$status" -eq 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return "$status"
}

# The Rust toolchain is the user's own: it is asked for, never installed.
need_rust() {
    local major minor
    command -v cargo >/dev/null || PATH="${HOME:-/root}/.cargo/bin:$PATH"
    read -r major minor < <(cargo --version 2>/dev/null |
        sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || true
    [ "${major:-0}" -gt 1 ] || { [ "${major:-0}" -eq 1 ] && [ "${minor:-0}" -ge 89 ]; } ||
        die "needs Rust 1.89 or newer: see https://rustup.rs"
}
