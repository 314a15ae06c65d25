"""Exceptions. What the operating system refuses is an OSError, such as FileNotFoundError; no memory is a MemoryError."""


class Error(Exception):
    """What sparsevd could not do. The message names the thing, what was expected and what came."""


class FormatError(Error, ValueError):
    """Something in a file, or in a data set, is not as its format has it."""


class ModelError(Error, ValueError):
    """A network that is not valid, or has a part that cannot be planned, trained or written."""


class InputError(Error, ValueError):
    """An array that a network or a data set does not take: its name, element type, shape, order or a value."""


class CompressError(Error, ValueError):
    """A setting, a recipe or a run folder that does not fit."""


class InternalError(Error, RuntimeError):
    """A bug of sparsevd. Please report it with the message."""


for _class in (Error, FormatError, ModelError, InputError, CompressError, InternalError):
    _class.__module__ = "sparsevd"
del _class
