"""Masking: what the environment holds in confidence shows in no text that leaves a process.

Owns which variables are confidential: those whose name says so, addresses alerts are sent to, and
the password in any address. Pure; whoever writes a log or an error asks it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

MASK = "****"
SHORTEST = 8  # characters: shorter ones would mask words such as `ratchet`, ids of orders included
CONFIDENTIAL = re.compile(r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|AUTH_STR")
PASSWORD = re.compile(r"://[^/@:\s]*:([^@\s]+)@")  # in an address
HOST = re.compile(r"\d{1,3}(\.\d{1,3}){3}|localhost|[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,6}")
ADDRESSES = frozenset({"RATCHET_ALERT_URLS"})  # a token may be anywhere in them


def confidential(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what must not show, longest first."""
    found = {one for name, text in environment.items() for one in _of(name, text)}
    return tuple(sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True))


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with ``****`` for each of ``secrets``, which come longest first."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _of(name: str, text: str) -> Iterator[str]:
    if name in ADDRESSES:
        for address in text.split():
            pieces = re.split(r"[/?&=@:#]+", address.partition("://")[2])
            yield from (piece for piece in pieces if not HOST.fullmatch(piece))
    elif CONFIDENTIAL.search(name) and not name.endswith(("_FILE", "_PATH")):
        yield text
    yield from PASSWORD.findall(text)
