"""Where state lies, and that two homes never meet."""

from dataclasses import fields
from pathlib import Path

import pytest

from core.home import PROJECT, Home

PLACES = ("store", "data", "ledger", "promotions", "studies", "mlflow", "prefect", "bundles",
          "reports", "logs", "params_file")  # fmt: skip


def test_the_environment_moves_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "mine"))
    home = Home.from_environment()
    assert home.root == tmp_path / "mine"
    assert home.workspace == tmp_path / "mine" / "workspace"


def test_without_it_the_checkout_is_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_HOME")
    home = Home.from_environment()
    assert home.root == PROJECT / ".ratchet"
    assert home.workspace == PROJECT
    assert home.is_default


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    for place in PLACES:
        assert (tmp_path / "one") in getattr(one, place).parents
        assert (tmp_path / "two") in getattr(two, place).parents
    assert [f.name for f in fields(Home)] == ["root"]


def test_nothing_is_created_until_asked(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.ledger.name == "ledger.db"
    assert not home.root.exists()
    assert home.make(home.reports).is_dir()
