"""What a shadow test decides goes the registry's ordinary way, into the history nobody rewrites."""

from pathlib import Path

import pytest
from registry_kit import home_with_mlflow, save_baseline
from test_registry_promotion import START, hours

from core.errors import ConfigError, PromotionRefused
from core.home import Home
from registry import history, models, promotion
from serving.challengers import RegistryChallengers, name_version, unname_version

FIGURES = "shadow test against version 1: better than Production: wealth 40 reached, after 233 bars"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Version 1 is Production, version 2 Challenger, version 3 nothing."""
    home = home_with_mlflow(tmp_path_factory.mktemp("home"))
    for seed, algorithm in enumerate(("flat", "ppo", "ppo"), start=1):
        folder = home.root / "made" / str(seed)
        kind = algorithm if algorithm == "flat" else "random"
        save_baseline(folder, kind, seed=seed, algorithm=algorithm)
        models.register(home, "demo", folder)
    promotion.install(home, "demo", 1, START)
    promotion.challenge(home, "demo", 2, hours(1))
    return home


def test_a_verdict_of_the_shadow_test_goes_the_ordinary_way(home: Home) -> None:
    shelf = RegistryChallengers(home, now=lambda: hours(2))
    assert [one.version for one in shelf.named("demo")] == ["2"]
    name_version(home, "demo", 3)
    assert [one.version for one in shelf.named("demo")] == ["2", "3"]
    unname_version(home, "demo", 3)
    assert [one.version for one in shelf.named("demo")] == ["2"]

    assert "version 2 is Production in place of version 1" in shelf.promote(
        "demo", "2", "1", FIGURES
    )
    change = promotion.production_history(home, "demo")[-1]
    assert (change.by, change.reason, change.replaced) == ("shadow test", FIGURES, 1)
    assert models.aliases(home, "demo") == {"Production": 2, "Previous": 1}
    assert promotion.audit(home, ["demo"]) == []

    with pytest.raises(PromotionRefused, match="Production is now version 2"):
        promotion.promote_shadow(home, "demo", 3, 1, hours(3), FIGURES)
    promotion.rollback(home, "demo", "a person", "loses at the open", hours(4))
    with pytest.raises(PromotionRefused, match="that was taken back"):
        promotion.promote_shadow(home, "demo", 2, 1, hours(5), FIGURES)
    with pytest.raises(PromotionRefused, match="by='shadow test'"):
        promotion.promote(home, "demo", 2, hours(5), "shadow test", "pretending")

    promotion.challenge(home, "demo", 3, hours(6))
    assert shelf.drop("demo", "2", "no better") == ""
    assert shelf.drop("demo", "3", "no better").startswith("version 3 is not Challenger any more")
    assert "Challenger" not in models.aliases(home, "demo")
    assert promotion.audit(home, ["demo"]) == []
    entry = history.read(home.promotions, "demo")[-1]
    assert (entry.kind, entry.body["reason"]) == ("dismissed", "no better")
    assert (entry.body["dataset_sha256"], entry.body["commit"]) == ("d" * 64, "c" * 40)


def test_a_list_of_versions_that_is_none_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.shadows.write_text("[1]")
    with pytest.raises(ConfigError, match="not a list of versions"):
        name_version(home, "demo", 1)
