"""Compressing gives what the command gives."""

import os
import signal
import threading

import numpy as np
import pytest

import sparsevd

RECIPE = """
validation = 120
seed = 3

[[phase]]
method = "sparse-vd"
epochs = 5
batch = 20
lr = 1e-2

[[phase]]
method = "fine-tune"
epochs = 3
batch = 20
lr = 3e-3
"""

@pytest.fixture
def case(tmp_path, mlp, table):
    """A model, its data and a recipe in files."""
    mlp.save(tmp_path / "mlp.safetensors")
    x, y = table
    np.savez(tmp_path / "set.npz", x=x, y=y)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def command(program, case, *options) -> bytes:
    """The result of the command."""
    folder = case / "command"
    folder.mkdir()
    out = folder / "mlp.sparse.safetensors"
    arguments = [case / "mlp.safetensors", "--data", case / "set.npz", "--run", folder / "run", "--out", out, "--no-report"]
    program("compress", *arguments, *options, cwd=folder)
    return out.read_bytes()


def test_the_bytes_are_those_of_the_command(case, program, table):
    expected = command(program, case)
    epochs = []
    result = sparsevd.compress(
        case / "mlp.safetensors",
        case / "set.npz",
        out=case / "a.sparse.safetensors",
        run=case / "a.run",
        on_epoch=epochs.append,
    )
    assert (case / "a.sparse.safetensors").read_bytes() == expected
    assert len(epochs) == 8 and [e["epoch"] for e in epochs] == [1, 2, 3, 4, 5, 1, 2, 3]
    assert result.history == epochs == result.report["history"]
    assert result.report["nonzeros"] == result.model.nonzeros < result.model.weights
    assert (case / "a.run" / "training.log").read_text().count("\n") > 8
    # The same network and data in memory.
    loaded = sparsevd.load(case / "mlp.safetensors")
    in_memory = sparsevd.compress(loaded, table)
    in_memory.save(case / "b.sparse.safetensors")
    assert (case / "b.sparse.safetensors").read_bytes() == expected
    named = sparsevd.compress(loaded, {"x": table[0], "y": table[1].astype(np.uint8)}, recipe=case / "recipe.toml")
    named.save(case / "c.sparse.safetensors")
    assert (case / "c.sparse.safetensors").read_bytes() == expected


def test_int8_layers_are_those_of_the_command(case, program, table):
    expected = command(program, case, "--int8")
    loaded = sparsevd.load(case / "mlp.safetensors")
    result = sparsevd.compress(loaded, table, recipe=case / "recipe.toml", int8=True)
    result.save(case / "int8.sparse.safetensors")
    assert (case / "int8.sparse.safetensors").read_bytes() == expected
    assert result.report["int8"]["layers"] >= result.report["int8"]["int8_layers"]


def test_without_labels_the_network_is_held_to_its_own_answers(case, program, table):
    x, y = table
    np.savez(case / "set.npz", x=x)
    expected = command(program, case, "--min-agreement", 70)
    loaded = sparsevd.load(case / "mlp.safetensors")
    for name, data in {"array": x, "mapping": {"x": x}, "file": case / "set.npz"}.items():
        result = sparsevd.compress(loaded, data, recipe=case / "recipe.toml", min_agreement=70)
        result.save(case / f"{name}.sparse.safetensors")
        assert (case / f"{name}.sparse.safetensors").read_bytes() == expected
    accuracy = result.report["accuracy"]
    assert accuracy["against"] == "dense-network" and accuracy["promise"]["max_accuracy_drop"] == 30
    with pytest.raises(sparsevd.CompressError, match="min_agreement: expected inputs without labels"):
        sparsevd.compress(loaded, table, recipe=case / "recipe.toml", min_agreement=70)
    with pytest.raises(TypeError, match="max_accuracy_drop, min_agreement"):
        sparsevd.compress(loaded, x, max_accuracy_drop=1, min_agreement=70)


