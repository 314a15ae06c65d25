"""Loading and running networks."""

import json
import threading

import numpy as np
import pytest

import sparsevd


def forward(model: sparsevd.Model, x: np.ndarray, layers: list[str]) -> np.ndarray:
    """A multi-layer perceptron in NumPy."""
    tensors = model.tensors()
    for i, name in enumerate(layers):
        x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        if i + 1 < len(layers):
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("batch", [1, 2, 17, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_those_of_numpy(models, rng, batch, threads):
    model = sparsevd.load(models / "lenet-300-100" / "sparse.safetensors")
    x = rng.random((batch, 1, 28, 28), dtype=np.float32)
    y = model.session(threads=threads, batch=batch)(x)
    assert y.dtype == np.float32 and y.shape == (batch, 10)
    np.testing.assert_allclose(y, forward(model, x.reshape(batch, 784), ["fc1", "fc2", "fc3"]), rtol=1e-4, atol=1e-4)


def test_every_kind_of_file_gives_the_same_outputs(models, rng, tmp_path):
    sparse = sparsevd.load(models / "lenet-5" / "sparse.safetensors")
    x = rng.random((3, 1, 28, 28), dtype=np.float32)
    expected = sparse.session(threads=1)(x)
    sparse.to_onnx(tmp_path / "a.onnx")
    sparse.save(tmp_path / "a.safetensors")
    sparse.save(tmp_path / "dense.safetensors", dense=True)
    sparse.save(str(tmp_path / "a.spvd"))
    for name in ["a.onnx", "a.safetensors", "dense.safetensors", "a.spvd"]:
        model = sparsevd.load(tmp_path / name)
        assert model.nonzeros == sparse.nonzeros
        np.testing.assert_allclose(model.session(threads=1)(x), expected, rtol=1e-4, atol=1e-4, err_msg=name)


def safetensors(path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    header, at = {"__metadata__": metadata}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values()))


def test_a_folder_of_shards_is_one_network(models, rng, tmp_path):
    whole = sparsevd.load(models / "lenet-300-100" / "model.safetensors")
    tensors = list(whole.tensors().items())
    shards = {"model-00001-of-00002.safetensors": tensors[:2], "model-00002-of-00002.safetensors": tensors[2:]}
    for name, part in shards.items():
        safetensors(tmp_path / name, dict(part), {"format": "pt"})
    index = {tensor: name for name, part in shards.items() for tensor, _ in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    model = sparsevd.load(tmp_path, network="lenet-300-100")
    x = rng.random((2, 1, 28, 28), dtype=np.float32)
    np.testing.assert_array_equal(model.session(threads=1)(x), whole.session(threads=1)(x))


def test_what_is_guessed_is_said(tmp_path, mlp):
    safetensors(tmp_path / "a.safetensors", mlp.tensors(), {})
    with pytest.warns(UserWarning, match="a.safetensors: .*perceptron"):
        model = sparsevd.load(tmp_path / "a.safetensors")
    assert len(model.warnings) == 1 and "perceptron" in model.warnings[0]
    assert model.inputs and list(model.inputs.values()) == [(8,)]


def test_several_inputs_and_outputs_have_names(two_by_two, rng):
    a, b = rng.random((2, 5, 4), dtype=np.float32)
    session = two_by_two.session(threads=1)
    for y in [session(**{"b.0": b, "a": a}), session({"a": a, "b.0": b}), session.run({"a": a, "b.0": b})]:
        assert list(y) == ["sum", "product"]
        np.testing.assert_array_equal(y["sum"], a + b)
        np.testing.assert_array_equal(y["product"], a * b)
    out = {"sum": np.empty_like(a), "product": np.empty_like(a)}
    y = session.run({"a": a, "b.0": b}, out=out)
    assert y["sum"] is out["sum"] and y["product"] is out["product"]
    np.testing.assert_array_equal(out["sum"], a + b)
    assert two_by_two.inputs == {"a": (4,), "b.0": (4,)}
    assert two_by_two.outputs == {"sum": (4,), "product": (4,)}


def test_one_session_runs_all_lengths_of_a_free_dimension(sequences, rng):
    assert sequences.inputs == {"x": ("time", 6)}
    assert sequences.outputs == {"relu": ("time", 5)}
    session = sequences.session(threads=1, length=4)
    t = sequences.tensors()
    for length in [1, 2, 3, 4, 5, 9, 40]:
        x = rng.normal(size=(2, length, 6)).astype(np.float32)
        expected = np.maximum(x @ t["fc.weight"].T + t["fc.bias"], 0)
        np.testing.assert_allclose(session(x), expected, rtol=1e-5, atol=1e-6)


def test_outputs_go_into_arrays_of_the_caller(mlp, rng):
    session = mlp.session(threads=1)
    x, out = rng.random((6, 8), dtype=np.float32), np.full((6, 3), np.nan, np.float32)
    assert session.run(x, out=out) is out
    np.testing.assert_array_equal(out, session(x))
    part = np.zeros((9, 3), np.float32)
    session.run(x, out=part[2:8])
    np.testing.assert_array_equal(part[2:8], out)
    assert not part[:2].any() and not part[8:].any()


def test_any_order_of_an_input_gives_the_same(mlp, rng):
    session = mlp.session(threads=1)
    x = rng.random((6, 8), dtype=np.float32)
    expected = session(x)
    wide = np.repeat(x, 2, axis=1)
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for other in [np.asfortranarray(x), wide[:, ::2], x[::-1][::-1], read_only, unaligned]:
        np.testing.assert_array_equal(session(other), expected)
    assert session(np.empty((0, 8), np.float32)).shape == (0, 3)


def test_threads_share_a_session(models, rng):
    session = sparsevd.load(models / "lenet-300-100" / "sparse.safetensors").session(threads=1)
    x = rng.random((64, 1, 28, 28), dtype=np.float32)
    expected = session(x)
    wrong = []

    def work():
        for _ in range(100):
            if not np.array_equal(session(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_others_run_while_a_session_does(models, rng):
    """A run of some tenths of a second, during which another thread counts."""
    session = sparsevd.load(models / "lenet-5" / "model.safetensors").session(threads=1, dense=True, batch=2000)
    x = rng.random((2000, 1, 28, 28), dtype=np.float32)
    ticks, done = [], threading.Event()

    def count():
        while not done.wait(0.001):
            ticks.append(1)

    thread = threading.Thread(target=count)
    thread.start()
    before = len(ticks)
    session(x)
    during = len(ticks) - before
    done.set()
    thread.join()
    assert during >= 3


def test_pixels_become_input(models):
    model = sparsevd.load(models / "lenet-5" / "sparse.safetensors")
    pixels = np.arange(2 * 784, dtype=np.uint8).reshape(2, 1, 28, 28)
    x = model.preprocess(pixels)
    assert x.dtype == np.float32 and x.shape == pixels.shape
    np.testing.assert_array_equal(model.preprocess(np.asfortranarray(pixels)), x)
    # Linear in the pixels, by one scale and one mean.
    low, high = x[pixels == 0][0], x[pixels == 255][0]
    np.testing.assert_allclose(x, low + pixels / np.float32(255) * (high - low), rtol=1e-5, atol=1e-5)


def test_plans_are_those_of_the_program(models, program):
    path = models / "lenet-300-100" / "sparse.safetensors"
    model = sparsevd.load(path)
    plan = model.plan(batch=8)
    assert plan.to_dict()["nodes"] == json.loads(program("run-sparse", "plan", path, "-b", 8, "-t", 1, "--json"))["nodes"]
    assert str(plan).startswith("sparse plan of lenet-300-100 for batch 8")
    assert plan.multiply_adds < plan.dense_multiply_adds
    assert plan.weight_bytes > 0 and plan.arena_bytes > 0
    assert str(model.session(threads=1, batch=8).plan) == str(plan)


def test_inspection_is_that_of_the_program(models, program):
    path = models / "lenet-300-100" / "sparse.safetensors"
    assert sparsevd.load(path).inspect() == json.loads(program("compress", "inspect", path, "--json"))
    assert "of 266200 weights" in repr(sparsevd.load(path))


def test_ids_are_arrays_of_integers(models):
    golden = models.parent / "tests" / "golden" / "onnx"
    session = sparsevd.load(golden / "ids.onnx").session(threads=1)
    arrays = dict(np.load(golden / "ids.npz"))
    expected = arrays.pop("y").reshape(3, -1)
    for kind in [np.int64, np.int32, np.uint8]:
        y = session(**{name: ids.astype(kind) for name, ids in arrays.items()})
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    # Nine rows, and every other element.
    wide = np.repeat(arrays["x"], 2, axis=1)[:, ::2]
    np.testing.assert_allclose(session(**arrays | {"x": wide}), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(sparsevd.InputError, match="input `x`, sample 1: expected ids from 0 to 8, got 9"):
        session(**arrays | {"x": np.where(np.arange(3)[:, None] == 1, 9, arrays["x"])})
    with pytest.raises(sparsevd.InputError, match="a NumPy array of integers, got an array of float32"):
        session(**arrays | {"x": arrays["x"].astype(np.float32)})
