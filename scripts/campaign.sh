#!/usr/bin/env bash
# The campaign against the promises of SECURITY.md and docs/limits.md, at the length that is asked for; the ordinary tests do a little of
# each part. docs/campaign.md has what each part tries and what it gave.
#
#   scripts/campaign.sh fuzz [--seconds N] [TARGET...]   libFuzzer under the address sanitizer, N seconds (60) for each target
#   scripts/campaign.sh fuzz --fast [...]                the same without the sanitizer, some ten times as many inputs in a second
#   scripts/campaign.sh fuzz-report [--fast]             executions, edges, growth, slowest input and memory of all turns so far
#   scripts/campaign.sh fuzz-minimise                    the corpora into crates/fuzzing/corpus: files that reach what seeds do not
#   scripts/campaign.sh near [N]                         N inputs (100,000) near files for each target, without libFuzzer
#   scripts/campaign.sh checkpoints [N]                  N damaged checkpoints (50,000) of each random kind
#   scripts/campaign.sh kills [N]                        N kills (2,000) at random moments
#   scripts/campaign.sh disk [N]                         N runs (200) on a tmpfs that fills up; needs root, to mount it
#   scripts/campaign.sh callers [SECONDS]                eight callers on one session for so long (600)
#   scripts/campaign.sh asan                             the tests of the kernels and of the runtime under the address sanitizer
#   scripts/campaign.sh valgrind                         the golden networks by plain Rust under valgrind
#
# The sanitizer is that of the installed toolchain, whatever its channel (RUSTC_BOOTSTRAP). Corpora and logs are in target/campaign, or in
# the folder of SPARSEVD_CAMPAIGN; SPARSEVD_FUZZER names a fuzzer that is built already. Exit code 1 means that a promise is broken: a crash, an
# input of more than 5 seconds, an allocation past the limit, a test that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$(realpath -m "${SPARSEVD_CAMPAIGN:-$target/campaign}")
triple=$(rustc -vV | sed -n 's/^host: //p')
fuzzer=${SPARSEVD_FUZZER:-$target/fuzz/$triple/release/target}
log=$folder/log

# The fuzzer without the sanitizer, whose numbers are counted apart: it has other edges.
use_fast() {
    fuzzer=${SPARSEVD_FUZZER:-$target/fuzz-fast/$triple/release/target}
    log=$folder/log-fast
}

usage() {
    sed -n '5,15s/^# *//p' "$0" >&2
    exit 2
}

# The flags that cargo-fuzz gives.
build_fuzzer() {
    local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    for part in inline-8bit-counters pc-table trace-compares; do
        coverage+=" -Cllvm-args=-sanitizer-coverage-$part"
    done
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage --cfg fuzzing -Zsanitizer=address" \
        cargo build --release --manifest-path fuzz/Cargo.toml --target-dir "$target/fuzz" --target "$triple"
}

build_fast_fuzzer() {
    local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3"
    coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage --cfg fuzzing" RUSTC_WRAPPER=$PWD/scripts/rustc-covered.sh CARGO_PROFILE_RELEASE_OPT_LEVEL=2 \
        cargo build --release --manifest-path fuzz/Cargo.toml --target-dir "$target/fuzz-fast" --target "$triple"
}

write_seeds() {
    mkdir -p "$folder"
    cargo run --release --quiet -p sparsevd-fuzzing --bin seeds -- "$folder/seeds" >"$folder/targets"
}

