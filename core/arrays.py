"""Arrays: one name for their type, the namespace (NumPy, torch …) they belong to, rare events.

The engine is written to the Python array API, so that the same lines run on a CPU and a GPU.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

Array: TypeAlias = Any
# np.ndarray or torch.Tensor: the array API has no common type to annotate with.

# NumPy 2 is an array-API namespace by itself; a wrapper would cost half a microsecond per call.
_NAMESPACES: dict[type, Any] = {np.ndarray: np}


def namespace(array: Array) -> Any:
    """Return the array-API namespace of ``array``; resolved once per array type."""
    kind = type(array)
    found = _NAMESPACES.get(kind)
    if found is None:
        found = _NAMESPACES[kind] = array_api_compat.array_namespace(array)
    return found


def at_least(array: Array, floor: Any) -> Array:
    """Return ``array`` with everything below ``floor`` raised to it; NaN stays NaN."""
    return namespace(array).maximum(array, _spread(array, floor))


def at_most(array: Array, ceiling: Any) -> Array:
    """Return ``array`` with everything above ``ceiling`` lowered to it; NaN stays NaN."""
    return namespace(array).minimum(array, _spread(array, ceiling))


def _spread(array: Array, number: Any) -> Any:
    # NumPy compares two arrays twice as fast as an array and a number: keep the array.
    if _is_numpy(array) and isinstance(number, float):
        return _constant(array.shape, number)
    return number


@lru_cache(maxsize=256)
def _constant(shape: tuple[int, ...], number: float) -> Array:
    constant = np.full(shape, number)
    constant.flags.writeable = False
    return constant


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


def where_true(mask: Array) -> Array:
    """Return the flat positions (m,) at which ``mask``, of any shape, is true, in order.

    What happens to few accounts in a bar (stops, splits) is computed for those alone: cheaper
    than computing it for all and choosing.
    """
    return mask.reshape(-1).nonzero()[0] if _is_numpy(mask) else mask.reshape(-1).nonzero()[:, 0]


def put(array: Array, positions: Array, values: Any) -> Array:
    """Return a copy of ``array`` with ``values`` at flat ``positions``."""
    copied = array.copy() if _is_numpy(array) else array.clone()
    copied.reshape(-1)[positions] = values
    return copied


def put_rows(array: Array, rows: Array, values: Array) -> Array:
    """Return a copy of ``array`` (n, k) with ``values`` (m, k) at ``rows`` (m,)."""
    copied = array.copy() if _is_numpy(array) else array.clone()
    copied[rows] = values
    return copied


def _is_numpy(array: Array) -> bool:
    return isinstance(array, np.ndarray)
