"""Arrays: one name for their type, and the namespace (NumPy, torch …) they belong to.

The engine is written to the Python array API, so that the same lines run on a CPU and a GPU.
"""

from typing import Any, TypeAlias

import array_api_compat

Array: TypeAlias = Any
# np.ndarray or torch.Tensor: the array API has no common type to annotate with.

_NAMESPACES: dict[type, Any] = {}


def namespace(array: Array) -> Any:
    """Return the array-API namespace of ``array``; resolved once per array type."""
    kind = type(array)
    found = _NAMESPACES.get(kind)
    if found is None:
        found = _NAMESPACES[kind] = array_api_compat.array_namespace(array)
    return found


def total(array: Array) -> Array:
    """Sum (n, k) over its k symbols to (n,).

    Adds in the order of the symbols, so that NumPy and torch, one account and many, agree to the
    last bit; a library's own ``sum`` may group the terms differently.
    """
    result = array[:, 0]
    for column in range(1, array.shape[1]):
        result = result + array[:, column]
    return result