def test_options_are_those_of_the_command(case, program):
    options = {"kl_scale": 2.5, "threshold": 2.0, "seed": 7, "validation": 0.25, "max_accuracy_drop": 3.0}
    arguments = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), value)]
    expected = command(program, case, *arguments)
    result = sparsevd.compress(case / "mlp.safetensors", case / "set.npz", **options)
    result.save(case / "a.sparse.safetensors")
    assert (case / "a.sparse.safetensors").read_bytes() == expected
    assert "kl_scale = 2.5" in result.recipe


def test_methods_are_those_of_the_command(case, program):
    expected = command(program, case, "--method", "fisher", "--ratio", 4)
    result = sparsevd.compress(case / "mlp.safetensors", case / "set.npz", method="fisher", ratio=4)
    result.save(case / "a.sparse.safetensors")
    assert (case / "a.sparse.safetensors").read_bytes() == expected


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 7])
def test_an_interrupted_run_goes_on_to_the_same_bytes(case, program, after):
    expected = command(program, case)
    epochs = []

    def stop(record):
        epochs.append(record)
        if len(epochs) == after:
            raise Stop

    where = {"data": case / "set.npz", "run": case / "a.run", "out": case / "a.sparse.safetensors"}
    with pytest.raises(Stop):
        sparsevd.compress(case / "mlp.safetensors", on_epoch=stop, **where)
    assert not (case / "a.sparse.safetensors").exists()
    with pytest.raises(sparsevd.CompressError, match="expected a folder without a checkpoint"):
        sparsevd.compress(case / "mlp.safetensors", **where)
    result = sparsevd.compress(case / "mlp.safetensors", resume=True, on_epoch=epochs.append, **where)
    assert (case / "a.sparse.safetensors").read_bytes() == expected
    assert len(result.history) == 8 and len(epochs) == 8


def test_the_command_goes_on_with_a_run_of_python(case, program):
    expected = command(program, case)

    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        sparsevd.compress(case / "mlp.safetensors", case / "set.npz", run=case / "a.run", on_epoch=stop)
    out = case / "a.sparse.safetensors"
    program("compress", case / "mlp.safetensors", "--resume", case / "a.run", "--out", out, "--no-report")
    assert out.read_bytes() == expected


