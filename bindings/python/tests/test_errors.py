"""What is wrong is an exception that names it, and leaves nothing half-written."""

import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import sparsevd

X = np.ones((2, 8), np.float32)


def nan_at(*place):
    x = X.copy()
    x[place] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(np.float64), "input `x`: expected a NumPy array of float32, got an array of float64"),
        (X.astype(np.int64), "input `x`: expected a NumPy array of float32, got an array of int64"),
        (X.astype(">f4"), "input `x`: expected a NumPy array of float32, got an array of >f4"),
        (X.tolist(), "input `x`: expected a NumPy array of float32, got an object of type list"),
        (None, "input `x`: expected a NumPy array of float32, got an object of type NoneType"),
        (X[0], "input `x`: expected shape [batch, 8], got [8]"),
        (X[:, :7], "input `x`: expected shape [batch, 8], got [2, 7]"),
        (X[None], "input `x`: expected shape [batch, 8], got [1, 2, 8]"),
        (np.float32(1), "input `x`: expected a NumPy array of float32, got an object of type float32"),
        (np.ones((), np.float32), "input `x`: expected shape [batch, 8], got []"),
        (nan_at(1, 3), "input `x`, element [1, 3]: expected a finite number, got NaN"),
        (-np.inf * X, "input `x`, element [0, 0]: expected a finite number, got -inf"),
    ],
)
def test_arrays_that_are_no_input(mlp, x, message):
    session = mlp.session(threads=1)
    with pytest.raises(sparsevd.InputError) as error:
        session.run(x)
    assert str(error.value) == message
    out = np.full((2, 3), 7, np.float32)
    with pytest.raises(sparsevd.InputError):
        session.run(x, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.ones((2, 3)), "output `fc2`: expected a NumPy array of float32, got an array of float64"),
        (np.ones((1, 3), np.float32), "output `fc2`: expected shape [2, 3], got [1, 3]"),
        (np.ones((2, 3), np.float32, order="F"), "output `fc2`: expected an array in C order, got another order or stride"),
        (np.ones((2, 6), np.float32)[:, ::2], "output `fc2`: expected an array in C order, got another order or stride"),
        ({"fc1": np.ones((2, 3), np.float32)}, "outputs of the run: expected `fc2`, got `fc1`"),
    ],
)
def test_arrays_that_are_no_output(mlp, out, message):
    with pytest.raises(sparsevd.InputError) as error:
        mlp.session(threads=1).run(X, out=out)
    assert str(error.value) == message


