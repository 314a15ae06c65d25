#!/usr/bin/env bash
# Runs the tests of the kernels and of the runtime for aarch64 under qemu: the NEON kernels against their slow twins.
#
# Run it after a change of crates/kernels or of how crates/runtime uses it, on a machine without NEON. On one that has
# it, `cargo test` does the same. It takes 10 minutes of one core (`nice -n 19` keeps the machine usable), most of
# them in the tests of large maps.
#
#   scripts/test-neon.sh            the kernels' and the runtime's tests
#   scripts/test-neon.sh --plans    also the golden plans of NEON, 7 minutes more; with SPARSEVD_WRITE_GOLDENS=1 it
#                                   writes them
#
# Needs the target's standard library (`rustup target add aarch64-unknown-linux-gnu`), a cross linker and qemu, in
# Debian the packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
missing=()
[ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || missing+=("rustup target add $target")
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=("the package gcc-aarch64-linux-gnu")
command -v qemu-aarch64 >/dev/null || missing+=("the package qemu-user")
[ -d /usr/aarch64-linux-gnu ] || missing+=("the package libc6-dev-arm64-cross")
if [ ${#missing[@]} -gt 0 ]; then
    printf 'test-neon: needs %s\n' "${missing[@]}" >&2
    exit 2
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cargo test --release --no-fail-fast --target $target -p sparsevd-kernels -p sparsevd-runtime
if [ "${1:-}" = --plans ]; then
    cargo test --release --target $target --test plan_goldens
fi
