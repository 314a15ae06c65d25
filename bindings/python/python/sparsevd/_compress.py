"""Compressing: the keywords of `compress`, progress, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from . import _native
from ._errors import InputError

if TYPE_CHECKING:
    import torch

    from ._native import Model

    PathLike = str | os.PathLike[str]
    Arrays = np.ndarray | tuple[np.ndarray, np.ndarray] | Mapping[str, np.ndarray]


class Compressed:
    """A compressed network, and how it came about."""

    def __init__(self, native: _native.Compressed, name: str, report: dict[str, Any] | None) -> None:
        self._native = native
        self._name = name
        self._report = report
        self._model: Model | None = None
        self._history: list[dict[str, Any]] | None = None

    @property
    def model(self) -> Model:
        """The sparse network."""
        if self._model is None:
            self._model = self._native.model
        return self._model

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every epoch of its training, as in `report["history"]`."""
        if self._history is None:
            self._history = self._native.history
        return self._history

    @property
    def recipe(self) -> str:
        """The recipe that was followed, as TOML."""
        return self._native.recipe

    @property
    def report(self) -> dict[str, Any]:
        """What `compress` writes as NAME.report.json.

        Errors, bytes and times are those of written files: of the last `save`, else of files that are removed again.
        """
        if self._report is None:
            import tempfile

            with tempfile.TemporaryDirectory(prefix="sparsevd-") as folder:
                path = os.path.join(folder, f"{self._name}.sparse.safetensors")
                self._report = self._native.save(path)
        return self._report

    def save(
        self,
        path: PathLike,
        *,
        values: str | None = None,
        profile: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Writes the network to `path`, .safetensors or .spvd, with the other files of the command beside it, and returns the report."""
        self._report = self._native.save(path, values=values, profile=profile, overwrite=overwrite)
        return self._report

    def into(self, module: torch.nn.Module) -> torch.nn.Module:
        """Puts the weights into the module that was compressed, in place, with zeros for those that left, and returns it."""
        from ._module import put_weights

        return put_weights(self.model, module)

    def __repr__(self) -> str:
        return f"<sparsevd.Compressed {self.model!r}>"


class _Listener:
    """What a run tells, for a callback and a progress bar."""

    def __init__(self, on_epoch: Callable[[dict[str, Any]], object] | None, bar: Any, on_note: Any) -> None:
        self._on_epoch = on_epoch
        self._new_bar = bar
        self._bar: Any = None
        self._on_note = on_note
        self._phase = ""

    def begin(self, steps: int, done: int) -> None:
        self.close()
        if self._new_bar is not None:
            self._bar = self._new_bar(total=steps, initial=done, unit="step")

    def phase(self, number: int, of: int, method: str) -> None:
        self._phase = f"{number}/{of} {method}"
        if self._bar is not None:
            self._bar.set_description(self._phase)

    def step(self, steps: int, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(steps)

    def epoch(self, record: dict[str, Any]) -> None:
        if self._on_epoch is not None:
            self._on_epoch(record)

    def note(self, text: str) -> None:
        if self._on_note is not None:
            self._on_note(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _new_bar(progress: bool | None) -> Any:
    """What makes a progress bar, where there is to be one: tqdm."""
    if progress is False:
        return None
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError:
        if progress:
            raise
        return None
    # On a terminal or in a notebook alone, unless it was asked for.
    return lambda **about: tqdm(disable=False if progress else None, leave=False, **about)


def _arrays(data: Any) -> dict[str, np.ndarray] | None:
    """The arrays of a data set by their names in an .npz, where it is in memory."""
    if isinstance(data, (str, os.PathLike)) or data is None:
        return None
    if isinstance(data, np.ndarray):
        return {"x": data}
    if isinstance(data, Mapping):
        arrays = {}
        for name in data:
            try:
                arrays[name] = np.asarray(data[name])
            except Exception as error:  # Such as that of a closed .npz.
                raise InputError(f"data `{name}`: expected an array, got {type(error).__name__}: {error}") from error
        return arrays
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        return {"x": x, "y": y}
    raise InputError(f"data: expected a path, an array x, a pair (x, y) or a mapping of arrays, got an object of type {type(data).__name__}")


# Of the command, where `--calibrate` is given no number.
_CALIBRATION_INPUTS = 512


def compress(
    model: PathLike | Model | torch.nn.Module,
    data: PathLike | Arrays | None = None,
    *,
    recipe: PathLike | None = None,
    out: PathLike | None = None,
    run: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    kl_scale: float | None = None,
    threshold: float | None = None,
    alpha: str | None = None,
    max_accuracy_drop: float | None = None,
    min_agreement: float | None = None,
    max_r2_drop: float | None = None,
    max_class_drop: float | None = None,
    class_weights: str | None = None,
    keep_dense: Sequence[str] | None = None,
    ratio: float | None = None,
    weights: int | None = None,
    bytes: int | None = None,
    budget: float | None = None,
    method: str | None = None,
    sparsity: float | None = None,
    calibrate: int | bool | None = None,
    scope: str | None = None,
    every_layer: bool = False,
    int8: bool = False,
    posterior: PathLike | None = None,
    seed: int | None = None,
    validation: PathLike | float | None = None,
    validation_from_test: int | None = None,
    target: str | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    scale: float | None = None,
    threads: int | None = None,
    values: str | None = None,
    profile: str | None = None,
    bench: bool = True,
    example: Any = None,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    on_note: Callable[[str], object] | None = None,
    progress: bool | None = None,
) -> Compressed:
    """Compresses a network as the command `compress` does, to the same bytes.

    `model` is a path, a `Model` or a `torch.nn.Module`, for which `example` is an input of one or more samples. `data` is a path that the
    command takes, a pair of arrays `(x, y)`, an array `x` of inputs without labels, or arrays by the names that they have in an .npz. The keywords are the options of the command;
    `calibrate=True` takes as many inputs as the command does where it is given no number, and `bench=False` is `--no-bench`: no plan is
    timed for the report, whose `timings` are then `None`.
    `run` is a folder for checkpoints; after an interruption the same call with `resume=True` goes on. `on_epoch` is called with a
    dictionary after each epoch.
    """
    if ratio is not None and (weights is not None or bytes is not None) or (weights is not None and bytes is not None):
        raise TypeError("ratio, weights, bytes: expected one of them, got several")
    if max_accuracy_drop is not None and min_agreement is not None:
        raise TypeError("max_accuracy_drop, min_agreement: expected one of them, got both")
    if validation is not None and validation_from_test is not None:
        raise TypeError("validation, validation_from_test: expected one of them, got both")
    if isinstance(keep_dense, str):
        raise TypeError(f"keep_dense: expected a list of names of layers, got the string {keep_dense!r}")
    arrays = _arrays(data)
    source = _source(model, example)
    settings = {
        "data": data if arrays is None else None,
        "recipe": recipe,
        "threshold": threshold,
        "kl_scale": kl_scale,
        "alpha": alpha,
        "max_accuracy_drop": max_accuracy_drop,
        "min_agreement": min_agreement,
        "max_r2_drop": max_r2_drop,
        "max_class_drop": max_class_drop,
        "class_weights": class_weights,
        "keep_dense": None if keep_dense is None else list(keep_dense),
        "ratio": ratio,
        "weights": weights,
        "bytes": bytes,
        "budget": budget,
        "seed": seed,
        "validation": None if validation is None else str(validation),
        "validation_from_test": validation_from_test,
        "target": target,
        "mean": mean,
        "std": std,
        "scale": scale,
        "method": method,
        "sparsity": sparsity,
        "calibrate": {True: _CALIBRATION_INPUTS, False: None}[calibrate] if isinstance(calibrate, bool) else calibrate,
        "scope": scope,
        "every_layer": every_layer,
        "int8": int8,
        "posterior": posterior,
        "run": run,
        "resume": resume,
        "overwrite": overwrite,
        "threads": threads,
        "out": out,
        "values": values,
        "profile": profile,
        "bench": bench,
    }
    listener = _Listener(on_epoch, _new_bar(progress), on_note)
    try:
        native = _native.compress(source, arrays, settings, listener)
    finally:
        listener.close()
    report = None
    if out is not None:
        report = native.save(out, values=values, profile=profile, overwrite=overwrite)
    return Compressed(native, source.name, report)


def _source(model: Any, example: Any) -> Model:
    """The network that is compressed."""
    if isinstance(model, _native.Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        return _native.load(model)
    if hasattr(model, "state_dict") and hasattr(model, "named_modules"):
        from ._module import export

        return export(model, example)
    kind = type(model).__name__
    raise InputError(f"model: expected a path, a Model or a torch.nn.Module, got an object of type {kind}")
