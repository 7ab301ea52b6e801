# shellcheck shell=bash
# A real registry on loopback, its storage in a directory of ours.

# start_registry DIR [auth | tls]: sets registry_port and registry_pid. With auth, only alice:secret
# may read; with tls, it has the certificate that make_certificate made in DIR.
start_registry() {
    local dir=$1 auth='' tls=''
    mkdir -p "$dir/storage"
    if [ "${2:-}" = auth ]; then
        # The password is "secret", hashed once.
        # shellcheck disable=SC2016
        printf 'alice:%s\n' '$2b$05$0tTAP2nOUHqhFQXEBTtKMuqt2XDLJAQ8wT.Xz1GnybGr4JmfNHMw6' >"$dir/htpasswd"
        auth=$(printf 'auth:\n  htpasswd:\n    realm: test\n    path: "%s"' "$dir/htpasswd")
    fi
    [ "${2:-}" != tls ] || tls=", tls: {certificate: \"$dir/server.crt\", key: \"$dir/server.key\"}"
    cat >"$dir/config.yml" <<CONFIG
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$dir/storage"}
  delete: {enabled: true}
http: {addr: "127.0.0.1:0"$tls}
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

# make_certificate DIR: an authority, ca.crt, and a certificate of it for 127.0.0.1.
make_certificate() {
    local new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2)
    "${new[@]}" -subj /CN=podspawn-test-ca -keyout "$1/ca.key" -out "$1/ca.crt" 2>/dev/null
    "${new[@]}" -subj /CN=127.0.0.1 -keyout "$1/server.key" -out "$1/server.crt" -CA "$1/ca.crt" -CAkey "$1/ca.key" \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:false 2>/dev/null
}
