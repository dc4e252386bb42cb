"""Compiled: the rules as machine code, for the numbers of single accounts.

Owns how Python functions marked ``elementwise`` become machine code (numba), what the operations
of ``core/arrays.py`` and ``core/lanes.py`` mean there, and where the code is kept between
processes. Without reordering or fusing of floating-point operations, so that every bit is that of
NumPy's arrays. Knows no rule.

The first call in a process loads the code, which takes half a second; the very first on a
machine compiles it, which takes some seconds. It is kept in the user's cache folder, under the
hash of the sources it comes from: another version of the rules never runs the code of this one.

numba keeps it as pickles, so whoever can write there runs what they like as this user. A folder
that others could write to is neither read nor written: the code is then compiled in each process.
"""

import hashlib
import logging
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from core import arrays, lanes, squares
from core.arrays import ELEMENTWISE, Array

_log = logging.getLogger(__name__)
_building = Lock()
_by_arrays = False
_registered: set[Callable[..., Any]] = set()


class Compiled:
    """A loop over accounts that becomes machine code when it is first called."""

    def __init__(self, loop: Callable[..., None]) -> None:
        self.__doc__, self.__name__ = loop.__doc__, loop.__name__
        self.loop = loop
        self._machine: Callable[..., None] | None = None

    def __call__(self, *arguments: Any) -> None:
        if self._machine is None:
            self._machine = _machine(self.loop, _made(cache_folder(self.loop)))
        try:
            self._machine(*arguments)
        except (OSError, EOFError, pickle.PickleError) as error:
            # Of the cache, before the loop began: a full disk, a damaged file.
            _log.warning("no compiled code in %s: %s", cache_folder(self.loop), error)
            self._machine = _machine(self.loop, None)
            self._machine(*arguments)

    @property
    def kinds(self) -> int:
        """For how many kinds of arguments there is code in this process."""
        return len(getattr(self._machine, "signatures", ()))

    @property
    def hits(self) -> int:
        """How much of it was found compiled."""
        stats: Any = getattr(self._machine, "stats", None)
        return sum(stats.cache_hits.values()) if stats else 0


def _machine(loop: Callable[..., None], folder: Path | None) -> Callable[..., None]:
    """Return what compiles ``loop`` for the arguments it is called with, kept in ``folder``."""
    import numba

    with _building:  # what follows is set for the whole process
        _register()
        config: Any = numba.config
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder or "")
        try:
            machine: Callable[..., None] = numba.njit(
                loop, error_model="numpy", nogil=True, cache=folder is not None
            )
        finally:
            config.CACHE_DIR = before
    return machine


def compiled(loop: Callable[..., None]) -> Compiled:
    """Mark a loop over accounts that calls ``elementwise`` functions on the numbers of each."""
    return Compiled(loop)


def runs_compiled(position: Array) -> bool:
    """Say whether accounts (n, k, …) run in machine code: NumPy's, with one symbol."""
    return isinstance(position, np.ndarray) and position.shape[1] == 1 and not _by_arrays


def plain(array: Array, dtype: Any) -> np.ndarray:
    """Return ``array`` as compiled code takes it, so that one compilation does for all."""
    found = np.ascontiguousarray(array, dtype)
    return found if found.flags.writeable else found.copy()


@contextmanager
def by_arrays() -> Iterator[None]:
    """Run NumPy accounts operation by operation inside, as torch's are: the reference."""
    global _by_arrays
    before, _by_arrays = _by_arrays, True
    try:
        yield
    finally:
        _by_arrays = before


