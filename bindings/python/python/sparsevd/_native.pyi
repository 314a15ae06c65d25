"""Types of the compiled module."""

import os
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

_PathLike = str | os.PathLike[str]
_Array = NDArray[np.float32]
_Values = Literal["f32", "f16", "bf16", "i8"]
_PlanValues = Literal["f32", "f16", "bf16", "i8", "auto"]
_Profile = Literal["compact", "interop", "bitmask"]

__version__: str

def load(
    path: _PathLike,
    *,
    network: str | None = None,
    shapes: dict[str, list[int] | tuple[int, ...]] | None = None,
) -> Model:
    """Reads a network: safetensors (dense, sparse, an index or a folder of shards), .spvd or ONNX; the content decides.

    `network` is the graph of a file that has none: a preset (`"lenet-5"`) or a graph as JSON. `shapes` gives shapes to inputs that an
    ONNX file leaves open. What is guessed is a UserWarning, and in `Model.warnings`.
    """

def network(graph: str, tensors: dict[str, _Array]) -> Model: ...
def compress(model: Model, arrays: dict[str, np.ndarray] | None, settings: dict[str, Any], listener: object) -> Compressed: ...
@final
class Model:
    """A network: its graph and its weights. It does not change."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> dict[str, tuple[int | str, ...]]:
        """Shape of one sample of each input; a free dimension is a word."""
    @property
    def outputs(self) -> dict[str, tuple[int | str, ...]]:
        """Shape of one sample of each output."""
    @property
    def weights(self) -> int:
        """Weights of the original network, zeros included, biases apart."""
    @property
    def nonzeros(self) -> int:
        """Weights that are not zero."""
    @property
    def warnings(self) -> list[str]:
        """What was guessed when the file was read, and may be wrong."""
    @property
    def notes(self) -> list[str]:
        """How the graph was found, and which tensors were dropped."""
    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the file that the format gives no meaning to."""
    def plan(self, *, batch: int = 1, length: int = 1, threads: int = 1, dense: bool = False, values: _PlanValues = "f32") -> Plan:
        """The kernels that a session would run. `batch` and `length`, that of the free dimension, are what they are chosen for. `values` is how sparse linear layers
        store their non-zeros; "auto" is fewer bytes, which may round, where that should be faster."""
    def session(
        self,
        *,
        threads: int | None = None,
        batch: int = 1,
        length: int = 1,
        dense: bool = False,
        values: _PlanValues = "f32",
    ) -> Session:
        """A session to run the network with, on at most `threads` threads; all cores where it is None."""
    def preprocess(self, pixels: np.ndarray) -> _Array:
        """Pixels of 0 to 255 as uint8, or rows of a table, `[batch, ...]`, as input, by the preprocessing that the network stores."""
    def inspect(self) -> dict[str, Any]:
        """What `compress inspect --json` prints, of a model that was read from a file."""
    def save(
        self,
        path: _PathLike,
        *,
        values: _Values = "f32",
        profile: _Profile = "compact",
        dense: bool = False,
        grid: bool = False,
        overwrite: bool = False,
    ) -> int:
        """Writes the network as .safetensors, .spvd or .onnx, as `compress convert` does, and returns the size in bytes."""
    def to_onnx(self, path: _PathLike, *, sparse_initializers: bool = False, overwrite: bool = False) -> int:
        """Writes the network as .onnx, with its zeros where nothing else is said, and returns the size in bytes."""
    def tensors(self) -> dict[str, _Array]:
        """Copies of weights and biases by name, dense, without units that left."""
    def original_tensors(self) -> dict[str, _Array]:
        """The same in the shapes that they had before units left, with zeros for what left."""

@final
class Plan:
    """The kernel of each layer, and the memory that a run takes. `print(plan)` shows a table."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, indices and biases."""
    @property
    def arena_bytes(self) -> int:
        """Bytes of activations and scratch of one thread."""
    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per sample that the non-zeros need."""
    @property
    def dense_multiply_adds(self) -> int:
        """Multiply-adds per sample of the dense network."""
    def to_dict(self) -> dict[str, Any]:
        """What `run-sparse plan --json` prints."""

@final
class Session:
    """A network ready to run. Threads may share it; runs release the GIL."""

    def __call__(self, x: _Array = ..., /, **arrays: _Array) -> Any:
        """Runs the network on one array `[batch, ...]`, or on several by name. Returns an array, or a dictionary of several outputs."""
    def run(self, inputs: _Array | dict[str, _Array], *, out: _Array | dict[str, _Array] | None = None) -> Any:
        """The same, into arrays of the caller where `out` has them."""
    @property
    def threads(self) -> int:
        """Threads that a run may use."""
    @property
    def plan(self) -> Plan:
        """The plan; of a network with a free dimension the first one."""

@final
class Compressed:
    @property
    def model(self) -> Model: ...
    @property
    def history(self) -> list[dict[str, Any]]: ...
    @property
    def recipe(self) -> str: ...
    def save(
        self,
        path: _PathLike,
        *,
        values: str | None = None,
        profile: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]: ...
