"""ONNX's own tests of single operators, run by `run-sparse`: how many pass, are refused, are wrong, panic.

    pip install onnx numpy
    python benches/peers/onnx_backend.py [--bin target/release] [--only PATTERN] [--list pass,refused,wrong,panic]
        [--reasons 30] [--json RESULTS]

Each test is a model of one node (or a few), with inputs and the outputs expected of them. It is run twice: as it is, and with
all inputs but the first frozen, that is, as initializers, which is how networks hold weights. A test passes where every
number of every output is within the test's own tolerance, which is 1e-3 relative and 1e-7 absolute unless it says another; half
precision, which becomes single, within 1e-2. `--reasons` counts the refused tests by
the first operator that is refused and why, the most frequent first; `--json` has the outcome and the reason of every test.
A refusal is exit code 2. Its message must name the node and its operator, or an input, output or version of the file that
is at fault; those that do not are counted apart. Exit code 1 where anything is wrong, panics or is refused without a name.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import json
import re
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ["pass", "refused", "unnamed", "wrong", "panic"]


def is_floating(array):
    return isinstance(array, np.ndarray) and array.dtype.name in ("float16", "float32", "float64", "bfloat16")


def array_of(value):
    """An input or output as an array, where it is a tensor."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def frozen(model, arrays):
    """The model with all inputs but the first as initializers; `None` where an input is no tensor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    inputs = [value for value in graph.input]
    del graph.input[1:]
    for value, array in zip(inputs[1:], arrays[1:]):
        if not isinstance(array, np.ndarray):
            return None
        graph.initializer.append(numpy_helper.from_array(array, value.name))
    return copy


def run(binary, folder, model, arrays, outputs, rtol, atol):
    """Outcome and reason of one model."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    named = {v.name: a.astype(np.float32) for v, a in zip(model.graph.input, arrays) if is_floating(a)}
    ids = {v.name: a for v, a in zip(model.graph.input, arrays) if isinstance(a, np.ndarray) and a.dtype.name in ("int32", "int64")}
    named |= {name: a for name, a in ids.items() if a.size}
    np.savez(folder / "x.npz", **(named or {"x": np.zeros((1, 1), np.float32)}))
    command = [binary, path, "--input", folder / "x.npz", "--output", folder / "y.npz", "--force", "--threads", "1"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)
    reason = done.stderr.replace(str(folder) + "/", "").strip()
    if done.returncode == 2:
        of_graph = [v.name for v in [*model.graph.input, *model.graph.output]]
        of_node = any(f"({node.op_type})" in reason or f"::{node.op_type})" in reason for node in model.graph.node)
        of_file = any(f"`{name}`" in reason for name in of_graph)
        of_file = of_file or any(part in reason for part in ("number of inputs", "number of outputs", "opset_import"))
        return ("refused" if of_node or of_file else "unnamed"), reason
    if done.returncode != 0:
        return "panic", reason
    with np.load(folder / "y.npz") as file:
        names = [v.name for v in model.graph.output] if len(outputs) > 1 else ["y"]
        if not set(names) <= set(file.files):
            return "wrong", f"outputs {names}, got {file.files}"
        got = [file[name] for name in names]
    for name, got, want in zip((v.name for v in model.graph.output), got, outputs):
        difference = compare(got, want, rtol, atol)
        if difference:
            return "wrong", f"`{name}`: {difference}"
    return "pass", ""


def compare(got, want, rtol, atol):
    """How an output differs from the one expected; nothing where it is close enough."""
    if not is_floating(want) or got.size != want.size:
        return f"expected {getattr(want, 'dtype', type(want))} {getattr(want, 'shape', '')}, got {got.shape}"
    half = want.dtype.itemsize == 2
    want = want.astype(np.float32)
    got = got.reshape(want.shape)
    rtol, atol = (max(rtol, 1e-2), max(atol, 1e-2)) if half else (rtol, atol)
    if np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"largest difference {np.nanmax(np.abs(got - want), initial=0):.3e}"


def kind(reason):
    """The operator that a refusal names first and why, without names and numbers."""
    reason = re.sub(r"^run-sparse: model.onnx: (\d+ unsupported node\(s\): )?", "", reason).split(";")[0]
    return re.sub(r"-?\d+(, -?\d+)*", "N", re.sub(r"`[^`]*` ?", "", reason))


def test(binary, case):
    arrays, outputs = ([array_of(value) for value in values] for values in case.data_sets[0])
    models = {"as it is": case.model, "frozen": frozen(case.model, arrays)}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, model in models.items():
            if model is None:
                results[way] = ("refused", "an input that is no tensor cannot be frozen")
                continue
            results[way] = run(binary, Path(folder), model, arrays, outputs, case.rtol, case.atol)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "target/release", type=Path)
    parser.add_argument("--only", default="*", help="tests whose names match")
    parser.add_argument("--list", default="wrong,panic,unnamed", help="outcomes whose tests are listed")
    parser.add_argument("--reasons", type=int, default=0, help="that many reasons of refusals, the most frequent first")
    parser.add_argument("--json", type=Path, help="where the outcome of every test goes")
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [c for c in collect_testcases(None) if fnmatch.fnmatch(c.name, args.only)]
    binary = args.bin / "run-sparse"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        all_results = list(pool.map(lambda c: test(binary, c), cases))
    counts = {"as it is": collections.Counter(), "frozen": collections.Counter()}
    for case, results in zip(cases, all_results):
        for way, (outcome, reason) in results.items():
            counts[way][outcome] += 1
            if outcome in args.list.split(","):
                print(f"{outcome}, {way}: {case.name}: {reason}")
    for way in counts:
        reasons = collections.Counter(kind(r[way][1]) for r in all_results if r[way][0] == "refused")
        for reason, count in reasons.most_common(args.reasons):
            print(f"{count:5} refused, {way}: {reason}")
    if args.json:
        results = {case.name: result for case, result in zip(cases, all_results)}
        args.json.write_text(json.dumps(results, indent=1))
    for way, count in counts.items():
        print(f"{len(cases)} tests, {way}: " + ", ".join(f"{count[o]} {o}" for o in OUTCOMES))
    either = sum(any(outcome == "pass" for outcome, _ in results.values()) for results in all_results)
    print(f"{either} pass in one way or the other")
    bad = sum(count[o] for count in counts.values() for o in ("unnamed", "wrong", "panic"))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
