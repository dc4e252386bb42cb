"""Channels: where alerts go, by apprise: Telegram, WhatsApp, e-mail, any URL it knows.

Owns the addresses (RATCHET_ALERT_URLS, or a file of mode 600) and the delivery, in a thread of its
own behind a bounded queue: nobody ever waits for a channel, and what finds the queue full is
counted. Addresses are secrets, masked in every message of ours and of apprise. Knows nothing of
what an alert means.
"""

import logging
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from core.errors import ConfigError, ServiceUnavailable
from core.home import Home
from core.masking import confidential
from core.masking import masked as hidden
from serving.alerts import Alert
from serving.secrets import Secret, masked, secrets_from

URLS, URLS_FILE, DEFAULT_FILE = "RATCHET_ALERT_URLS", "RATCHET_ALERT_FILE", "alerts.urls"
WAITING_AT_MOST = 100  # alerts
RETRY_SECONDS = 5.0
FLUSH_SECONDS = 10.0  # when trading ends: for what is still waiting

KINDS = {"info": "info", "warning": "warning", "critical": "failure"}  # apprise's words

Outcome = Callable[[str, Alert, str], None]  # sent | failed | dropped, the alert, masked reason


class Channels:
    """Every address alerts are sent to."""

    def __init__(self, addresses: Sequence[Secret]) -> None:
        """Raise ``ConfigError`` for an address apprise does not know."""
        self._addresses = tuple(addresses)
        self._secrets = confidential(os.environ)
        self._services = [self._service(number, one) for number, one in enumerate(addresses, 1)]

    @classmethod
    def of(cls, home: Home, environment: Mapping[str, str] = os.environ) -> "Channels | None":
        """Return the channels this home is given, None where there are none."""
        found = secrets_from(environment, URLS, URLS_FILE, home.root / DEFAULT_FILE)
        return cls(found) if found else None

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def names(self) -> tuple[str, ...]:
        """Return every address, masked."""
        return tuple(map(repr, self._addresses))

    def __repr__(self) -> str:
        return f"Channels({', '.join(self.names)})"

    def deliver(self, alert: Alert) -> None:
        """Send to every channel; raise ``ServiceUnavailable`` naming, masked, those that failed."""
        if failed := self.attempt(alert, range(len(self))):
            raise ServiceUnavailable(f"alert not delivered: {self.named(failed)}")

    def attempt(self, alert: Alert, channels: Iterable[int]) -> dict[int, str]:
        """Send to some channels, by position; return why it failed where it did, masked."""
        tried = {number: self._try(self._services[number], alert) for number in channels}
        return {number: reason for number, reason in tried.items() if reason is not None}

    def named(self, failed: Mapping[int, str]) -> str:
        """Return which channels failed, and why, in words."""
        return "; ".join(f"{self._addresses[number]!r}: {why}" for number, why in failed.items())

    def _try(self, service: Any, alert: Alert) -> str | None:
        words: list[str] = []
        with _hearing(words):
            try:
                sent = service.notify(
                    body=masked(hidden(alert.text, self._secrets), self._addresses),
                    title=alert.title,
                    notify_type="success" if alert.ends else KINDS[alert.level],
                )
            except Exception as error:  # noqa: BLE001 - any of a hundred services' own
                sent, words = False, [f"{type(error).__name__}: {error}"]
        return None if sent else masked("; ".join(words) or "refused", self._addresses)

    def _service(self, number: int, address: Secret) -> Any:
        from apprise import Apprise

        service = Apprise()
        with _hearing([]):
            known = service.add(address.reveal())
        if not known:
            raise ConfigError(
                f"{URLS}: address {number} ({address!r}) is none that apprise knows, such as "
                "tgram://TOKEN/CHAT or mailto://USER:PASSWORD@HOST; see "
                "https://github.com/caronc/apprise/wiki"
            )
        return service


@contextmanager
def _hearing(words: list[str]) -> Iterator[None]:
    """Collect what apprise logs, and let none of it reach another log: it names addresses."""
    logger, handler = logging.getLogger("apprise"), _Collector(words)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, words: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._words = words

    def emit(self, record: logging.LogRecord) -> None:
        self._words.append(record.getMessage())


class Sender:
    """Delivers alerts one after the other in a thread of its own."""

    def __init__(self, channels: Channels, outcome: Outcome) -> None:
        self._channels = channels
        self._outcome = outcome
        self._queue: queue.Queue[Alert | None] = queue.Queue(WAITING_AT_MOST)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, alert: Alert) -> None:
        """Queue an alert; where the queue is full it is dropped, and counted."""
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self._outcome("dropped", alert, f"{WAITING_AT_MOST} alerts wait already")

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is waiting, for a while, and end."""
        self._stop.set()  # no more pauses before another try
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            return  # the thread is a daemon
        self._thread.join(timeout=seconds)

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            self._deliver(alert)

    def _deliver(self, alert: Alert) -> None:
        failed = self._channels.attempt(alert, range(len(self._channels)))
        if failed:
            self._stop.wait(RETRY_SECONDS)
            failed = self._channels.attempt(alert, failed)
        self._outcome("failed" if failed else "sent", alert, self._channels.named(failed))
