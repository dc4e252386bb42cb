"""The worker's log: one JSON object per line, in files that roll over.

Owns format and files; nothing confidential passes (``core.masking``). Messages are short words,
everything else is a field: ``logger.info("bar closed", extra={"agent": "aapl", "equity": 101.5})``.
What joins lines with each other and with the ledger: ``session``, ``agent``, ``bar_time`` (of the
decision) and ``order_ref``, which is the intent's and the order's name.
"""

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from core.home import Home
from core.masking import confidential, masked

NAME = "ratchet.serving"
BYTES, FILES = 5_000_000, 5
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, message, and the fields given with it."""

    def __init__(self) -> None:
        super().__init__()
        plain = confidential(os.environ)
        self._secrets = (*plain, *(json.dumps(one)[1:-1] for one in plain))  # as JSON writes them

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields = vars(record).items()
        content |= {k: _plain(v) for k, v in fields if k not in _STANDARD and k not in content}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return masked(json.dumps(content, default=str), self._secrets)


@contextmanager
def logging_to(home: Home, file: str = "worker.jsonl") -> Iterator[logging.Logger]:
    """Give a logger that writes to a file of ``Home.logs``, one process each, in this block."""
    handler = RotatingFileHandler(
        home.make(home.logs) / file, maxBytes=BYTES, backupCount=FILES, encoding="utf-8"
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
