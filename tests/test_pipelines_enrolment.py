"""Baselines in Production: registered with one command, traded like any model, on the record."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import retrain_kit as kit

from core.errors import PromotionRefused
from core.home import Home
from flows import cli, verbs
from pipelines import contest
from pipelines.contest import Champion
from pipelines.enrolment import enrol
from registry import models, promotion
from registry.baselines import BASELINES
from registry.bundle import load_bundle
from serving.ledger import LedgerReader, rows
from serving.service import serve

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return kit.home_with_data(tmp_path_factory.mktemp("home"))


def test_baselines_are_installed_promoted_by_name_and_traded(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = enrol(home, kit.settings(), "planted", "random", seed=1, by="A. Turing", now=NOW)
    assert (first.action, first.by, first.number) == ("install", "baseline", 1)
    copy = models.production(home, "planted")
    card = load_bundle(copy.folder, copy.bundle_sha256).card
    assert (card.algorithm, card.seed) == ("random", 1)

    monkeypatch.setenv("RATCHET_BUS_PORT", "0")  # four free ports
    result = serve(home, kit.settings(), ["planted"], fresh=True, processes=True)
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, session=result.session)
    assert len(decisions) == 40
    assert all(one.model_version == "1" and one.observation for one in decisions)
    assert {one.weight for one in decisions} == {0.0, 1.0}

    second = enrol(home, kit.settings(), "planted", "flat", by="A. Turing", now=NOW)
    assert (second.action, second.by, second.replaced) == ("promote", "A. Turing", 1)
    assert second.reason == "baseline flat with seed 0, registered by hand"
    result = serve(home, kit.settings(), ["planted"], fresh=True)
    assert result.sleeves[0].model_versions == ("2",)
    assert result.sleeves[0].orders == 0


def test_a_trained_model_is_replaced_for_a_reason_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(home: Home, agent: str) -> Champion | None:
        copy = models.production(home, agent)
        return Champion(copy.number, load_bundle(copy.folder, copy.bundle_sha256), baseline=False)

    enrolled = len(models.versions(home, "planted"))
    monkeypatch.setattr(contest, "champion_of", trained)
    with pytest.raises(PromotionRefused, match="was trained; to put the baseline random"):
        enrol(home, kit.settings(), "planted", "random", seed=2, by="A. Turing", now=NOW)
    assert len(models.versions(home, "planted")) == enrolled
    change = enrol(
        home, kit.settings(), "planted", "random", seed=2, by="A. Turing", reason="a drill", now=NOW
    )
    assert (change.by, change.reason) == ("A. Turing", "a drill")
    assert promotion.was_production(home, "planted", NOW).change == change


def test_the_command_line_knows_every_baseline() -> None:
    assert verbs.BASELINES == BASELINES


def test_an_unknown_baseline_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["register", "planted", "clever"])
    assert "clever" in capsys.readouterr().err
