#!/usr/bin/env bash
# A RUSTC_WRAPPER for `campaign.sh fuzz --fast`: of the crates that are compiled with flags for coverage, only those that read files keep them.
# libFuzzer looks at every edge of the program after each input, which takes longer than to read a small file.
set -euo pipefail
rustc=$1
shift
name=
previous=
for argument in "$@"; do
    [ "$previous" = --crate-name ] && name=$argument
    previous=$argument
done
case $name in
sparsevd_format | sparsevd_model | sparsevd_onnx | sparsevd_fuzzing | target | csv | csv_core | fdeflate | flate2 | gif | half | miniz_oxide | \
    ndarray_npy | png | prost | safetensors | serde_json | serde_spanned | toml | toml_* | weezl | winnow | zip)
    exec "$rustc" "$@"
    ;;
esac
others=()
for argument in "$@"; do
    case $argument in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) others+=("$argument") ;;
    esac
done
exec "$rustc" "${others[@]}"
