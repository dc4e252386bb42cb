"""Channels: every one is tried, one that fails once more, and none ever shows its address."""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest
from alert_kit import receiving, until

from core.errors import ServiceUnavailable
from serving import channels as module
from serving.alerts import Alert
from serving.channels import Channels, Sender
from serving.secrets import Secret

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def alert(number: int = 0, **changes: Any) -> Alert:
    content = {"event": "stalled", "level": "warning", "component": "agent", "agent": "aapl"}
    return Alert(**(content | {"time": NOW, "detail": f"number {number}"} | changes))


@pytest.mark.parametrize(
    ("level", "ends", "shown"),
    [("info", False, "info"), ("warning", False, "warning"), ("critical", False, "failure"),
     ("critical", True, "success")],
)  # fmt: skip
def test_how_bad_it_is_shows_in_the_words_of_the_channel(
    level: str, ends: bool, shown: str
) -> None:
    with receiving() as receiver:
        Channels([Secret(receiver.url)]).deliver(alert(level=level, ends=ends))
        assert [one["type"] for one in receiver.messages] == [shown]


class Heard(logging.Handler):
    """What reaches the log of the whole program, apprise's words among it."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    handler, root = Heard(), logging.getLogger()
    monkeypatch.setattr(logging.getLogger("apprise"), "propagate", True)
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    logging.getLogger("apprise").setLevel(logging.NOTSET)


def test_every_channel_is_tried_and_those_that_failed_are_named_without_their_secrets(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_API_TOKEN", "key-0123456789")
    with receiving() as refusing, receiving() as well:
        refusing.status = 500
        both = Channels([Secret(refusing.url), Secret(well.url)])
        assert len(both) == 2
        told = alert(detail=f"no answer to key-0123456789 nor {refusing.url}")
        with pytest.raises(ServiceUnavailable, match="alert not delivered: json") as failed:
            both.deliver(told)
        assert str(failed.value).count("json://****") == 1
        assert "500" in str(failed.value)
        (received,) = well.messages
        assert "no answer to **** nor " in received["message"]
        everything = str(failed.value) + received["message"] + repr(both) + str(heard.words)
        for secret in ("s3cretword", "token-abcdef", "key-0123456789"):
            assert secret not in everything
    assert not [one for one in logging.getLogger("apprise").handlers if one.level]  # none is left
    assert both.names == ("json://****", "json://****")
    assert repr(both) == "Channels(json://****, json://****)"


def test_a_channel_that_breaks_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> bool:
        raise ZeroDivisionError("at token-abcdef")

    def refuses(*_: object, **__: object) -> bool:
        return False

    one = Channels([Secret("json://127.0.0.1:1/token-abcdef")])
    (service,) = one._services
    monkeypatch.setattr(service, "notify", breaks)
    assert one.attempt(alert(), [0]) == {0: "ZeroDivisionError: at ****"}
    monkeypatch.setattr(service, "notify", refuses)
    assert one.attempt(alert(), [0]) == {0: "refused"}


class Played:
    """Plays channels, of which the second fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tried: list[tuple[str, list[int]]] = []
        self.held = Event()
        self.held.set()

    def __len__(self) -> int:
        return 2

    def attempt(self, told: Alert, channels: Iterable[int]) -> dict[int, str]:
        tried = list(channels)
        self.tried.append((told.detail, tried))
        assert self.held.wait(60.0)
        if 1 in tried and self.failures:
            self.failures -= 1
            return {1: "away"}
        return {}

    def named(self, failed: dict[int, str]) -> str:
        return str(failed)


def sending(played: Played) -> tuple[Sender, list[tuple[str, str, str]]]:
    outcomes: list[tuple[str, str, str]] = []
    sender = Sender(played, lambda what, one, why: outcomes.append((what, one.detail, why)))  # type: ignore[arg-type]
    sender.start()
    return sender, outcomes


@pytest.mark.parametrize(
    ("failures", "tried", "outcome"),
    [
        (0, [[0, 1]], ("sent", "number 0", "{}")),
        (1, [[0, 1], [1]], ("sent", "number 0", "{}")),
        (2, [[0, 1], [1]], ("failed", "number 0", "{1: 'away'}")),
    ],
)
def test_a_channel_that_failed_is_tried_once_more_after_a_pause_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    tried: list[list[int]],
    outcome: tuple[str, str, str],
) -> None:
    paused: list[float] = []

    class Pausing(Event):
        def wait(self, timeout: float | None = None) -> bool:
            paused.append(timeout or 0.0)
            return True

    monkeypatch.setattr(module, "Event", Pausing)
    played = Played(failures)
    sender, outcomes = sending(played)
    sender.send(alert())
    sender.close(60.0)
    assert [channels for _, channels in played.tried] == tried
    assert outcomes == [outcome]
    assert paused == [5.0] * (len(tried) - 1)


def test_at_the_end_what_waits_is_sent_without_another_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 600.0)
    played = Played(failures=1)
    sender, outcomes = sending(played)
    for number in range(3):
        sender.send(alert(number))
    sender.close(60.0)
    assert [what for what, _, _ in outcomes] == ["sent"] * 3
    assert not sender._thread.is_alive()


def test_what_finds_the_queue_full_is_dropped_and_said_to_be() -> None:
    played = Played(failures=0)
    played.held.clear()
    sender, outcomes = sending(played)
    sender.send(alert(0))
    until(lambda: bool(played.tried))  # it is being sent; a hundred more may wait
    for number in range(1, 102):
        sender.send(alert(number))
    assert outcomes == [("dropped", "number 101", "100 alerts wait already")]
    sender.close(0.01)  # nobody waits for a channel that hangs
    assert sender._thread.is_alive()
    assert sender._thread.daemon
    played.held.set()
    until(lambda: len(outcomes) == 102)
    sender.close(60.0)
    assert [detail for what, detail, _ in outcomes if what == "sent"] == [
        f"number {number}" for number in range(101)
    ]
