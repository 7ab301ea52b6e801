# shellcheck shell=bash
# A real registry on loopback, its storage in a directory of ours.

# start_registry DIR [auth]: sets registry_port and registry_pid. With auth, only alice:secret may read.
start_registry() {
    local dir=$1 auth=''
    mkdir -p "$dir/storage"
    if [ "${2:-}" = auth ]; then
        # The password is "secret", hashed once.
        # shellcheck disable=SC2016
        printf 'alice:%s\n' '$2b$05$0tTAP2nOUHqhFQXEBTtKMuqt2XDLJAQ8wT.Xz1GnybGr4JmfNHMw6' >"$dir/htpasswd"
        auth=$(printf 'auth:\n  htpasswd:\n    realm: test\n    path: "%s"' "$dir/htpasswd")
    fi
    cat >"$dir/config.yml" <<CONFIG
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$dir/storage"}
  delete: {enabled: true}
http: {addr: "127.0.0.1:0"}
$auth
CONFIG
    OTEL_TRACES_EXPORTER=none docker-registry serve "$dir/config.yml" >"$dir/log" 2>&1 &
    registry_pid=$!
    on_exit stop_pid "$registry_pid"
    wait_until 15 registry_listens "$dir/log" || {
        tail -n 5 "$dir/log" >&2
        die "the registry did not start"
    }
    # shellcheck disable=SC2034 # for the caller
    registry_port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$dir/log" | head -n 1)
}

registry_listens() { grep -q 'listening on 127\.0\.0\.1:[0-9]' "$1"; }

# push_image LAYOUT_DIR PORT NAME:TAG [skopeo options…]
push_image() {
    local layout=$1 port=$2 name=$3
    shift 3
    local keep=--preserve-digests
    [ "${1:-}" != --format ] || keep=''
    # Else it would compress the layers that are plain.
    skopeo copy --quiet --insecure-policy ${keep:+"$keep"} --dest-tls-verify=false --all "$@" \
        "oci:$layout" "docker://127.0.0.1:$port/$name"
}
