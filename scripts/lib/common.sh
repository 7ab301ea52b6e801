# shellcheck shell=bash
# Words that every script shares: messages, clean-up, temporary places, other users.
# Sourced after `set -euo pipefail`; sets nothing but functions and root_dir.

# shellcheck disable=SC2034 # for those who source this
root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Progress goes to stderr: stdout belongs to what the script was asked for.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

in_ci() { [ "${CI:-}" = true ]; }

# Clean-up runs in reverse order, whatever ends the script, and keeps its status.
cleanup_steps=()
on_exit() { cleanup_steps+=("$(printf '%q ' "$@")"); }
run_cleanup() {
    local status=$? at
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    for ((at = ${#cleanup_steps[@]} - 1; at >= 0; at--)); do
        eval "${cleanup_steps[at]}"
    done
    exit "$status"
}
arm_cleanup() {
    trap run_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

# A directory that every user may enter, gone at the end: sockets in it need a short
# path, and the work tree may lie below a directory that ordinary users cannot enter.
make_stage() {
    stage=$(mktemp -d "/tmp/podspawn-$1.XXXXXX")
    chmod 755 "$stage"
    on_exit remove_tree "$stage"
}

# What a pod wrote may belong to subordinate ids: only root or their user namespace
# can remove it.
remove_tree() {
    [ -e "$1" ] || return 0
    rm -rf -- "$1" 2>/dev/null || unshare --user --map-auto --map-root-user rm -rf -- "$1" 2>/dev/null ||
        say "could not remove $1"
}

# Ends a process that this script started, and waits until it has ended.
stop_pid() {
    local pid=$1 tries
    kill "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 50; tries++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

# Waits until a command succeeds; $1 is the number of seconds, then the command.
wait_until() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# A port that is free on loopback now; who takes it must cope with its being gone.
free_port() {
    python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a command as an ordinary user, in a clean environment: as_user NAME [VAR=VALUE…] COMMAND…
# Signals too: what a shell starts in the background ignores some, and so would every session.
as_user_inside=()
as_user() {
    local name=$1 home
    shift
    home=$(getent passwd "$name" | cut -d: -f6)
    local clean=(env -i --default-signal "HOME=$home" "USER=$name" "LOGNAME=$name" LANG=C.UTF-8
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    if [ "$(id -un)" = "$name" ]; then
        (cd "$home" && exec "${clean[@]}" "$@")
    else
        (cd / && exec "${as_user_inside[@]}" setpriv --reuid "$name" --regid "$name" --init-groups \
            "${clean[@]}" sh -c 'cd && exec "$@"' - env "$@")
    fi
}
