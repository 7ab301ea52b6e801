# shellcheck shell=bash
# Tests in shell: check runs one and counts, summary says how it went, as cargo's tests do.
# Sourced with check_group set; check_logs may name files to show the end of at a failure.

passed=0 failed=0
check_logs=()

# check NAME COMMAND…: one test.
check() {
    local name=$1 said status log
    shift
    # Not "|| status=…", which would let a function run on after its first failure.
    set +e
    said=$(
        set -e
        "$@" 2>&1
    )
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'test %s::%s ... ok\n' "${check_group:?}" "$name"
    else
        failed=$((failed + 1))
        printf 'test %s::%s ... FAILED (%d)\n%s\n' "$check_group" "$name" "$status" "$said"
        for log in "${check_logs[@]}"; do
            tail -n 15 "$log" 2>/dev/null || true
        done
    fi
}

# refused COMMAND…: it fails, however; "!" would say nothing to set -e.
refused() {
    if "$@"; then
        printf 'went well: %s\n' "$*"
        return 1
    fi
}

# The last line, and a status that fits.
summary_of_checks() {
    local result=ok
    [ "$failed" -eq 0 ] || result=FAILED
    printf '\ntest result: %s. %d passed; %d failed; 0 ignored\n' "$result" "$passed" "$failed"
    [ "$failed" -eq 0 ]
}
