"""Arrays: one name for their type, and the operations of which the rules are made.

The rules are written once, for whole arrays of accounts (NumPy, torch …, on a GPU too). Every
operation is element by element, so the same functions also hold for the numbers of one account;
``core/compiled.py`` turns them into machine code that way.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import array_api_compat
import numpy as np

Array: TypeAlias = Any
# np.ndarray or torch.Tensor: the array API has no common type to annotate with.

# NumPy 2 is an array-API namespace by itself; a wrapper would cost half a microsecond per call.
_NAMESPACES: dict[type, Any] = {np.ndarray: np, np.float64: np, np.bool_: np}

_Function = TypeVar("_Function", bound=Callable[..., Any])
ELEMENTWISE: list[Callable[..., Any]] = []  # what compiled code may call


def elementwise(function: _Function) -> _Function:
    """Mark a function of operations on elements alone: it may be compiled."""
    ELEMENTWISE.append(function)
    return function


def namespace(array: Array) -> Any:
    """Return the array-API namespace of ``array``; resolved once per array type."""
    kind = type(array)
    found = _NAMESPACES.get(kind)
    if found is None:
        found = _NAMESPACES[kind] = array_api_compat.array_namespace(array)
    return found


# The operations. Their first argument must be an array; ``core/compiled.py`` says the same for
# numbers, to the last bit.


def where(condition: Array, yes: Any, no: Any) -> Array:
    """Return ``yes`` where the condition holds, else ``no``; two numbers make float64."""
    xp = namespace(condition)
    return xp.where(condition, _beside(condition, yes, xp), no)


def _beside(array: Array, number: Any, xp: Any) -> Any:
    """Put a plain number on the device of ``array``, without waiting for it."""
    if xp is np or not isinstance(number, float):
        return number
    return xp.full((), number, dtype=xp.float64, device=array.device)


def minimum(array: Array, other: Any) -> Array:
    """Return the smaller of both; NaN where one is NaN."""
    xp = namespace(array)
    return xp.minimum(array, _beside(array, other, xp))


def maximum(array: Array, other: Any) -> Array:
    """Return the larger of both; NaN where one is NaN."""
    xp = namespace(array)
    return xp.maximum(array, _beside(array, other, xp))


def trunc(array: Array) -> Array:
    """Round toward zero."""
    return namespace(array).trunc(array)


def floor(array: Array) -> Array:
    """Round down."""
    return namespace(array).floor(array)


def magnitude(array: Array) -> Array:
    """Return the absolute value."""
    return namespace(array).abs(array)


def sign(array: Array) -> Array:
    """Return -1.0, 0.0 or 1.0."""
    return namespace(array).sign(array)


def copysign(array: Array, signed: Array) -> Array:
    """Return ``array`` with the sign of ``signed``, of which zero may have either."""
    return namespace(array).copysign(array, signed)


def is_nan(array: Array) -> Array:
    """Say where there is no number."""
    return namespace(array).isnan(array)


def record(kind: Any, block: Array, first: int = 0) -> Any:
    """Return numbers ``first`` … of a block (n, k, numbers) as the named tuple ``kind``."""
    return kind(*(block[..., first + field] for field in range(len(kind._fields))))


def store(block: Array, values: tuple[Array, ...], first: int = 0) -> None:
    """Write what ``record`` reads."""
    for field, value in enumerate(values):
        block[..., first + field] = value


def quietly() -> Any:
    """Let a branch that is not chosen divide by zero, as compiled code does."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


def total(array: Array) -> Array:
    """Sum (n, k) over its k symbols to (n, 1).

    Adds in the order of the symbols, so that NumPy and torch, one account and many, agree to the
    last bit; a library's own ``sum`` may group the terms differently.
    """
    symbols = array.shape[1]
    if symbols == 1:
        return array
    result = array[:, :1]
    for column in range(1, symbols):
        result = result + array[:, column : column + 1]
    return result