def test_an_output_that_may_not_be_written_or_is_an_input(mlp, two_by_two):
    out = np.ones((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(sparsevd.InputError, match="output `fc2`: expected an array that may be written"):
        mlp.session(threads=1).run(X, out=out)
    a, b = np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)
    session = two_by_two.session(threads=1)
    for out in [{"sum": a, "product": np.ones_like(a)}, {"sum": np.ones_like(a), "product": b[:]}]:
        with pytest.raises(sparsevd.InputError, match="is no input or other output"):
            session.run({"a": a, "b.0": b}, out=out)
    same = np.ones_like(a)
    with pytest.raises(sparsevd.InputError, match="output `product`: .*is no input or other output"):
        session.run({"a": a, "b.0": b}, out={"sum": same, "product": same})
    assert (a == 1).all() and (b == 1).all()


def test_names_that_are_not_those_of_the_network(mlp, two_by_two):
    session = mlp.session(threads=1)
    for arrays, got in [({"y": X}, "`y`"), ({"x": X, "y": X}, "`x`, `y`"), ({}, "none")]:
        with pytest.raises(sparsevd.InputError) as error:
            session(**arrays)
        assert str(error.value) == f"inputs of the run: expected `x`, got {got}"
    with pytest.raises(sparsevd.InputError, match="names beside the only array"):
        session(X, y=X)
    with pytest.raises(TypeError, match="threds"):
        mlp.session(threds=1)
    both = two_by_two.session(threads=1)
    a = np.ones((2, 4), np.float32)
    with pytest.raises(sparsevd.InputError, match="expected `a`, `b.0`, got one without a name"):
        both(a)
    with pytest.raises(sparsevd.InputError, match="expected 2 samples, as of input `a`, got 1"):
        both(**{"a": a, "b.0": a[:1]})
    with pytest.raises(sparsevd.InputError, match="expected a dictionary of 2 arrays"):
        both.run({"a": a, "b.0": a}, out=a)


def test_lengths_of_a_free_dimension(sequences):
    session = sequences.session(threads=1)
    with pytest.raises(sparsevd.InputError, match=r"expected shape \[batch, time, 6\], got \[2, 0, 6\]"):
        session(np.ones((2, 0, 6), np.float32))


def test_settings_that_are_out_of_range(mlp):
    for setting in [{"batch": 0}, {"threads": 0}]:
        with pytest.raises(sparsevd.ModelError, match=f"{next(iter(setting))}: expected at least 1, got 0"):
            mlp.session(**({"threads": 1} | setting))
    with pytest.raises(OverflowError):
        mlp.session(threads=-1)
    with pytest.raises(sparsevd.CompressError, match="values: expected f32, bf16, f16, i8, auto, got `f64`"):
        mlp.plan(values="f64")


def test_files_that_are_no_network(tmp_path, models):
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        sparsevd.load(tmp_path / "absent.safetensors")
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(sparsevd.FormatError, match="empty.safetensors"):
        sparsevd.load(tmp_path / "empty.safetensors")
    whole = (models / "lenet-300-100" / "packed.spvd").read_bytes()
    (tmp_path / "cut.spvd").write_bytes(whole[:-10])
    with pytest.raises(sparsevd.FormatError, match="cut.spvd"):
        sparsevd.load(tmp_path / "cut.spvd")
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(sparsevd.FormatError, match="a.pt"):
        sparsevd.load(tmp_path / "a.pt")
    with open(models / "lenet-300-100" / "packed.spvd", "rb") as file:
        for other in [file, 3, b"\0\1", None]:
            with pytest.raises(TypeError):
                sparsevd.load(other)
    with pytest.raises(sparsevd.FormatError, match="no-such-net"):
        sparsevd.load(models / "lenet-300-100" / "model.safetensors", network="no-such-net")


def test_files_are_written_whole_or_not_at_all(tmp_path, mlp, models):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="a.safetensors"):
        mlp.save(path)
    assert path.read_bytes() == b"mine"
    mlp.save(path, overwrite=True)
    assert sparsevd.load(path).nonzeros == mlp.nonzeros
    with pytest.raises(sparsevd.ModelError, match="off any grid"):
        mlp.save(tmp_path / "a.spvd")
    with pytest.raises(sparsevd.CompressError, match="expected an output ending in"):
        mlp.save(tmp_path / "a.pt")
    with pytest.raises(sparsevd.CompressError, match=r"expected a name that ends in \.onnx"):
        mlp.to_onnx(tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(FileNotFoundError, match="absent"):
        mlp.save(tmp_path / "absent" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    with pytest.raises(sparsevd.CompressError, match="a model that was read from a file"):
        mlp.inspect()


def test_pixels_that_are_no_input(models, mlp):
    model = sparsevd.load(models / "lenet-300-100" / "sparse.safetensors")
    with pytest.raises(sparsevd.InputError, match="expected a NumPy array of uint8 pixels, got an array of float32"):
        model.preprocess(np.ones((2, 1, 28, 28), np.float32))
    with pytest.raises(sparsevd.InputError, match=r"expected shape \[batch, 1, 28, 28\], got \[784\]"):
        model.preprocess(np.ones(784, np.uint8))
    with pytest.raises(sparsevd.InputError, match="network `mlp` without"):
        mlp.preprocess(np.ones((2, 8), np.uint8))


def test_classes_of_exceptions():
    for error in [sparsevd.FormatError, sparsevd.ModelError, sparsevd.InputError, sparsevd.CompressError]:
        assert issubclass(error, sparsevd.Error) and issubclass(error, ValueError)
        assert error.__module__ == "sparsevd"


def test_torch_and_tqdm_are_optional(monkeypatch):
    code = "import sys, sparsevd; print([m for m in ('torch', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "sparsevd.torch", raising=False)
    with pytest.raises(ImportError, match="torch"):
        importlib.import_module("sparsevd.torch")
