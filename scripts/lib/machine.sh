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

# pasta needs /dev/net/tun and sshfs /dev/fuse, which every distribution opens to users and some
# test machines do not.
open_devices() {
    open_device /dev/net/tun 10 200
    open_device /dev/fuse 10 229
}

open_device() {
    local path=$1 mode
    is_root && in_ci || return 0
    if [ ! -e "$path" ]; then
        mkdir -p "$(dirname "$path")"
        mknod -m 666 "$path" c "$2" "$3" || return 0
        on_exit rm -f "$path"
    fi
    mode=$(stat -c %a "$path")
    case $mode in
        *6 | *7) ;;
        *)
            say "opening $path to users until the end (it was $mode)"
            chmod 666 "$path"
            on_exit chmod "$mode" "$path"
            ;;
    esac
}
