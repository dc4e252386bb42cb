"""Discretion: what a flow or a task raises reaches Prefect without a secret in it.

Prefect keeps an exception's words and its traceback in the run's state and log, where its page
shows them, and its words go on to whoever is told of a failed run. What is confidential is for
``core.masking`` to say.
"""

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from core.masking import confidential, discreet

P = ParamSpec("P")
R = TypeVar("R")


def discreetly(work: Callable[P, R]) -> Callable[P, R]:
    """Let ``work`` raise only what anybody may read; stands below every ``flow`` and ``task``."""

    @functools.wraps(work)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except Exception as error:
            shown = discreet(error, confidential(os.environ))
            if shown is error:
                raise
            raise shown from None

    return told
