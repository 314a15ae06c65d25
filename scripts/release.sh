#!/usr/bin/env bash
# The tarball of a release: both programs for Linux on x86-64, static (glibc is inside) and stripped, with man pages, completions and licences.
#
# Run it before a release, on a clean tree. It writes to target/release-tarballs
#
#   sparsevd-VERSION-x86_64-linux/                  what the tarball holds; Containerfile makes an image of it
#   sparsevd-VERSION-x86_64-linux.tar.gz            the tarball
#   sparsevd-VERSION-x86_64-linux.tar.gz.sha256     its checksum, for `sha256sum --check`
#
# and tries what it made: the programs need no library, know no path of this machine, and run the golden networks and a committed model from an
# empty folder without an environment.
#
# The same commit gives the same bytes, in whatever folder it is built, by the same Rust, C compiler and glibc, GNU tar and gzip. So files
# that are not committed are refused: nobody could make that tarball again.
#
# Needs the target's standard library (`rustup target add x86_64-unknown-linux-gnu`) and a static glibc, in Debian the package libc6-dev.
set -euo pipefail
cd "$(dirname "$0")/.."

triple=x86_64-unknown-linux-gnu
missing=()
[ "$(uname -sm)" = "Linux x86_64" ] || missing+=("Linux on x86-64, which runs what it builds")
[ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ] || missing+=("rustup target add $triple")
[ -f "$(cc -print-file-name=libc.a)" ] || missing+=("libc.a, a static glibc")
command -v readelf >/dev/null || missing+=("readelf, of binutils")
if [ ${#missing[@]} -gt 0 ]; then
    printf 'release: needs %s\n' "${missing[@]}" >&2
    exit 2
fi
changed=$(git status --porcelain)
if [ -n "$changed" ]; then
    printf 'release: expected a clean tree, got\n%s\n' "$changed" >&2
    exit 2
fi

root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo_home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
package=$(cargo pkgid --locked -p sparsevd-cli)
name=sparsevd-${package##*[#@]}-x86_64-linux
tarballs=$target/release-tarballs
top=$tarballs/$name
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
# C compilers take it for the time; Cargo builds what is C again where it differs.
export SOURCE_DATE_EPOCH LC_ALL=C

# With --target, flags are for the programs alone, not for build scripts and macros. Encoded, they may have spaces.
build() {
    local flags=(
        -Ctarget-feature=+crt-static
        "--remap-path-prefix=$root=/sparsevd"
        "--remap-path-prefix=$target=/target"
        "--remap-path-prefix=$cargo_home=/cargo"
    )
    local encoded
    encoded=$(printf '%s\x1f' "${flags[@]}")
    CARGO_ENCODED_RUSTFLAGS=${encoded%?} \
        cargo build --profile dist --locked -p sparsevd-cli --bins --target $triple --target-dir "$target/dist"
}

lay_out() {
    local program share=$top/share
    rm -rf "$top"
    mkdir -p "$top/bin" "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
    for program in compress run-sparse; do
        cp "$target/dist/$triple/dist/$program" "$top/bin/"
        "$top/bin/$program" man --out "$share/man/man1" >"$target/dist/pages"
        "$top/bin/$program" completions bash >"$share/bash-completion/completions/$program"
        "$top/bin/$program" completions zsh >"$share/zsh/site-functions/_$program"
        "$top/bin/$program" completions fish >"$share/fish/vendor_completions.d/$program.fish"
    done
    cp README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$top/"
    # Whatever the umask is.
    chmod -R u=rwX,go=rX "$top"
}

pack() {
    tar --create --directory "$tarballs" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner "$name" |
        gzip --no-name --best >"$tarballs/$name.tar.gz"
    (cd "$tarballs" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
}

# What the tarball holds, unpacked elsewhere.
try() {
    local folder=$1 program path network shape count=0
    tar --extract --gzip --file "$tarballs/$name.tar.gz" --directory "$folder"
    local bin=$folder/$name/bin
    for program in "$bin"/*; do
        if readelf --program-headers --dynamic --wide "$program" | grep -E 'INTERP|\(NEEDED\)'; then
            printf 'release: %s: expected a static program\n' "$program" >&2
            return 1
        fi
        if readelf --sections --wide "$program" | grep -E '\.symtab|\.debug_'; then
            printf 'release: %s: expected a stripped program\n' "$program" >&2
            return 1
        fi
    done
    for path in "$root" "$target" "$cargo_home" "${HOME:-}"; do
        if [ ${#path} -gt 1 ] && grep --recursive --text --fixed-strings --only-matching "$path/" "$folder/$name"; then
            printf 'release: expected no path of this machine\n' >&2
            return 1
        fi
    done
    mkdir "$folder/empty"
    cd "$folder/empty"
    for program in "$bin"/*; do
        env --ignore-environment "$program" --version
    done
    for network in "$root"/tests/golden/onnx/*.onnx; do
        shape=()
        [ "${network##*/}" = open_size.onnx ] && shape=(--shape x=1,3,6,6)
        env --ignore-environment "$bin/run-sparse" check "$network" "${shape[@]}" --expect "${network%.onnx}.npz" >"$folder/check" || {
            cat "$folder/check" >&2
            return 1
        }
        count=$((count + 1))
    done
    printf '%d golden networks compute what is expected\n' "$count"
    env --ignore-environment "$bin/run-sparse" eval "$root/models/lenet-5/packed.spvd" --data "$root/data/mnist"
    env --ignore-environment "$bin/compress" inspect "$root/models/lenet-5/packed.spvd"
}

build
lay_out
pack
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(try "$folder")
printf '%s: %d bytes, programs of %d and %d bytes\n' "$name.tar.gz" $(stat --format=%s "$tarballs/$name.tar.gz" "$top/bin/compress" "$top/bin/run-sparse")
cat "$tarballs/$name.tar.gz.sha256"
