"""Masking: what the environment holds in confidence shows in no text that leaves a process.

Owns what is confidential: variables whose name says so, addresses alerts are sent to, and the
password in any address, wherever that comes from. Pure but for ``discreetly`` and ``guard``;
whoever writes a log, a record or an error asks it.
"""

import functools
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from core.errors import RatchetError

P = ParamSpec("P")
R = TypeVar("R")

MASK = "****"
SHORTEST = 8  # characters: shorter ones would mask words such as `ratchet`, ids of orders included
NAMES = r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|AUTH_STR"
CONFIDENTIAL = re.compile(NAMES)
# In an address the place says what a password is, however short it is.
PASSWORD = re.compile(r"(://[^/@:\s]*:)([^@\s'\"]+)@")
PARAMETER = re.compile(rf"([?&;](?:{NAMES})=)([^&;\s'\"]+)", re.IGNORECASE)
HOST = re.compile(r"\d{1,3}(\.\d{1,3}){3}|localhost|[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,6}")
ADDRESSES = frozenset({"RATCHET_ALERT_URLS"})  # a token may be anywhere in them


def confidential(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what must not show, longest first; what is percent-encoded also as it is meant."""
    found = {one for name, text in environment.items() for one in _of(name, text)}
    found |= {_meant(one) for one in found}
    return tuple(sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True))


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` with ``****`` for each of ``secrets``, which come longest first, and for the
    password of every address in it."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return PARAMETER.sub(rf"\1{MASK}", PASSWORD.sub(rf"\1{MASK}@", text))


def discreet(error: Exception, secrets: Iterable[str]) -> Exception:
    """Return ``error``, or where its traceback would tell a secret, one of its name that does not.

    An error of ours keeps its class; the whole masked traceback, causes included, is its note.
    """
    secrets = tuple(secrets)
    trace = "".join(traceback.format_exception(error))
    hidden = masked(trace, secrets)
    if hidden == trace:
        return error
    kind: type[Exception] = type(error)
    if not isinstance(error, RatchetError):
        kind = type(kind.__name__, (Exception,), {"__module__": kind.__module__})
    told = kind(masked(str(error), secrets))
    told.add_note(hidden)
    return told


def discreetly(work: Callable[P, R]) -> Callable[P, R]:
    """Let ``work`` raise only what anybody may read.

    For what others keep: Prefect an exception's words and traceback in a run's state and log, where
    its page shows them, Ray those of a task in its logs.
    """

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


def guard() -> None:
    """Let this process and its threads die without telling a secret: for the start of one."""

    def told(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(masked(text, confidential(os.environ)))

    def told_of_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit:
            told(found.exc_type, found.exc_value, found.exc_traceback)

    sys.excepthook, threading.excepthook = told, told_of_thread


def _of(name: str, text: str) -> Iterator[str]:
    if name in ADDRESSES:
        for address in text.split():
            pieces = re.split(r"[/?&=@:#]+", address.partition("://")[2])
            yield from (piece for piece in pieces if not HOST.fullmatch(piece))
    elif CONFIDENTIAL.search(name) and not name.endswith(("_FILE", "_PATH")):
        yield text
    for pattern in (PASSWORD, PARAMETER):
        yield from (password for _, password in pattern.findall(text))


def _meant(text: str) -> str:
    """Return a text that an address holds percent-encoded."""
    plain = re.sub(rb"%([0-9A-Fa-f]{2})", lambda code: bytes([int(code[1], 16)]), text.encode())
    return plain.decode(errors="replace")