@pytest.fixture
def hears_ctrl_c():
    """Shells start what runs in the background with SIGINT ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_a_checkpoint(case, program, hears_ctrl_c):
    expected = command(program, case)
    seen = []

    def on_epoch(record):
        seen.append(record)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            # The handler of Python raises in the callback, as wherever Python runs.

    where = {"data": case / "set.npz", "run": case / "a.run"}
    with pytest.raises(KeyboardInterrupt, match="a.run; go on with the same arguments and resume=True"):
        sparsevd.compress(case / "mlp.safetensors", on_epoch=on_epoch, **where)
    result = sparsevd.compress(case / "mlp.safetensors", resume=True, **where)
    result.save(case / "a.sparse.safetensors")
    assert (case / "a.sparse.safetensors").read_bytes() == expected


def test_an_earlier_checkpoint_is_used_aloud(case):
    where = {"data": case / "set.npz", "run": case / "a.run"}

    def on_epoch(record):
        if record["epoch"] == 3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sparsevd.compress(case / "mlp.safetensors", on_epoch=on_epoch, **where)
    last = case / "a.run" / "checkpoint.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="checkpoint"):
        first = sparsevd.compress(case / "mlp.safetensors", resume=True, **where)
    # The lock of a run ends with it, also where its result is kept.
    again = sparsevd.compress(case / "mlp.safetensors", overwrite=True, **where)
    assert again.report["nonzeros"] == first.report["nonzeros"]


def test_ctrl_c_is_heard_in_the_midst_of_training(case, hears_ctrl_c):
    (case / "long.toml").write_text(RECIPE.replace("epochs = 5", "epochs = 400"))
    where = {"data": case / "set.npz", "recipe": case / "long.toml"}
    expected, got = case / "a.sparse.safetensors", case / "b.sparse.safetensors"
    sparsevd.compress(case / "mlp.safetensors", out=expected, **where)
    timers = []

    def on_epoch(record):
        if not timers:
            timers.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)))
            timers[0].start()

    with pytest.raises(KeyboardInterrupt):
        sparsevd.compress(case / "mlp.safetensors", run=case / "b.run", on_epoch=on_epoch, **where)
    timers[0].join()
    sparsevd.compress(case / "mlp.safetensors", run=case / "b.run", resume=True, out=got, **where)
    assert got.read_bytes() == expected.read_bytes()


def test_threads_work_while_a_run_does(case):
    (case / "long.toml").write_text(RECIPE.replace("epochs = 5", "epochs = 500"))
    count = []

    def work():
        while not done.wait(0.001):
            count.append(1)

    done = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    sparsevd.compress(case / "mlp.safetensors", case / "set.npz", recipe=case / "long.toml")
    done.set()
    thread.join()
    assert len(count) > 10


def test_numbers_as_targets_make_a_regression(rng, case):
    x = rng.normal(size=(400, 8)).astype(np.float32)
    y = np.stack([x[:, 0], x[:, 1], x[:, 0] - x[:, 1]], axis=1)
    result = sparsevd.compress(case / "mlp.safetensors", (x, y), recipe=case / "recipe.toml")
    assert result.history[-1]["validation_r2"] is not None


def test_pruning_needs_no_data(case):
    result = sparsevd.compress(case / "mlp.safetensors", sparsity=0.75)
    # Units that died take some of the others along.
    assert 0 < result.model.nonzeros <= result.model.weights // 4
    report = result.save(case / "a.sparse.safetensors")
    assert report["nonzeros"] == result.model.nonzeros
    assert (case / "a.spvd").exists()
    assert all(timing["runs"] >= 3 for timing in report["timings"])


def test_a_report_can_do_without_times(case):
    result = sparsevd.compress(case / "mlp.safetensors", sparsity=0.75, bench=False, out=case / "a.sparse.safetensors")
    assert result.report["timings"] is None
    assert result.report["kernels"], "kernels are planned all the same"
    # Those of a later file neither.
    assert result.save(case / "b.sparse.safetensors")["timings"] is None


def test_a_calibration_prunes_with_inputs_alone(rng, case):
    x = rng.normal(size=(300, 8)).astype(np.float32)
    notes = []
    result = sparsevd.compress(case / "mlp.safetensors", x, calibrate=100, sparsity=0.5, on_note=notes.append)
    assert result.history == []
    assert result.model.nonzeros <= result.model.weights // 2
    assert any("on 100 samples" in note for note in notes)
    whole = sparsevd.compress(case / "mlp.safetensors", x, calibrate=True, sparsity=0.5, out=case / "c.safetensors")
    # A sixth of the inputs is for validation.
    assert whole.report["pruning"] == {"method": "calibration", "samples": 250, "sparsity": 0.5, "every_layer": False}
    assert whole.model.nonzeros <= whole.model.weights // 2


def test_progress_is_shown_by_tqdm(case, capsys):
    sparsevd.compress(case / "mlp.safetensors", case / "set.npz", progress=True)
    shown = capsys.readouterr().err
    assert "1/2 sparse-vd" in shown and "loss=" in shown
    sparsevd.compress(case / "mlp.safetensors", case / "set.npz", progress=False)
    assert capsys.readouterr().err == ""


def bad(x=None, y=None, **more):
    one = np.ones((4, 8), np.float32)
    return {"x": one if x is None else x, "y": np.zeros(4, np.int64) if y is None else y} | more


NAN = np.ones((4, 8), np.float32)
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (bad(x=NAN), sparsevd.FormatError, "`x`: element 17: expected a finite number, got NaN"),
        (bad(y=np.zeros(5, np.int64)), sparsevd.FormatError, "`y`: shape: expected [4]"),
        (bad(y=np.full(4, -1)), sparsevd.FormatError, "`y`: label 0: expected 0 to 65535, got -1"),
        (bad(y=np.full(4, 3)), sparsevd.FormatError, "label of image 0: expected 0 to 2"),
        (bad(x=np.ones((4, 7), np.float32)), sparsevd.FormatError, "expected [8], that of the network's input, got [7]"),
        (bad(x=np.ones((4, 8), np.complex64)), sparsevd.InputError, "data `x`: expected an array of uint8"),
        (bad(x=[["a"] * 8] * 4), sparsevd.InputError, "data `x`: expected an array of uint8"),
        (bad(z=np.ones(4)), sparsevd.FormatError, "got `z`"),
        ({"x_train": bad()["x"], "x_test": bad()["x"], "y_test": bad()["y"]}, sparsevd.FormatError, "`y_train`"),
        ((1, 2, 3), sparsevd.InputError, "expected a path, an array x, a pair (x, y) or a mapping of arrays, got an object of type tuple"),
        (([[1.0] * 8] * 4, np.zeros(4, int)), sparsevd.InputError, "data `x`: expected a NumPy array, got an object of type list"),
        ("absent.npz", FileNotFoundError, "absent.npz"),
        (None, sparsevd.CompressError, "data: expected arrays or a path, or `data` in a recipe, got neither"),
    ],
)
def test_data_that_does_not_fit(case, data, error, message):
    before = sorted(case.iterdir())
    with pytest.raises(error) as raised:
        sparsevd.compress(case / "mlp.safetensors", data, run=case / "a.run", out=case / "a.sparse.safetensors")
    assert message in str(raised.value)
    assert sorted(case.iterdir()) == before


def test_a_closed_archive_is_named(case):
    archive = np.load(case / "set.npz")
    archive.close()
    with pytest.raises(sparsevd.InputError, match="data"):
        sparsevd.compress(case / "mlp.safetensors", archive)


def test_settings_that_do_not_fit(case):
    model, data = case / "mlp.safetensors", case / "set.npz"
    for settings, error, message in [
        ({"kl_scale": -1.0}, sparsevd.CompressError, "kl_scale"),
        ({"alpha": "row"}, sparsevd.CompressError, "alpha: unknown variant `row`"),
        ({"recipe": case / "absent.toml"}, sparsevd.CompressError, "absent.toml"),
        ({"resume": True}, sparsevd.CompressError, "resume: expected a run folder"),
        ({"resume": True, "run": case / "none.run"}, sparsevd.CompressError, "none.run"),
        ({"ratio": 2.0, "weights": 3}, TypeError, "expected one of them"),
        ({"method": "magic"}, sparsevd.CompressError, "method: expected sparse-vd, magnitude, gradual-magnitude or fisher"),
        ({"calibrate": 0, "sparsity": 0.5}, sparsevd.CompressError, "calibrate: expected 1 input or more, got 0"),
        ({"calibrate": 5, "sparsity": 0.5, "scope": "layer"}, sparsevd.CompressError, "scope: expected none beside `calibrate`"),
        ({"calibrate": 5}, sparsevd.CompressError, "calibrate: expected a `sparsity` beside it, got none"),
        ({"calibrate": 5, "sparsity": 0.5, "method": "magnitude"}, sparsevd.CompressError, "method: expected none beside `calibrate`"),
        ({"method": "magnitude"}, sparsevd.CompressError, "method: expected a `sparsity`, got none"),
        ({"mean": [0.1]}, sparsevd.CompressError, "expected a data set of pixels"),
        ({"out": model}, FileExistsError, "mlp.safetensors"),
        ({"out": case / "a.pt"}, sparsevd.CompressError, "a.pt"),
        ({"values": "i8", "out": case / "a.safetensors"}, sparsevd.CompressError, "values i8"),
        ({"kl": 2.0}, TypeError, "kl"),
        ({"seed": "a"}, TypeError, "seed"),
    ]:
        with pytest.raises(error) as raised:
            sparsevd.compress(model, data, **settings)
        assert message in str(raised.value), settings
    (case / "bad.toml").write_text("epoch = 3")
    with pytest.raises(sparsevd.CompressError, match="bad.toml"):
        sparsevd.compress(model, data, recipe=case / "bad.toml")
    with pytest.raises(sparsevd.InputError, match="model: expected a path, a Model or a torch.nn.Module"):
        sparsevd.compress(3, data)
    assert not list(case.glob("*.sparse*"))
