# shellcheck shell=bash
# A real sshd of an ordinary user on loopback, and the client that talks to it.
#
# Its directory holds host_key, client_key, authorized_keys, known_hosts, sshd_config,
# sshd.pid and log.

# prepare_sshd DIR PORT FORCED_COMMAND [SETTING…]: an empty forced command makes a plain sshd.
# Run as the user that sshd will run as.
prepare_sshd() {
    local dir=$1 port=$2 force=$3 here text setting=''
    shift 3
    here=$(dirname "${BASH_SOURCE[0]}")
    mkdir -p "$dir"
    chmod 700 "$dir"
    [ -e "$dir/host_key" ] || ssh-keygen -q -t ed25519 -N '' -C podspawn -f "$dir/host_key"
    [ -e "$dir/client_key" ] || ssh-keygen -q -t ed25519 -N '' -C podspawn -f "$dir/client_key"
    cp "$dir/client_key.pub" "$dir/authorized_keys"
    printf '[127.0.0.1]:%s %s\n' "$port" "$(cat "$dir/host_key.pub")" >"$dir/known_hosts"
    [ $# -eq 0 ] || setting=$(printf '%s\n' "$@")
    text=$(cat "$here/sshd_config.in")
    [ -z "$force" ] || text+=$'\n'$(cat "$here/sshd_match.in")
    text=${text//@PORT@/$port}
    text=${text//@DIR@/$dir}
    text=${text//@SETTINGS@/$setting}
    text=${text//@FORCE@/$force}
    printf '%s\n' "$text" >"$dir/sshd_config"
}

sshd_program() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v sshd; }

# run_sshd DIR: the daemon in the foreground of this shell; start it in the background.
run_sshd() { exec "$(sshd_program)" -D -e -f "$1/sshd_config" 2>>"$1/log"; }

sshd_is_up() { [ -s "$1/sshd.pid" ]; }

# It listens, or it has ended: sshd_has_started DIR PID.
sshd_has_started() { sshd_is_up "$1" || ! kill -0 "$2"; }

# ssh_to DIR PORT USER [ssh options and command…]
ssh_to() {
    local dir=$1 port=$2 user=$3
    shift 3
    ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -i "$dir/client_key" \
        -o "UserKnownHostsFile=$dir/known_hosts" -o GlobalKnownHostsFile=none \
        -o StrictHostKeyChecking=yes -o LogLevel=ERROR -p "$port" -l "$user" 127.0.0.1 "$@"
}
