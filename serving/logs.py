"""The worker's log: one JSON object per line, in files that roll over.

Owns format and files. Messages are short words, everything else is a field:
``logger.info("bar closed", extra={"agent": "aapl", "equity": 101234.5})``.
"""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from core.home import Home

NAME = "ratchet.serving"
BYTES, FILES = 5_000_000, 5
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, message, and the fields given with it."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        content |= {k: _plain(v) for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


@contextmanager
def logging_to(home: Home) -> Iterator[logging.Logger]:
    """Give the worker's logger, writing to ``Home.logs`` while the block runs."""
    handler = RotatingFileHandler(
        home.make(home.logs) / "worker.jsonl", maxBytes=BYTES, backupCount=FILES, encoding="utf-8"
    )
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value
