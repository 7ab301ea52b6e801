# shellcheck shell=bash
# Ordinary users for tests, made and removed by root.

# make_user NAME HOME: with a subordinate range of 65536 ids. make_user NAME HOME none: without any.
make_user() {
    local name=$1 home=$2 range start
    useradd --create-home --home-dir "$home" --shell /bin/sh "$name"
    on_exit remove_user "$name"
    if [ "${3:-}" = none ]; then
        # useradd hands out a range where the system's defaults say so.
        drop_subids "$name"
        return
    fi
    if ! grep -q "^$name:" /etc/subuid || ! grep -q "^$name:" /etc/subgid; then
        drop_subids "$name"
        start=$(awk -F: '{ end = $2 + $3; if (end > max) max = end } END { print max < 100000 ? 100000 : max }' \
            /etc/subuid /etc/subgid)
        range=$start-$((start + 65535))
        usermod --add-subuids "$range" --add-subgids "$range" "$name"
    fi
}

drop_subids() {
    local file option start count
    for file in subuid subgid; do
        option=--del-${file}s
        [ -e "/etc/$file" ] || continue
        while IFS=: read -r _ start count; do
            usermod "$option" "$start-$((start + count - 1))" "$1"
        done < <(grep "^$1:" "/etc/$file")
    done
}

# Ends everything that still runs with the user's id, then removes the user.
remove_user() {
    end_processes_of "$1"
    local home
    home=$(getent passwd "$1" | cut -d: -f6)
    userdel --force "$1" >/dev/null 2>&1
    drop_leftover_subids "$1"
    [ -z "$home" ] || rm -rf -- "$home"
}

# userdel of some releases leaves the ranges behind.
drop_leftover_subids() {
    local file
    for file in /etc/subuid /etc/subgid; do
        if [ -e "$file" ] && grep -q "^$1:" "$file"; then
            sed -i "/^$1:/d" "$file"
        fi
    done
}

end_processes_of() {
    local uid pid tries
    uid=$(id -u "$1" 2>/dev/null) || return 0
    for ((tries = 0; tries < 50; tries++)); do
        local pids=()
        for pid in /proc/[0-9]*; do
            [ "$(stat -c %u "$pid" 2>/dev/null)" = "$uid" ] && pids+=("${pid#/proc/}")
        done
        [ ${#pids[@]} -gt 0 ] || return 0
        kill -9 "${pids[@]}" 2>/dev/null
        sleep 0.1
    done
}
