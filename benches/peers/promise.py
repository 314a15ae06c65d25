"""The default of `compress` on data that no setting was chosen by: Fashion-MNIST, digits, a table of rare classes, questions of 150 intents.

    python -m venv venv && venv/bin/pip install numpy scikit-learn
    venv/bin/python benches/peers/promise.py make SETS [--clinc data_full.json] [--fashion FOLDER]
    venv/bin/python benches/peers/promise.py run SETS [NAME ...] [--bin target/release] [--seeds 3] [--drop 0]

`make` writes the sets: `digits` (scikit-learn's, its first 1,165 images to train on), `rare` (20 features, three classes of 97, 2 and 1 %,
drawn from a seed), from the file of github.com/clinc/oos-eval `clinc` (hashed words, pairs of words and fragments of four letters, of unit
length), and a link to the folder of Debian's `dataset-fashion-mnist`. `run` trains each network and compresses it, both without a recipe,
and prints rows of the tables in docs/promise.md: test errors with McNemar's p, and the recall that any class loses on the test samples.
Networks and reports stay in SETS/runs, and what is there is not made again. `--drop` is `--max-accuracy-drop`.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

# Network and set of each row.
ROWS = {
    "fashion-300-100": ("lenet-300-100", "fashion"),
    "fashion-lenet-5": ("lenet-5", "fashion"),
    "digits": ("mlp:64,300,100,10", "digits.npz"),
    "rare": ("mlp:20,100,100,3", "rare.npz"),
    "clinc": ("mlp:2048,256,150", "clinc.npz"),
}


def digits(folder):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    np.savez(folder / "digits.npz", x_train=x[:1165], y_train=y[:1165], x_test=x[1165:], y_test=y[1165:])


def rare(folder, seed=0):
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_samples=40_000,
        n_features=20,
        n_informative=8,
        n_redundant=4,
        n_classes=3,
        n_clusters_per_class=2,
        weights=[0.97, 0.02, 0.01],
        class_sep=1.5,
        flip_y=0,
        random_state=seed,
    )
    x = ((x - x[:20_000].mean(0)) / x[:20_000].std(0)).astype(np.float32)
    np.savez(folder / "rare.npz", x_train=x[:20_000], y_train=y[:20_000], x_test=x[20_000:], y_test=y[20_000:])


def clinc(folder, path):
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    data = json.loads(path.read_text())
    names = sorted({intent for _, intent in data["train"]})
    count = {"n_features": 2048, "alternate_sign": False, "norm": None, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", **count)
    letters = HashingVectorizer(analyzer="char", ngram_range=(4, 4), **count)

    def part(name):
        texts = [text for text, _ in data[name]]
        features = normalize(words.transform(texts) + letters.transform(texts)).toarray().astype(np.float32)
        return features, np.array([names.index(intent) for _, intent in data[name]])

    (x, y), (x_val, y_val), (x_test, y_test) = map(part, ("train", "val", "test"))
    np.savez(folder / "clinc.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.savez(folder / "clinc-validation.npz", x=x_val, y=y_val)


def run(*command):
    """The report of a command, which may break its accuracy promise."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def row(args, name, seed):
    network, data = ROWS[name]
    validation = args.sets / f"{name}-validation.npz"
    runs = args.sets / "runs"
    runs.mkdir(exist_ok=True)
    printing = ["--quiet", "--json"]
    settings = ["--data", args.sets / data, "--seed", seed]
    if validation.exists():
        settings += ["--validation", validation]
    drop = [] if args.drop is None else ["--max-accuracy-drop", args.drop]
    dense = runs / f"{name}-{seed}.safetensors"
    stem = f"{name}-{seed}" + ("" if args.drop is None else f"-drop-{args.drop}")
    if not dense.exists():
        run(args.bin / "compress", "train", network, *settings, *printing, "--out", dense, "--run", runs / f"{name}-{seed}.train.run")
    kept = runs / f"{stem}.report.json"
    if not kept.exists():
        # A run that was interrupted goes on.
        folder = runs / f"{stem}.run"
        begun = ["--resume", folder] if (folder / "run.json").exists() else [*settings, *drop, "--run", folder]
        out = ["--out", runs / f"{stem}.sparse.safetensors"]
        run(args.bin / "compress", dense, *begun, *printing, *out)
    report = json.loads(kept.read_text())
    accuracy, packed = report["accuracy"], report["packed"]
    test = accuracy["test"]
    ratio = f"{report['ratio']:.0f}x" if report["ratio"] else "constant"
    errors = f"{test['dense_percent']:.2f} % | {test['sparse_percent']:.2f} % | {test['mcnemar_p']:.2g}"
    size = f"{packed['bytes']:,} B" if packed else ""
    recall = lost_recall(accuracy["test_classes"])
    print(f"| {name} | {seed} | {ratio} | {size} | {errors} | {recall} | {accuracy['promise']['verdict']} |", flush=True)


def lost_recall(classes):
    """The most points of recall that any class loses."""
    losses = [(100 * (c["sparse_wrong"] - c["dense_wrong"]) / c["images"], c["class"]) for c in classes if c["images"]]
    most, which = max(losses)
    return f"{most:+.1f} (class {which})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run"])
    parser.add_argument("sets", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--clinc", type=Path, help="data_full.json")
    parser.add_argument("--fashion", type=Path, help="folder of IDX files")
    parser.add_argument("--bin", type=Path, default=Path("target/release"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--drop", type=float)
    args = parser.parse_intermixed_args()
    if args.what == "make":
        args.sets.mkdir(parents=True, exist_ok=True)
        digits(args.sets)
        rare(args.sets)
        if args.clinc:
            clinc(args.sets, args.clinc)
        if args.fashion:
            link = args.sets / "fashion"
            link.unlink(missing_ok=True)
            link.symlink_to(args.fashion.resolve())
        return
    print("| set | seed | fewer | packed | test error, dense | sparse | p | recall lost, at most | promise |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.names or [name for name, (_, data) in ROWS.items() if (args.sets / data).exists()]:
        for seed in range(args.seeds):
            row(args, name, seed)


main()
