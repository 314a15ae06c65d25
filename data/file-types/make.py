#!/usr/bin/env python3
"""Inputs without labels for Magika's network: the files of a Debian machine, split by package.

    python data/file-types/make.py OUT.npz [--most 12000] [--per-kind 30] [--most-test 3000] [--per-kind-test 30] [--test-share 0.2]
        [--seed 0]

`x_train` and `x_test` are int16 [n, 2048]: of each file the first and the last 1,024 bytes without white space around them, and
256 where there are fewer, as Magika reads files. Files are those that dpkg's lists name, of 8 bytes or more, since Magika decides
shorter ones by rules. Packages of one source are on one side, which a hash of the source's name and the seed decides, so that a
network is tested on files of packages that training never saw. Equal inputs count once, and on the test side only where training
does not have them. At most `--per-kind` (for testing, `--per-kind-test`) files of a package have the same suffix, so that manual pages and headers
do not take everything.
"""
import argparse
import hashlib
import os
import pathlib
import re
import stat
from collections import Counter, defaultdict

import numpy as np

BYTES, BLOCK, PAD = 1024, 4096, 256
LEAST_BYTES = 8


def draw(text: str) -> int:
    """A number for a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def sources(status: pathlib.Path) -> dict[str, str]:
    """The source of each package that names another than itself."""
    found, package = {}, ""
    for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            package = value
        elif key == "Source":
            found[package] = value.split()[0]
    return found


def suffix(path: str) -> str:
    """The kind of a file by its name, such as `.py` or `.1.gz`; a version such as `.so.6` counts as the name before it."""
    name = re.sub(r"(\.\d+)+$", "", pathlib.PurePosixPath(path).name.lower())
    endings = pathlib.PurePosixPath(name).suffixes
    return "".join(endings[-2:] if endings[-1:] == [".gz"] else endings[-1:])


def ids(path: str, size: int) -> bytes:
    """The input for a file, as int16."""
    with open(path, "rb") as file:
        head = file.read(BLOCK)
        file.seek(max(size - BLOCK, 0))
        tail = file.read(BLOCK)
    row = np.full(2 * BYTES, PAD, np.int16)
    head, tail = head.lstrip()[:BYTES], tail.rstrip()[-BYTES:]
    row[: len(head)] = np.frombuffer(head, np.uint8)
    row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return row.tobytes()


def candidates(lists: pathlib.Path, per_kind) -> dict[str, list[str]]:
    """Paths by package, of which each kind has at most `per_kind(package)`."""
    by_package = defaultdict(list)
    for file in sorted(lists.glob("*.list")):
        package = file.name.removesuffix(".list").partition(":")[0]
        paths = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        kinds, most = Counter(), per_kind(package)
        for path in sorted(paths, key=draw):
            try:
                found = os.lstat(path)
            except OSError:
                continue
            kind = suffix(path)
            if stat.S_ISREG(found.st_mode) and found.st_size >= LEAST_BYTES and kinds[kind] < most:
                kinds[kind] += 1
                by_package[package].append(path)
    return by_package


def rows(paths: list[str], most: int, known: set[bytes]) -> tuple[np.ndarray, Counter]:
    """The inputs of at most `most` files that are not known yet, and how many files had which suffix or no input."""
    inputs, counts = [], Counter()
    for path in sorted(paths, key=draw):
        if len(inputs) == most:
            break
        try:
            row = ids(path, os.stat(path).st_size)
        except OSError:
            counts["unreadable"] += 1
            continue
        if row in known:
            counts["known already"] += 1
            continue
        known.add(row)
        inputs.append(row)
        counts[suffix(path) or "no suffix"] += 1
    return np.frombuffer(b"".join(inputs), np.int16).reshape(-1, 2 * BYTES), counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--lists", type=pathlib.Path, default="/var/lib/dpkg/info", help="folder of dpkg's lists of files")
    parser.add_argument("--status", type=pathlib.Path, default="/var/lib/dpkg/status", help="dpkg's list of packages")
    parser.add_argument("--most", type=int, default=12_000, help="most files to train on")
    parser.add_argument("--per-kind", type=int, default=30, help="most files of a package with one suffix, to train on")
    parser.add_argument("--most-test", type=int, default=3_000, help="most files to test on")
    parser.add_argument("--per-kind-test", type=int, default=30, help="most files of a package with one suffix, to test on")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of the sources whose files are for testing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    source_of = sources(args.status)

    def side_of(package: str) -> str:
        return "test" if draw(f"{args.seed} {source_of.get(package, package)}") < args.test_share * 2**64 else "train"

    most_of = {"train": args.per_kind, "test": args.per_kind_test}
    sides, names = {"train": [], "test": []}, {"train": set(), "test": set()}
    for package, paths in candidates(args.lists, lambda package: most_of[side_of(package)]).items():
        side = side_of(package)
        sides[side] += paths
        names[side].add(source_of.get(package, package))
    known: set[bytes] = set()
    arrays = {}
    for side, most in [("train", args.most), ("test", args.most_test)]:
        arrays[f"x_{side}"], counts = rows(sides[side], most, known)
        common = ", ".join(f"{n} {kind}" for kind, n in counts.most_common(20))
        print(f"{side}: {len(arrays[f'x_{side}'])} inputs of {len(sides[side])} files of {len(names[side])} sources: {common}")
    temporary = args.out.with_name(f"{args.out.name}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(args.out)


if __name__ == "__main__":
    main()
