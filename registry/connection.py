"""The connection to MLflow: where it is, how it is opened quietly, and what its errors mean.

Owns the client that ``registry/tracking.py`` and ``registry/models.py`` speak through, and the map
from its errors to ours. Must not know runs, versions or aliases.

``MLFLOW_TRACKING_URI`` says where: a server (http) or a database (postgresql, sqlite). Unset:
SQLite under ``Home.mlflow``, artifacts beside it, no server needed.
"""

import errno
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from core import telemetry
from core.errors import ConfigError, DiskFull, RegistryError, ServiceUnavailable, UnknownVersion
from core.home import Home
from core.masking import masked

CONNECT_SECONDS = 3.0
_DEFAULTS = {  # MLflow's own would retry for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_PSYCOPG2 = "postgresql+psycopg2://"  # SQLAlchemy's own choice is a driver that is not installed
_AWAY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "BAD_REQUEST"}
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}


def backend_uri(home: Home) -> str:
    """Return where runs and versions are kept: MLFLOW_TRACKING_URI, else this home's database."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not named:
        return f"sqlite:///{home.mlflow / 'mlflow.db'}"
    scheme = _split(named).scheme
    if scheme not in {*_PORTS, "sqlite"}:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={masked(named)}: expected http(s)://, postgresql:// or "
            "sqlite:///; unset it to keep models in Ratchet's own folder"
        )
    return named.replace("postgresql://", _PSYCOPG2, 1)


def exists(home: Home) -> bool:
    """Tell whether there can be models at all: False before the first use of a home's own file."""
    named = backend_uri(home)
    return not named.startswith("sqlite:///") or _file(named).exists()


def artifact_location(home: Home, experiment: str) -> str | None:
    """Return where an experiment's files go; None: a server decides."""
    if _split(backend_uri(home)).scheme in ("http", "https"):
        return None
    return (home.mlflow / "artifacts" / experiment).as_uri()


def connect(home: Home) -> Any:
    """Return an ``MlflowClient``; raise ``ServiceUnavailable`` within seconds when there is none.

    The first use of a home creates its database, once, whoever else tries at the same time.
    """
    telemetry.switch_off()
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    uri = backend_uri(home)
    with answering(home):
        _require_listener(uri)
        if uri.startswith("sqlite:///"):
            _create_database(_file(uri))
        return _client(uri)


@contextmanager
def answering(home: Home, absent: str = "no such entry in MLflow") -> Iterator[None]:
    """Rename what MLflow raises inside: ``ServiceUnavailable``, ``UnknownVersion`` (with the words
    ``absent``), ``DiskFull`` or ``RegistryError``."""
    try:
        yield
    except OSError as error:  # files, sockets, and every error of requests
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{home.mlflow}: no space left; free some and repeat") from error
        raise _unavailable(home, error) from error
    except Exception as error:
        family = type(error).__module__.partition(".")[0]
        if family in ("sqlalchemy", "sqlite3", "psycopg2", "alembic"):
            if "disk is full" in str(error):
                raise DiskFull(f"{home.mlflow}: no space left; free some and repeat") from error
            raise _unavailable(home, error) from error
        if family != "mlflow":
            raise
        code = str(getattr(error, "error_code", "INTERNAL_ERROR"))
        if code in _ABSENT:
            raise UnknownVersion(absent) from error
        if code in _AWAY:
            raise _unavailable(home, error) from error
        raise RegistryError(f"MLflow at {masked(backend_uri(home))}: {_brief(error)}") from error


def _file(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").split("?")[0])


def _split(uri: str) -> SplitResult:
    parts = urlsplit(uri)
    return parts._replace(scheme=parts.scheme.partition("+")[0])  # postgresql+psycopg2


def _unavailable(home: Home, error: Exception) -> ServiceUnavailable:
    uri = masked(backend_uri(home))
    if _split(uri).scheme == "sqlite":
        remedy = "check the file and its folder, or restore them from a backup"
    else:
        remedy = "start it, or correct MLFLOW_TRACKING_URI (unset: a database in Ratchet's folder)"
    return ServiceUnavailable(f"MLflow at {uri} does not answer ({_brief(error)}); {remedy}")


def _brief(error: Exception) -> str:
    """The innermost cause's first line: MLflow wraps errors in paragraphs."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0][:200]


def _require_listener(uri: str) -> None:
    """Raise ``OSError`` at once where nobody listens; SQLAlchemy would retry for minutes."""
    parts = _split(uri)
    if parts.scheme not in _PORTS or not parts.hostname:
        return
    address = (parts.hostname, parts.port or _PORTS[parts.scheme])
    socket.create_connection(address, timeout=CONNECT_SECONDS).close()


def _create_database(path: Path) -> None:
    """Create MLflow's SQLite file by its own migrations, in memory where possible, then move it.

    Hundreds of small commits take seconds on a disk, and an interrupted one would leave half a
    schema behind. Nobody sees the file before it is whole.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    fast = memory if os.access(memory, os.W_OK) else path.parent
    building = Path(tempfile.mkdtemp(prefix="ratchet-mlflow-", dir=fast))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _client.__wrapped__(f"sqlite:///{building / path.name}")
        shutil.copyfile(building / path.name, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # unlike a rename, never replaces another process's database
        except FileExistsError:
            return
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(building, ignore_errors=True)


@lru_cache(maxsize=16)
def _client(uri: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between MLflow and its own dependencies
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
