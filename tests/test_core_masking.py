"""What is confidential shows in no log, error or traceback."""

import json
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving_kit as world

from core.errors import ServiceUnavailable
from core.home import Home
from core.masking import confidential, discreet, guard, masked
from flows import cli, commands
from serving import logs
from serving.ledger import Ledger, LedgerReader, rows
from serving.noting import account_event
from serving.worker import Worker

ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": "postgresql://ratchet:h%C3%BCnter2@db/mlflow",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "RATCHET_ALERT_URLS": "tgram://123456789:AAFtoken/-100200300 json://me:letters-only@127.0.0.1:8085/hook",
    "RATCHET_ALERT_FILE": "/etc/ratchet/alerts.urls",
    "PGPASSWORD": "pass",  # too short to be told from an ordinary word
    "IB_HOST": "127.0.0.1",
    "ODD": "http://[half",
    "RATCHET_STUDIES_URL": "postgresql://db/studies?user=me&password=a%20long%20one",
}


def test_passwords_tokens_and_keys_are_confidential_and_nothing_else_is() -> None:
    assert set(confidential(ENVIRONMENT)) == {
        "h%C3%BCnter2", "wJalrXUtnFEMI", "AKIDEXAMPLE",
        "a%20long%20one", "a long one", "123456789", "AAFtoken", "-100200300", "letters-only",
    }  # fmt: skip


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    secrets = confidential({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefghij"})
    assert masked("abcdefghij, abcdefgh and IB_HOST", secrets) == "****, **** and IB_HOST"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ratchet:ratchet@db/ledger", "postgresql://ratchet:****@db/ledger"),
        ("https://:a/b@git.example/x, y@z", "https://:****@git.example/x, y@z"),
        ("s3://db?user=me&Password=p&x=1", "s3://db?user=me&Password=****&x=1"),
        ('{"at":"http://127.0.0.1:4200/api","to":"a@b"}', None),
        ("ssh://git@git.example:22/x", None),
    ],
)
def test_in_an_address_a_password_is_known_by_its_place_however_short(
    address: str, shown: str | None
) -> None:
    assert confidential({"DATABASE_URL": address}) == ()
    assert masked(address) == (shown or address)


def test_an_error_that_tells_no_secret_stays_and_another_is_told_without_it() -> None:
    plain = KeyError("a bar")
    assert discreet(plain, ["s3cretword"]) is plain
    try:
        try:
            raise OSError(2, "no such file", "/s3cretword")
        except OSError as cause:
            raise ServiceUnavailable("gone") from cause
    except ServiceUnavailable as error:
        told = discreet(error, ["s3cretword"])
    shown = "".join(traceback.format_exception(told))
    assert isinstance(told, ServiceUnavailable)
    assert str(told) == "gone"
    assert "FileNotFoundError: [Errno 2] no such file: '/****'" in shown
    assert "s3cretword'" not in shown


def test_neither_a_process_nor_a_thread_of_it_dies_telling_a_secret(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    guard()

    def broken() -> None:
        raise KeyError(ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])

    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("KeyError: '****'\n")
    error = KeyError(ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])
    sys.excepthook(KeyError, error, None)
    assert capsys.readouterr().err == "KeyError: '****'\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name, text in (ENVIRONMENT | {"RATCHET_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("DASHBOARD_PASSWORD", 'quo"te\\und')
    return Home(tmp_path)


def test_an_error_and_its_traceback_show_no_secret(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "no answer from {MLFLOW_TRACKING_URI} with {AWS_SECRET_ACCESS_KEY}".format(**ENVIRONMENT)
    for error, code in ((ServiceUnavailable(told), 7), (KeyError(told), 70)):

        def broken(*_: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(commands, "doctor", broken)
        assert cli.main(["doctor"]) == code
    shown = capsys.readouterr().err + (home.logs / "ratchet.log").read_text()
    assert shown.count("postgresql://ratchet:****@db/mlflow with ****") == 3
    assert not [one for one in confidential(ENVIRONMENT) if one in shown]


def test_a_worker_that_fails_tells_ledger_and_status_no_secret(home: Home) -> None:
    settings, feed = world.params(), world.feed()
    shelf = world.shelf_with_both(home.root / "shelf", settings)

    def broken(*_: object) -> Iterator[object]:
        raise ConnectionError(ENVIRONMENT["MLFLOW_TRACKING_URI"])
        yield

    feed.stream = broken  # type: ignore[method-assign,assignment]
    worker = Worker(home, settings, ["solo"], feed, shelf=shelf, environment=ENVIRONMENT)
    with pytest.raises(ConnectionError):
        worker.run()
    with LedgerReader(home.ledger) as ledger:
        end = ledger.rows(rows.SessionEvent)[-1]
    assert end.detail == "ConnectionError: postgresql://ratchet:****@db/mlflow"
    told = (home.root / "worker.json").read_text() + (home.logs / "worker.jsonl").read_text()
    assert "nter2" not in told


def test_an_event_tells_neither_the_ledger_nor_who_listens_to_it_a_secret(home: Home) -> None:
    heard: list[rows.Row] = []
    with Ledger(home.ledger) as ledger:
        ledger.listen(heard.append)
        with ledger.transaction():
            ledger.add(account_event(1, "vendor", "403: key AKIDEXAMPLE"))
        (kept,) = ledger.rows(rows.RiskEvent)
    assert kept.detail == "403: key ****"
    assert heard == [kept]


def test_a_line_of_the_workers_log_shows_no_secret(home: Home) -> None:
    with logs.logging_to(home) as log:
        try:
            raise ConnectionError(ENVIRONMENT["MLFLOW_TRACKING_URI"])
        except ConnectionError:
            log.exception("away", extra={"reason": ["AAFtoken", 'quo"te\\und']})
    written = (home.logs / "worker.jsonl").read_text()
    line = json.loads(written)
    assert line["reason"] == ["****", "****"]
    assert "postgresql://ratchet:****@db/mlflow" in line["traceback"]
    assert "nter2" not in written
