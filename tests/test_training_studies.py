"""Where studies are kept: what is wrong with it is said in one sentence, and soon."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flows_kit import free_port_address
from study_kit import params, plan, trials_told

from core.errors import ConfigError, CorruptFile, ServiceUnavailable, StorageError
from core.home import Home
from pipelines import retrain
from training.studies import VARIABLE
from training.study import close_study, open_study

NOWHERE = free_port_address().removeprefix("http://")


def test_a_database_that_does_not_answer_is_named_without_its_password(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"postgresql://somebody:hush@{NOWHERE}/studies")
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r"does not answer.*start it") as refused:
        open_study(home, plan())
    assert time.monotonic() - began < 30.0  # no retrying for minutes
    assert NOWHERE in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("no address", "is no database URL"),
        ("mysql://host/name", "no driver for mysql"),
    ],
)
def test_a_url_that_cannot_be_is_a_matter_of_configuration(
    home: Home, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(ConfigError, match=words):
        trials_told(home, "demo")


def test_studies_that_may_only_be_read_are_refused_and_stay(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = open_study(home, plan()).study_name
    before = home.studies.read_bytes()
    monkeypatch.setenv(VARIABLE, f"sqlite:///file:{home.studies}?mode=ro&uri=true")
    with pytest.raises(StorageError, match=r"readonly.*make file and folder writable") as refused:
        close_study(home, name)
    assert type(refused.value) is StorageError
    assert home.studies.read_bytes() == before


def test_a_file_that_is_no_database_is_named(home: Home) -> None:
    home.make(home.root)
    home.studies.write_bytes(b"something else" * 100)
    with pytest.raises(CorruptFile, match=r"studies\.db.*not a database.*move it away"):
        open_study(home, plan())


def test_a_folder_that_is_not_there_is_named(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/none/studies.db")
    with pytest.raises(StorageError, match=r"none/studies\.db.*unable to open"):
        open_study(home, plan())


def test_a_retraining_asks_for_the_studies_before_anything_else(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"postgresql://somebody@{NOWHERE}/studies")
    with pytest.raises(ServiceUnavailable, match=NOWHERE):
        retrain.run(home, params(), "demo", now=datetime(2026, 3, 2, tzinfo=UTC))
    assert not home.mlflow.exists()  # no version, no run