def cache_folder(loop: Callable[..., None]) -> Path:
    """Return where the code of ``loop`` is kept: in the user's cache, by the hash of its sources.

    Those are the modules of this package and of its own.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    packages = {Path(__file__).parent, Path(loop.__code__.co_filename).parent}
    digest = hashlib.sha256()
    for source in sorted(source for package in packages for source in package.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return cache / "ratchet" / "compiled" / digest.hexdigest()[:16]


def _made(folder: Path) -> Path | None:
    """Return the folder, made; None where that cannot be, or no code can be kept safely in it."""
    try:
        folder = folder.expanduser()
        own = (folder, *list(folder.parents)[:2])  # down from what is Ratchet's in the cache
        for part in reversed(own):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        unsafe = [problem for part in own if (problem := _open_to_others(part))]
        if not unsafe:
            folder.chmod(0o700)  # so that a umask that lets the group write does no harm in it
            kept = (path for path in folder.rglob("*") if path.lstat().st_uid != os.geteuid())
            unsafe = [f"{path} belongs to another user" for path in kept]
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    if unsafe:
        _log.warning(
            "no compiled code is kept in %s: %s; every process compiles anew until that is mended: "
            "delete %s as its owner",
            folder,
            unsafe[0],
            own[-1],
        )
        return None
    return folder if os.access(folder, os.W_OK) else None


def _open_to_others(path: Path) -> str:
    """Say who but this user could put code at ``path``; "" where nobody could."""
    found = path.lstat()
    if found.st_uid != os.geteuid():
        return f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}"
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _register() -> None:
    """Tell numba what the elementwise functions and the operations are made of."""
    from numba.extending import overload, register_jitable

    if not _registered:
        for operation, meaning in _operations().items():
            overload(operation, jit_options={"forceinline": True})(meaning)
            _registered.add(operation)
    for function in ELEMENTWISE:
        if function not in _registered:
            register_jitable(forceinline=True)(function)
            _registered.add(function)


def _operations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return, for every operation of ``core/arrays.py``, what it means for single numbers.

    NumPy's own rule of ``minimum`` and ``maximum``: the first, where it is smaller (larger) or
    NaN, else the second.
    """
    square = squares.turn()

    def turned(source, a, b, c, d, made, first, distance):  # type: ignore[no-untyped-def]
        square(source, a, b, c, d, made, first, distance)

    return {
        arrays.where: lambda c, yes, no: lambda c, yes, no: yes if c else no,
        arrays.minimum: lambda a, b: lambda a, b: a if (a < b or a != a) else b,
        arrays.maximum: lambda a, b: lambda a, b: a if (a > b or a != a) else b,
        arrays.trunc: lambda a: lambda a: np.trunc(a),
        arrays.floor: lambda a: lambda a: np.floor(a),
        arrays.magnitude: lambda a: lambda a: abs(a),
        arrays.sign: lambda a: lambda a: np.sign(a),
        arrays.copysign: lambda a, b: lambda a, b: np.copysign(a, b),
        arrays.is_nan: lambda a: lambda a: a != a,
        arrays.total: lambda a: lambda a: a,
        lanes.lane: _lane,
        lanes.keep: _keep,
        lanes.turn: lambda source, a, b, c, d, made, first, distance: turned,
    }


def _lane(kind: Any, given: Any, first: Any, j: Any) -> Any:
    fields = range(len(kind.instance_class._fields))
    numbers = ", ".join(f"given[at + {_distance(field)}]" for field in fields)
    return _written("kind: Any, given: Any, first: Any, j: Any", f"return kind({numbers})")


def _keep(made: Any, first: Any, j: Any, values: Any) -> Any:
    lines = (f"made[at + {_distance(row)}] = values[{row}]" for row in range(len(values)))
    return _written("made: Any, first: Any, j: Any, values: Any", "; ".join(lines))


def _distance(number: int) -> str:
    # Unsigned: what might be negative counts from the end, and no vector begins there.
    return f"uint64({number * lanes.LANES})"


def _written(parameters: str, body: str) -> Any:
    """Return a function without a loop: numba does not unroll one over a tuple's fields."""
    made: dict[str, Any] = {"Any": Any, "uint64": np.uint64}
    at = f"at = uint64(first) * uint64({lanes.LANES}) + j"
    exec(f"def written({parameters}) -> Any:\n    {at}\n    {body}", made)
    return made["written"]
