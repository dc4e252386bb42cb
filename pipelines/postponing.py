"""Postponing: modules that a library imports whatever is asked of it, imported when they are used.

Great Expectations imports scipy.stats and altair for expectations nobody here has; with the search
for garbage in what stays for good they are half of its two and a half seconds, in every run of the
stage. Knows nothing of what is postponed.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Postponed(ModuleType):
    """Stands for a module; the first use of anything in it imports it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # questions of the import system about the stand-in
            raise AttributeError(name)
        _withdraw(self)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def postponing(*names: str) -> Iterator[None]:
    """Let imports inside get a stand-in for ``names`` that are not imported yet.

    Whoever imports them afterwards gets the real ones, as do those who use a stand-in.
    """
    stand_ins = [Postponed(name) for name in names if name not in sys.modules]
    sys.modules.update({module.__name__: module for module in stand_ins})
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for module in stand_ins:
            _withdraw(module)


def _withdraw(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]
