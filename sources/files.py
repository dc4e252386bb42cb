"""Files that are written whole or not at all, and Parquet whose bytes depend on the data alone.

Owns how Ratchet's files reach the disk. Knows nothing of what is in them.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import CorruptFile, DiskFull, StorageError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, sync it, rename it: a reader sees the old or the new.

    Raises ``DiskFull`` or ``StorageError``; what was at ``path`` is then untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # where it could not be made, it cannot be taken away either
            partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{path}: no space left on the device; nothing was written. Free some and repeat"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return StorageError(
            f"{path}: cannot be written, {error.filename} is or lies in a file where a folder must "
            "be; move it away and repeat"
        )
    return StorageError(f"{path}: cannot be written ({error})")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: without it a power cut may bring the old name back."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parquet_bytes(frame: pd.DataFrame, metadata: dict[str, str] | None = None) -> bytes:
    """Return ``frame`` (index ``time``, plain columns) as Parquet; same frame, same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame.reset_index(), preserve_index=False)
    described = {key.encode(): value.encode() for key, value in (metadata or {}).items()}
    sink = pa.BufferOutputStream()
    # pandas' own metadata names library versions: without it the bytes are the data's alone.
    pq.write_table(
        table.replace_schema_metadata(described), sink, compression="zstd", write_page_checksum=True
    )
    written: bytes = sink.getvalue().to_pybytes()
    return written


def read_parquet(
    path: Path, remedy: str = "restore it from a backup, or delete it and ingest again"
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return frame (index ``time``) and metadata; raise ``CorruptFile`` naming file and remedy."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        frame: pd.DataFrame = table.to_pandas()
        frame = frame.set_index("time")
        metadata: dict[bytes, Any] = table.schema.metadata or {}
        described = {key.decode(): value.decode() for key, value in metadata.items()}
    except FileNotFoundError:
        raise StorageError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        # pyarrow names the file first, and guesses at the end.
        reason = " ".join(str(error).split()).rpartition(f"'{path}': ")[2].partition(". ")[0]
        raise CorruptFile(f"{path}: does not read as Parquet ({reason}); {remedy}") from error
    return frame, described


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other processes; waits for its turn, freed when a holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
