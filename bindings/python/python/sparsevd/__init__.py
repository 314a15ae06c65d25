"""Networks compressed by Sparse Variational Dropout, and run sparse on ordinary CPUs."""

from ._compress import Compressed, compress
from ._errors import CompressError, Error, FormatError, InputError, InternalError, ModelError
from ._native import Model, Plan, Session, __version__, load

__all__ = [
    "CompressError",
    "Compressed",
    "Error",
    "FormatError",
    "InputError",
    "InternalError",
    "Model",
    "ModelError",
    "Plan",
    "Session",
    "__version__",
    "compress",
    "load",
]
