"""Where studies are kept: Optuna's storage, by file or by URL, with its errors in our words.

Owns the connection and the map from the errors of Optuna and of its database to ours. Knows no
trial.

``RATCHET_STUDIES_URL`` names a database (``postgresql://…``) that several machines may share.
Unset: SQLite under ``Home.studies``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import ConfigError, CorruptFile, DiskFull, ServiceUnavailable, StorageError
from core.home import Home

VARIABLE = "RATCHET_STUDIES_URL"
CONNECT_SECONDS = 5
_DRIVERS = {"postgresql": "postgresql+psycopg2"}  # the one that is installed
_FOREIGN = ("sqlalchemy", "sqlite3", "psycopg2", "alembic")


def storage(home: Home) -> Any:
    """Return Optuna's storage of this home; use it inside ``answering``."""
    optuna = library()
    url = _address(home)
    engine: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        engine = {"connect_args": {"connect_timeout": CONNECT_SECONDS}}
    try:
        return optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine)
    except ImportError as error:
        raise ConfigError(
            f"{VARIABLE}={url}: no driver for {url.drivername} is installed; use postgresql:// or "
            "sqlite:///, or unset it to keep studies in Ratchet's own folder"
        ) from error


def check(home: Home) -> None:
    """Raise what keeps studies from being kept, before anything is spent on one."""
    with answering(home):
        storage(home)


@contextmanager
def answering(home: Home) -> Iterator[None]:
    """Rename what Optuna and its database raise inside.

    ``ServiceUnavailable`` where a server does not answer, ``DiskFull``, ``CorruptFile``, else
    ``StorageError``. A trial is told in one transaction: what failed has left no half of it.
    """
    optuna = library()
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise _renamed(home, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        raise _renamed(home, error) from error


def library() -> Any:
    """Import Optuna, which says warnings only."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _address(home: Home) -> Any:
    import sqlalchemy

    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        home.make(home.studies.parent)
        return sqlalchemy.engine.make_url(f"sqlite:///{home.studies}")
    try:
        url = sqlalchemy.engine.make_url(named)
    except sqlalchemy.exc.ArgumentError as error:
        raise ConfigError(
            f"{VARIABLE}: is no database URL; expected postgresql://user:password@host/name or "
            "sqlite:///FILE"
        ) from error
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _renamed(home: Home, error: Exception) -> StorageError | ServiceUnavailable:
    url = _address(home)
    inner: BaseException = error
    while (cause := getattr(inner, "orig", None) or inner.__cause__) is not None:
        inner = cause
    reason = (str(inner).strip().splitlines() or [type(inner).__name__])[0]
    where = f"{url}: the studies"
    if "disk is full" in reason or "No space left" in reason:
        return DiskFull(
            f"{where} cannot grow, no space left; free some and repeat, a study goes on"
        )
    if "not a database" in reason or "malformed" in reason:
        return CorruptFile(f"{where} do not read ({reason}); restore the file or move it away")
    if url.get_backend_name() != "sqlite":
        return ServiceUnavailable(
            f"{url}: the database of the studies does not answer ({reason}); start it, or correct "
            f"{VARIABLE} (unset: a file in Ratchet's folder)"
        )
    return StorageError(
        f"{where} cannot be used ({reason}); make file and folder writable, or correct {VARIABLE}"
    )