# Runs a target once; libFuzzer's statistics end its log, and what it finds is kept in findings/.
turn() {
    local name=$1 seconds=$2
    local log=$log/$name.$(date +%s)
    mkdir -p "${log%/*}" "$folder/findings" "$folder/corpus/$name" "$folder/committed/$name"
    [ -d "crates/fuzzing/corpus/$name" ] && cp -n "crates/fuzzing/corpus/$name"/* "$folder/committed/$name/"
    ASAN_OPTIONS=quarantine_size_mb=32:detect_leaks=0 SPARSEVD_TARGET=$name "$fuzzer" \
        -max_total_time="$seconds" -max_len=16384 -timeout=5 -rss_limit_mb=2048 -malloc_limit_mb=600 -print_final_stats=1 \
        -artifact_prefix="$folder/findings/$name-" "$folder/corpus/$name" "$folder/seeds/$name" "$folder/committed/$name" >"$log" 2>&1 || {
        printf '%s: see %s\n' "$name" "$log" >&2
        return 1
    }
}

fuzz() {
    local seconds=60 failed=0 build=build_fuzzer
    if [ "${1:-}" = --fast ]; then
        use_fast
        build=build_fast_fuzzer
        shift
    fi
    if [ "${1:-}" = --seconds ]; then
        seconds=$2
        shift 2
    fi
    [ -n "${SPARSEVD_FUZZER:-}" ] || $build
    write_seeds
    local names=("$@")
    [ $# -gt 0 ] || mapfile -t names <"$folder/targets"
    for name in "${names[@]}"; do
        turn "$name" "$seconds" || failed=1
    done
    report "${names[@]}"
    return $failed
}

# Of each target, over the logs of all its turns in their order: edges after three quarters of the executions, and after all.
report() {
    local names=("$@")
    [ $# -gt 0 ] || mapfile -t names <"$folder/targets"
    printf '%-16s %12s %8s %12s %10s %8s %9s\n' target executions edges 'last quarter' 'slowest s' 'peak MB' findings
    for name in "${names[@]}"; do
        # shellcheck disable=SC2012
        findings=$(ls "$folder/findings" 2>/dev/null | grep -cE "^$name-(crash|timeout|oom|leak)" || true)
        find "$log" -name "$name.[0-9]*" | sort | xargs -r cat | awk -v name="$name" -v findings="$findings" '
            /^#[0-9]+\t/ {
                done = substr($1, 2) + 0
                for (i = 2; i < NF; i++) if ($i == "cov:") edges = $(i + 1) + 0
                if (edges > most) most = edges
                n++; at[n] = before + done; covered[n] = most
            }
            /^stat::number_of_executed_units/ { before += $2 }
            /^stat::slowest_unit_time_sec/ && $2 > slowest { slowest = $2 }
            /^stat::peak_rss_mb/ && $2 > memory { memory = $2 }
            END {
                for (i = 1; i <= n && at[i] <= 0.75 * before; i++) then = covered[i]
                printf "%-16s %12d %8d %12s %10d %8d %9d\n", name, before, most, "+" (most - then), slowest, memory, findings
            }'
    done
}

# Keeps files that reach edges which no seed does, up to 2 KiB each and 48 KiB for a target.
minimise() {
    local name into
    while read -r name; do
        into=$(mktemp -d)
        mkdir -p "$folder/log"
        ASAN_OPTIONS=detect_leaks=0 SPARSEVD_TARGET=$name "$fuzzer" -merge=1 -max_len=2048 "$into" "$folder/seeds/$name" >"$folder/log/$name.merge" 2>&1
        mkdir -p "$folder/kept/$name"
        cp -r "$into/." "$folder/kept/$name"
        ASAN_OPTIONS=detect_leaks=0 SPARSEVD_TARGET=$name "$fuzzer" -merge=1 -max_len=2048 "$into" "$folder/corpus/$name" >>"$folder/log/$name.merge" 2>&1
        mkdir -p "crates/fuzzing/corpus/$name"
        # Small ones first.
        find "$into" -type f -size -3k -printf '%s %f\n' | sort -n | awk '{ sum += $1; if (sum <= 49152) print $2 }' |
            while read -r file; do
                [ -e "$folder/kept/$name/$file" ] || cp "$into/$file" "crates/fuzzing/corpus/$name/"
            done
        rm -rf "$into"
    done <"$folder/targets"
    du -sh crates/fuzzing/corpus
}

run_test() {
    cargo test --release -p "$1" --test "$2" -- --nocapture --test-threads 1
}

disk() {
    local small
    small=$(mktemp -d)
    mount -t tmpfs -o size=16m tmpfs "$small"
    # shellcheck disable=SC2064
    trap "umount '$small'; rmdir '$small'" EXIT
    SPARSEVD_DISK=$small SPARSEVD_FULL=$1 run_test sparsevd-cli disk
}

# Without the test of times, which the sanitizer changes.
asan() {
    ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
        cargo test --release --lib --tests --no-fail-fast --target "$triple" --target-dir "$target/asan" \
        -p sparsevd-kernels -p sparsevd-runtime -- --skip more_work_takes_longer --skip do_more_than_those_of_floats
}

# Valgrind knows no AVX-512, and hides it from programs that ask. Optimised code branches on bytes that it then ignores, so only accesses are checked.
with_valgrind() {
    cargo build --release --quiet -p sparsevd-cli
    local model count=0 shape
    for model in tests/golden/onnx/*.onnx; do
        shape=()
        [[ $model == */open_size.onnx ]] && shape=(--shape x=3,6,6)
        SPARSE_ISA=scalar valgrind --quiet --error-exitcode=1 --undef-value-errors=no "$target/release/run-sparse" check "$model" \
            --expect "${model%.onnx}.npz" "${shape[@]}"
        count=$((count + 1))
    done
    printf '%d networks without a wrong access\n' "$count"
}

mode=${1:-}
[ $# -gt 0 ] && shift
case $mode in
fuzz) fuzz "$@" ;;
fuzz-report)
    if [ "${1:-}" = --fast ]; then
        use_fast
        shift
    fi
    report "$@"
    ;;
fuzz-minimise) minimise ;;
near) SPARSEVD_FUZZ=${1:-100000} run_test sparsevd-fuzzing smoke ;;
checkpoints) SPARSEVD_CHECKPOINTS=${1:-50000} run_test sparsevd-compressor checkpoints ;;
kills) SPARSEVD_KILLS=${1:-2000} run_test sparsevd-cli kills ;;
disk) disk "${1:-200}" ;;
callers) SPARSEVD_CALLERS=${1:-600} run_test sparsevd-runtime callers ;;
asan) asan ;;
valgrind) with_valgrind ;;
*) usage ;;
esac
