"""Versions, aliases and local copies, against MLflow's own SQLite store."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from registry_kit import QUICK, home_with_mlflow, save_baseline, strong

from core.errors import (
    BadBundle,
    ConfigError,
    CorruptFile,
    RegistryError,
    ServiceUnavailable,
    UnknownVersion,
)
from core.home import PROJECT, Home
from registry import glimpse, models
from registry.bundle import load_bundle
from registry.connection import backend_uri, connect
from registry.gate import judge
from registry.tracking import run_address, start_run
from registry.verdict import GateReport


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = home_with_mlflow(tmp_path_factory.mktemp("home"))
    for number, kind in enumerate(("flat", "buy_and_hold"), start=1):
        save_baseline(home.root / "made" / kind, kind)
        made = models.register(home, "demo", home.root / "made" / kind, tags={"kind": "baseline"})
        assert made.number == number
    models.set_alias(home, "demo", "Production", 2)
    return home


def test_a_bundle_becomes_a_version_with_its_lineage(shared: Home) -> None:
    first = models.version(shared, "demo", 1)
    assert first.bundle_sha256 == load_bundle(shared.root / "made" / "flat").sha256
    assert first.tags["algorithm"] == "flat"
    assert first.tags["dataset_sha256"] == "d" * 64
    assert first.tags["git_commit"] == "c" * 40
    assert first.tags["kind"] == "baseline"
    assert [item.number for item in models.versions(shared, "demo")] == [1, 2]
    assert models.versions(shared, "nobody") == []


def test_nothing_of_a_version_is_pickled(shared: Home) -> None:
    stored = [path for path in shared.mlflow.rglob("*") if path.is_file()]
    assert {path.suffix for path in stored} == {".db", ".onnx", ".json"}


def test_the_gates_verdict_goes_with_the_version(shared: Home, tmp_path: Path) -> None:
    report = judge(strong(), QUICK)
    save_baseline(tmp_path / "judged", "random", seed=2)
    with start_run(shared, "demo", "candidate") as run:
        made = models.register(shared, "demo", tmp_path / "judged", report, run=run)
    assert made.run_id == run.run_id
    tags = models.version(shared, "demo", made.number).tags
    assert tags["gate_verdict"] == "promote"
    assert tags["gate_report_sha256"] == report.sha256
    path = connect(shared).download_artifacts(run.run_id, "gate.json", str(tmp_path))
    assert GateReport.from_json(json.loads(Path(path).read_text())) == report


def test_an_alias_names_one_version(shared: Home) -> None:
    assert models.with_alias(shared, "demo", "Production").number == 2
    assert models.aliases(shared, "demo") == {"Production": 2}
    assert models.alias(shared, "demo", "Challenger") is None
    models.set_alias(shared, "demo", "Challenger", 1)
    assert models.aliases(shared, "demo") == {"Production": 2, "Challenger": 1}
    models.set_alias(shared, "demo", "Challenger", None)
    models.set_alias(shared, "demo", "Challenger", None)
    assert models.alias(shared, "demo", "Challenger") is None
    assert models.alias(shared, "nobody", "Production") is None


def test_a_glimpse_sees_the_same_aliases_without_mlflow(shared: Home) -> None:
    models.set_alias(shared, "demo", "Challenger", 1)
    script = (
        "import sys; from pathlib import Path; import flows.overview; from core.home import Home\n"
        "from registry import glimpse; home = Home(Path(sys.argv[1]))\n"
        "print([glimpse.aliases(home, name) for name in ('demo', 'nobody')])\n"
        "heavy = ('mlflow', 'sqlalchemy', 'onnxruntime', 'torch', 'ray', 'prefect')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(shared.root)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    seen, heavy = told.stdout.splitlines()
    assert seen == str([models.aliases(shared, "demo"), {}])
    assert seen == "[{'Production': 2, 'Challenger': 1}, {}]"
    assert heavy == "[]"
    models.set_alias(shared, "demo", "Challenger", None)


def test_a_file_a_glimpse_cannot_read_is_named_by_mlflow(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert glimpse.aliases(home, "demo") == {}
    assert not home.mlflow.exists()  # a look makes no database
    home.mlflow.mkdir()
    (home.mlflow / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ServiceUnavailable, match=r"mlflow\.db does not answer .*not a database"):
        glimpse.aliases(home, "demo")


def test_what_is_not_there_is_said_so(shared: Home) -> None:
    with pytest.raises(UnknownVersion, match="demo: no version 99"):
        models.version(shared, "demo", 99)
    with pytest.raises(UnknownVersion, match="demo: no version 99"):
        models.set_alias(shared, "demo", "Production", 99)
    with pytest.raises(UnknownVersion, match="demo: no version is Previous"):
        models.with_alias(shared, "demo", "Previous")
    with pytest.raises(UnknownVersion, match="nobody: no version is Production"):
        models.with_alias(shared, "nobody", "Production")


def test_a_bundle_of_another_agent_or_a_broken_one_is_not_registered(
    shared: Home, tmp_path: Path
) -> None:
    save_baseline(tmp_path / "b")
    with pytest.raises(BadBundle, match="is a bundle of 'demo', expected 'aapl'"):
        models.register(shared, "aapl", tmp_path / "b")
    (tmp_path / "b" / "policy.onnx").write_bytes(b"")
    before = models.versions(shared, "demo")
    with pytest.raises(BadBundle, match="altered"):
        models.register(shared, "demo", tmp_path / "b")
    assert models.versions(shared, "demo") == before


def test_a_copy_is_fetched_once_and_verified_always(shared: Home) -> None:
    copy = models.production(shared, "demo")
    assert load_bundle(copy.folder, copy.bundle_sha256).card.algorithm == "buy_and_hold"
    untouched = (copy.folder / "card.json").stat().st_mtime_ns
    assert models.production(shared, "demo") == copy
    assert (copy.folder / "card.json").stat().st_mtime_ns == untouched
    assert models.cached_production(shared, "demo") == copy
    (copy.folder / "card.json").write_text("{}")
    with pytest.raises(BadBundle, match="altered"):
        models.cached_production(shared, "demo")
    assert models.production(shared, "demo") == copy  # fetched anew
    assert models.cached_production(shared, "demo") == copy


def test_a_version_altered_inside_mlflow_is_not_delivered(tmp_path: Path) -> None:
    home = home_with_mlflow(tmp_path)
    save_baseline(tmp_path / "one", "flat")
    made = models.register(home, "demo", tmp_path / "one")
    stored = next((home.mlflow / "artifacts").rglob("bundle"))
    save_baseline(tmp_path / "two", "random")
    for file in (tmp_path / "two").iterdir():
        (stored / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BadBundle, match=r"delivered bundle .* do not trade it"):
        models.fetch(home, made)
    assert not [path for path in home.bundles.iterdir() if not path.name.startswith(".")]


def test_without_any_copy_there_is_nothing_to_live_on(tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="demo: no copy of a Production bundle"):
        models.cached_production(Home(tmp_path), "demo")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "demo.production.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"demo\.production\.json: unreadable"):
        models.cached_production(Home(tmp_path), "demo")


def test_runs_keep_params_curves_and_their_parents(shared: Home, tmp_path: Path) -> None:
    (tmp_path / "plot.html").write_text("<p>")
    params = {"ppo": {"clip": 0.2, "hidden": (64, 64)}, "seed": 3, "empty": {}}
    with start_run(shared, "demo", "study", {"dataset_sha256": "d1"}) as parent:
        parent.log_params(params | {f"p{i}": i for i in range(120)})
        with parent.child("trial 1", {"trial": "1"}) as trial:
            trial.log_curves({"reward": [0.5 * i for i in range(1_200)], "loss": [1.0] * 1_200})
            trial.log_metrics({"sharpe": 1.5})
            trial.log_file(tmp_path / "plot.html", "plots")
    client = connect(shared)
    stored = client.get_run(parent.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["ppo.clip"] == "0.2"
    assert len(stored.data.params) == 124
    assert stored.data.tags["dataset_sha256"] == "d1"
    child = client.get_run(trial.run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent.run_id
    assert child.data.metrics == {"reward": 599.5, "loss": 1.0, "sharpe": 1.5}
    curve = client.get_metric_history(trial.run_id, "reward")
    assert [(point.step, point.value) for point in curve[:3]] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [item.path for item in client.list_artifacts(trial.run_id)] == ["plots"]


def test_a_run_that_breaks_is_marked_failed(shared: Home) -> None:
    with pytest.raises(ZeroDivisionError), start_run(shared, "demo", "broken") as run:
        _ = 1 / 0
    assert connect(shared).get_run(run.run_id).info.status == "FAILED"


def test_neither_parameters_nor_tags_keep_a_secret(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray-0123456789")
    remote = "https://me:pw1@git.example/ratchet"
    with start_run(shared, "demo", "masked", {"remote": remote}) as run:
        run.log_params({"ray": {"key": "ray-0123456789"}})
        run.set_tags({"reason": f"see {remote}"})
    kept = connect(shared).get_run(run.run_id).data
    assert kept.params == {"ray.key": "****"}
    assert kept.tags["remote"] == "https://me:****@git.example/ratchet"
    assert kept.tags["reason"] == "see https://me:****@git.example/ratchet"
    models.set_tag(shared, "demo", 1, "note", remote)
    assert models.version(shared, "demo", 1).tags["note"] == kept.tags["remote"]


def test_a_run_has_an_address() -> None:
    assert run_address("http://127.0.0.1:5000/", "r1") == "http://127.0.0.1:5000/#/runs/r1"
    assert run_address("https://me:pw1@models.example", "r1") == "https://models.example/#/runs/r1"


def test_the_first_use_makes_the_database_quietly_and_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / "home")
    with start_run(home, "demo", "first"):
        pass
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert sorted(path.name for path in home.mlflow.iterdir())[-1] == "mlflow.db"


def test_a_damaged_database_is_one_clear_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make(home.mlflow)
    (home.mlflow / "mlflow.db").write_text("this is no database at all, just some text" * 100)
    with pytest.raises(ServiceUnavailable, match=r"sqlite:///.*mlflow\.db.*check the file"):
        models.aliases(home, "demo")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_silent_address_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    uri = f"{scheme}://me:secret@127.0.0.1:1/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(
        ServiceUnavailable, match=r"me:\*\*\*\*@127.0.0.1:1.*MLFLOW_TRACKING_URI"
    ) as at:
        models.aliases(Home(tmp_path), "demo")
    assert "secret" not in str(at.value)


def test_an_address_of_an_unknown_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://somewhere")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI=ftp://somewhere: expected http"):
        backend_uri(Home(tmp_path))


def test_a_version_without_a_bundle_is_not_ours(shared: Home) -> None:
    client = connect(shared)
    with start_run(shared, "strange", "by hand") as run:
        pass
    client.create_registered_model("strange")
    client.create_model_version("strange", run.artifact_uri, run.run_id, await_creation_for=0)
    with pytest.raises(UnknownVersion, match="strange: version 1 holds no bundle"):
        models.version(shared, "strange", 1)
    with pytest.raises(RegistryError):
        models.versions(shared, "strange")


def test_the_database_is_sound_sqlite(shared: Home) -> None:
    with closing(sqlite3.connect(shared.mlflow / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
