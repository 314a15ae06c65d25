"""Writes the tables of docs/tables.md as CSV: boston.csv, diamonds.csv, diabetes.csv and spam.csv.

    apt-get download r-cran-mlbench r-cran-ggplot2 r-cran-kernlab
    for deb in r-cran-*.deb; do dpkg-deb -x "$deb" packages; done
    python -m venv venv && venv/bin/pip install scikit-learn rdata
    venv/bin/python tables.py packages OUT

The first three packages are Debian's; scikit-learn has the fourth table. Numbers are written so that they read back as the
same double; a target that is a number has a decimal point, which makes it a regression.
"""

import csv
import struct
import sys
import zlib
from pathlib import Path

import rdata
from sklearn.datasets import load_diabetes


def write(path, columns):
    """Columns as a map of names to values, the target last."""
    with open(path, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    print(path, len(next(iter(columns.values()))), "rows")


def plain(frame):
    """Columns of a data frame: numbers as floats, factors as their words."""
    columns = {}
    for name in frame.columns:
        values = frame[name]
        words = values.dtype.name == "category" or values.dtype == object
        columns[name] = [str(v) if words else float(v) for v in values]
    return columns


def target_last(columns, target):
    columns[target] = columns.pop(target)
    return columns


def of_rda(library, package, name):
    file = library / package / "data" / f"{name}.rda"
    return rdata.conversion.convert(rdata.parser.parse_file(file))[name]


def of_database(library, package, name):
    """An object of a lazy-load database: an index, and a file of compressed objects."""
    data = library / package / "data"
    index = rdata.conversion.convert(rdata.parser.parse_file(data / "Rdata.rdx"))
    at, length = (int(n) for n in index["variables"][name])
    packed = (data / "Rdata.rdb").read_bytes()[at : at + length]
    (size,) = struct.unpack(">I", packed[:4])
    raw = zlib.decompress(packed[4:])
    assert len(raw) == size
    return rdata.conversion.convert(rdata.parser.parse_data(raw))


def main():
    library = Path(sys.argv[1]) / "usr/lib/R/site-library"
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    boston = plain(of_rda(library, "mlbench", "BostonHousing"))
    # The one factor is a word here: 0 and 1 would be numbers.
    boston["chas"] = ["river" if v == "1" else "inland" for v in boston["chas"]]
    write(out / "boston.csv", target_last(boston, "medv"))
    write(out / "diamonds.csv", target_last(plain(of_database(library, "ggplot2", "diamonds")), "price"))
    write(out / "spam.csv", target_last(plain(of_rda(library, "kernlab", "spam")), "type"))
    diabetes = load_diabetes(scaled=False)
    columns = dict(zip(diabetes.feature_names, diabetes.data.T.tolist(), strict=True))
    write(out / "diabetes.csv", columns | {"progression": diabetes.target.tolist()})


main()
