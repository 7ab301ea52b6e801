# shellcheck shell=bash
# What the machine must allow ordinary users, and what a test machine may be told to allow.

# Can this user make a user namespace and mount in it? Some distributions allow the first alone.
userns_works() {
    as_user "$1" unshare --user --map-root-user --mount sh -c 'mount -t tmpfs none /tmp' 2>/dev/null
}

# An sshd that is not root cannot give a terminal to the tty group. Where the machine's devpts
# does not do so by itself, commands run by as_user get one that does, in a mount namespace of
# their own.
need_ttys() {
    local group
    group=$(getent group tty | cut -d: -f3)
    ! grep -q "^[^ ]* /dev/pts devpts [^ ]*gid=${group:-5}\b" /proc/mounts || return 0
    is_root || return 1
    # shellcheck disable=SC2016,SC2034 # expanded by that shell; for as_user
    as_user_inside=(unshare --mount sh -c
        'mount -t devpts -o "gid=$1,mode=620,ptmxmode=666" devpts /dev/pts && shift && exec "$@"'
        - "${group:-5}")
}

# pasta needs /dev/net/tun, which every distribution opens and some test machines do not.
open_tun() {
    local mode
    if [ ! -e /dev/net/tun ]; then
        { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; } 2>/dev/null || return 0
    fi
    mode=$(stat -c %a /dev/net/tun)
    case $mode in
        *6 | *7) ;;
        *)
            is_root && in_ci || return 0
            say "opening /dev/net/tun to users until the end (it was $mode)"
            chmod 666 /dev/net/tun
            on_exit chmod "$mode" /dev/net/tun
            ;;
    esac
}
