"""Secrets and what is said: no piece of an address shows, and an alert holds what is known."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import ConfigError, ServiceUnavailable
from serving.alerts import Alert, alert_of
from serving.channels import Channels
from serving.ledger import rows
from serving.secrets import Secret, masked, secrets_from

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
ALERT = Alert("failure", "critical", "worker", "", NOW, "the link s3cretword broke")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("tgram://123:abc/9", "tgram://****"),
        ("no address at all", "?://****"),
        ("hunter2secret", "?://****"),
        ("sk-key with://inside", "?://****"),
    ],
)
def test_a_secret_shows_its_scheme_at_most(address: str, shown: str) -> None:
    assert (str(Secret(address)), repr(Secret(address))) == (shown, shown)


@pytest.mark.parametrize(
    ("address", "text", "shown"),
    [
        ("json://abcde/abcdefgh", "abcdefgh and abcde", "**** and ****"),
        ("json://abcd/12345", "abcd 12345", "abcd ****"),
        ("telegram://abcdefgh", "telegram does not take abcdefgh", "telegram does not take ****"),
        ("abcdefgh:12345678", "it is 12345678", "it is ****"),
    ],
    ids=["the longest first", "no shorter than five", "not the scheme", "one without a scheme"],
)
def test_every_longer_piece_of_a_secret_is_masked(address: str, text: str, shown: str) -> None:
    assert masked(text, [Secret(address)]) == shown


def test_a_file_that_is_no_text_is_said_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "alerts.urls"
    path.write_bytes(b"json://s3cretword\xff")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"alerts\.urls: cannot be read \(UnicodeDecodeError\)$"):
        secrets_from({}, "URLS", "FILE", path)


def test_a_channel_that_raises_has_failed_and_says_why_without_its_secrets() -> None:
    channels = Channels([Secret("json://user:s3cretword@127.0.0.1:9/x")])
    bodies: list[str] = []

    def notify(body: str, **_: Any) -> bool:
        bodies.append(body)
        raise RuntimeError("s3cretword is no password")

    channels._services[0] = SimpleNamespace(notify=notify)
    assert channels.attempt(ALERT, [0]) == {0: "RuntimeError: **** is no password"}
    with pytest.raises(ServiceUnavailable, match=r"not delivered: json://\*{4}: RuntimeError"):
        channels.deliver(ALERT)
    assert "the link **** broke" in bodies[0]
    channels._services[0] = SimpleNamespace(notify=lambda **_: True)
    channels.deliver(ALERT)


def test_an_alert_says_whose_it_is_and_of_which_bar() -> None:
    lines = replace(ALERT, agent="aapl", session=3, bar_time=NOW).text.splitlines()
    for line in ("agent: aapl", "session: 3", "bar: 2026-03-02T15:00:00+00:00"):
        assert line in lines
    bare = ALERT.text
    assert not [word for word in ("agent:", "session:", "bar:", "lasts since") if word in bare]


def test_the_first_model_of_a_session_is_no_news() -> None:
    first = rows.AliasChange(
        session=1, agent="aapl", bar_time=NOW, alias="Production", model_version="2",
        bundle_sha256="b" * 64, previous_version="",
    )  # fmt: skip
    assert alert_of(first, NOW) is None
    told = alert_of(replace(first, previous_version="1"), NOW)
    assert told is not None
    assert (told.event, told.agent) == ("model", "aapl")
    assert told.detail == "alias: Production is version 2, was 1"
