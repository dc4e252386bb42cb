"""A user's own columns and rewards: functions called by their import path.

Owns ``package.module:function``: how it is found, and which code it is. A column is a function of
``features.indicators.Prices`` that returns one float64 number per bar; what knows the future is
refused by the leak prover, when features are made and before a retraining.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from core.errors import ConfigError
from features.adjust import Array
from features.indicators import Prices

# What has versions of its own: Python and Ratchet.
ELSEWHERE = sys.stdlib_module_names | {
    "core", "sources", "features", "registry", "training", "serving", "pipelines", "flows"
}  # fmt: skip


def is_path(name: str) -> bool:
    """Say whether a column is a user's own, called by its import path."""
    return ":" in name


def own_indicator(name: str) -> Callable[[Prices], Array]:
    """Import ``package.module:function``; raise ``ConfigError`` where there is no such function."""
    function = _imported(name)

    def checked(prices: Prices) -> Array:
        values = np.array(function(prices), dtype=np.float64)
        if values.shape != prices.close.shape:
            raise ConfigError(
                f"feature {name!r}: returned shape {values.shape}, expected {prices.close.shape}, "
                "one number per bar"
            )
        return values

    return checked


def own_sha256(name: str) -> str:
    """Return the hash of the module that ``name`` leads to and of those of the user's own that it
    imports, at once or later: its version."""
    try:
        module = inspect.getmodule(_imported(name))
        source = inspect.getsource(module or _imported(name))
        helpers = _helpers(module.__name__, source) if module else {}
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(f"feature {name!r}: its source cannot be read ({error})") from error
    text = "\0".join([source, *(f"{name}\0{helpers[name]}" for name in sorted(helpers))])
    return hashlib.sha256(text.encode()).hexdigest()


def _helpers(module: str, source: str) -> dict[str, str]:
    """Return the source of every module of the user's own that ``module`` needs, by its name."""
    found = {module: source}
    waiting = [module]
    while waiting:
        one = waiting.pop()
        for name in _names_in(one, found[one]):
            if name not in found and (file := _file_of(name)):
                found[name] = file.read_text(encoding="utf-8")
                waiting.append(name)
    del found[module]
    return found


def _names_in(module: str, source: str) -> Iterator[str]:
    """Yield every name that might be a module which ``module`` imports, packages first."""
    above = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):  # from . or .. of a module, or of a package
            bases = (above[: len(above) - node.level], above[: len(above) - node.level + 1])
            ends = [[*filter(None, [node.module]), alias.name] for alias in node.names]
            imported = [".".join([*base, *end]) for base in bases for end in ends]
        else:
            continue
        for name in imported:
            parts = name.split(".")
            yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _file_of(name: str) -> Path | None:
    """Return where a module of the user's own lies; None where it is none, or none of theirs."""
    top = name.partition(".")[0]
    if top in ELSEWHERE or _is_installed(top):
        return None  # before anything of it is imported, as looking below it would
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a name inside a module
        return None
    found = spec.origin if spec and spec.has_location else None
    return Path(found) if found and found.endswith(".py") else None


def _is_installed(package: str) -> bool:
    """Say whether a package is there by installation, which gave it a version, or not at all."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # `__main__`
        spec = None
    if spec is None:
        return True
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _imported(name: str) -> Callable[[Prices], Array]:
    module_name, _, function_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"feature {name!r}: cannot import {module_name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"feature {name!r}: {module_name!r} has no function {function_name!r}")
    imported: Callable[[Prices], Array] = found
    return imported
