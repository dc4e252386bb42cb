"""Secrets: from the environment or a file only its owner may read, and masked wherever they show.

Owns reading and masking. A secret's ``repr`` and ``str`` are its mask, so that it reaches a log or
an error only by ``reveal``. Knows nothing of what secrets open.
"""

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.errors import ConfigError

MASK = "****"
SHORTEST_MASKED = 5  # characters: shorter pieces of an address give nothing away


class Secret:
    """A text that does not show itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the call that needs it and nothing else."""
        return self._text

    @property
    def kind(self) -> str:
        """Return the scheme of an address, which is no secret."""
        scheme, found, _ = self._text.partition("://")
        return scheme if found and scheme.isalnum() else "?"

    def __repr__(self) -> str:
        return f"{self.kind}://{MASK}"

    __str__ = __repr__


def masked(text: str, secrets: Iterable[Secret]) -> str:
    """Return ``text`` without any secret in it, nor any longer piece of one."""
    for secret in secrets:
        whole = secret.reveal()
        pieces = re.split(r"[/?&=@:#\s]+", whole.partition("://")[2] or whole)
        for piece in sorted({whole, *pieces}, key=len, reverse=True):
            if len(piece) >= SHORTEST_MASKED:
                text = text.replace(piece, MASK)
    return text


def secrets_from(
    environment: Mapping[str, str], variable: str, file_variable: str, default_file: Path
) -> tuple[Secret, ...]:
    """Return what a variable holds, parted by white space, or a file, one a line.

    ``file_variable`` names the file, else ``default_file`` is looked for. Raises ``ConfigError``
    where the file named is missing, or anybody but its owner may read it.
    """
    if given := environment.get(variable, "").split():
        return tuple(map(Secret, given))
    named = environment.get(file_variable, "")
    path = Path(named).expanduser() if named else default_file
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{path}: mode {mode:03o}, others than its owner may read the secrets in it; "
                f"run `chmod 600 {path}`"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{file_variable}={path}: no such file") from None
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    found = (line.strip() for line in lines)
    return tuple(Secret(line) for line in found if line and not line.startswith("#"))
