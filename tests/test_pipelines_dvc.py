"""DVC, for real: what runs again, what stays, what comes back from S3, and what a stage depends on.

One story is told once, in a workspace of two small datasets; the tests ask what came of it.
"""

import ast
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from data_kit import NOW, csv_text, market
from moto.server import ThreadedMotoServer

from core.errors import DataError
from core.home import PROJECT, Home
from core.progress import Progress
from core.settings import load_params
from pipelines import featurize, ingest, snapshot, validate, workspace

BARS = market("2023-01-03", "2024-06-28")
PARAMS = """
agents: {}
features: { indicators: [return_1, rsi_14], include_vix: false, anchor_years: 1 }
validation: {}
"""
TOMORROW = """
import numpy as np

def tomorrow(prices):
    return np.append(prices.returns[1:], 0.0)
"""
KEYS = {"aws_access_key_id": "somebody", "aws_secret_access_key": "no secret"}
HONEST = """
import numpy as np

import my.helpers

def half(prices):
    return np.asarray(prices.returns / my.helpers.DIVISOR)
"""
OWN = "data/own.json"  # of all datasets
OUTPUTS = {
    "data/snapshot/{}.parquet",
    "data/validated/{}.parquet",
    "data/quarantine/{}.parquet",
    "data/reports/{}-validation.html",
    "data/features/{}.parquet",
    "data/features/{}.json",
}


# MD5 as DVC computes it, of bundled AAPL under the project's params.yaml. A change of this table
# is a change of what models learn from.
AAPL = {
    "snapshot/AAPL.parquet": "dcd377fbaea6",
    "validated/AAPL.parquet": "dcd377fbaea6",
    "quarantine/AAPL.parquet": "796e6f115145",
    "features/AAPL.parquet": "17241449090f",
}


def stages(name: str) -> set[str]:
    return {f"{stage}@{name}" for stage in ("snapshot", "validate", "featurize")}


def of(name: str, found: dict[str, str]) -> dict[str, str]:
    """Return the outputs of one dataset, each with its hash."""
    mine = {output.format(name) for output in OUTPUTS}
    return {path: value for path, value in found.items() if path in mine}


def locked(home: Home) -> dict[str, str]:
    """Return the hash of every output, as dvc.lock has it."""
    lock = yaml.safe_load((home.workspace / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def lying(home: Home) -> dict[str, str]:
    """Return the hash of every output, as it lies there."""
    files = (path for path in home.data.rglob("*") if path.is_file())
    return {
        str(path.relative_to(home.workspace)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in files
    }


def repro(home: Home, *targets: str) -> set[str]:
    """Make the datasets; return the stages that ran."""
    told: list[Progress] = []
    workspace.reproduce(home, targets, told.append)
    texts = [progress.text for progress in told[:-1]]
    assert told[-1] == Progress("datasets", 1.0, "datasets are up to date")
    return {text.replace(" ", "@") for text in texts if not text.endswith(": unchanged")}


def dvc(home: Home, *arguments: str) -> str:
    """Run DVC in the workspace as a person does."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=home.workspace,
        env=workspace._environment(home) | {key.upper(): value for key, value in KEYS.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def add(home: Home, name: str, bars: Any) -> None:
    file = home.root / f"{name}.csv"
    file.write_text(csv_text(bars))
    ingest.run(home, load_params(home.params_file), name, "csv", "1d", file, now=NOW)


def lose_the_data(home: Home) -> None:
    shutil.rmtree(home.data)
    shutil.rmtree(home.workspace / ".dvc" / "cache")


@dataclass(frozen=True)
class Story:
    """What happened to two datasets: the stages that ran, and the hashes that were left."""

    first: set[str]
    made: dict[str, str]
    second: set[str]
    after_new_bars: set[str]
    renewed: dict[str, str]
    pulled: dict[str, str]
    after_loss: set[str]
    remade: dict[str, str]
    refusal: str
    after_refusal: dict[str, str]
    after_own: list[set[str]]  # plugged in; with other code
    own: list[dict[str, str]]
    leak: str
    after_leak: dict[str, str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    home = Home(tmp_path_factory.mktemp("datasets"))
    home.make(home.workspace / "manifests")
    home.params_file.write_text(PARAMS)
    add(home, "AAA", BARS.iloc[:-1])
    add(home, "BBB", BARS)
    first, made = repro(home), locked(home)
    second = repro(home)
    add(home, "AAA", BARS)
    after_new_bars, renewed = repro(home), locked(home)
    pulled = through_s3(home)
    lose_the_data(home)
    after_loss, remade = repro(home, "featurize@AAA"), lying(home)
    home.params_file.write_text(PARAMS.replace("validation: {}", "validation: { max_jump: 0.001 }"))
    with pytest.raises(DataError) as refused:
        repro(home, "featurize@AAA")
    after_refusal = lying(home)
    code = home.root / "own"
    code.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(code))
        after_own, own = plugged_in(home, code)
        leak = leaked(home, code)
    return Story(
        first, made, second, after_new_bars, renewed, pulled, after_loss, remade,
        str(refused.value), after_refusal, after_own, own, leak, lying(home),
    )  # fmt: skip


def plugged_in(home: Home, code: Path) -> tuple[list[set[str]], list[dict[str, str]]]:
    """Plug in a user's own feature and change its code; return what ran, and what lay there."""
    home.params_file.write_text(PARAMS.replace("rsi_14", '"mine:half"'))
    ran, made = [], []
    (code / "my").mkdir()
    (code / "mine.py").write_text(HONEST)
    for divisor in (2.0, 4.0):
        (code / "my" / "helpers.py").write_text(f"DIVISOR = {divisor}")
        ran.append(repro(home, "featurize@AAA"))
        made.append(lying(home))
    return ran, made


def leaked(home: Home, code: Path) -> str:
    """Plug in a user's own feature that knows tomorrow; return what `dvc repro` says of it."""
    (code / "mine.py").write_text(TOMORROW)
    home.params_file.write_text(PARAMS.replace("rsi_14", '"mine:tomorrow"'))
    with pytest.raises(DataError) as refused:
        repro(home, "featurize@AAA")
    return str(refused.value)


def through_s3(home: Home) -> dict[str, str]:
    """Push to an S3 server, lose everything here, pull; return what lies there then."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        s3 = boto3.client("s3", endpoint_url=address, **KEYS, region_name="us-east-1")
        s3.create_bucket(Bucket="ratchet")
        dvc(home, "remote", "add", "--default", "store", "s3://ratchet/datasets")
        dvc(home, "remote", "modify", "store", "endpointurl", address)
        dvc(home, "push")
        lose_the_data(home)
        dvc(home, "pull")
    finally:
        server.stop()
    return lying(home)


def test_every_stage_runs_once_and_a_second_repro_does_nothing(story: Story) -> None:
    assert story.first == stages("AAA") | stages("BBB")
    assert story.second == set()


def test_new_bars_make_a_new_snapshot_and_only_their_stages_run(story: Story) -> None:
    assert story.after_new_bars == stages("AAA")
    before, after = of("AAA", story.made), of("AAA", story.renewed)
    assert before["data/snapshot/AAA.parquet"] != after["data/snapshot/AAA.parquet"]
    assert before["data/features/AAA.parquet"] != after["data/features/AAA.parquet"]
    assert of("BBB", story.made) == of("BBB", story.renewed)


def test_deleted_datasets_come_back_byte_for_byte(story: Story) -> None:
    assert story.after_loss == stages("AAA")
    assert story.remade == of("AAA", story.renewed) | {OWN: story.renewed[OWN]}
    assert len(story.remade) == len(OUTPUTS) + 1


def test_datasets_come_back_from_s3_byte_for_byte(story: Story) -> None:
    assert story.pulled == story.renewed
    assert len(story.pulled) == 2 * len(OUTPUTS) + 1


def test_a_refused_snapshot_leaves_the_last_good_dataset_in_place(story: Story) -> None:
    assert "AAA: the data gate refuses these bars" in story.refusal
    assert "expected at most 0.001" in story.refusal
    # What was refused is told: rows in quarantine, and a report. All else is as it was.
    told = {"data/quarantine/AAA.parquet", "data/reports/AAA-validation.html"}
    changed = {path for path, value in story.remade.items() if story.after_refusal[path] != value}
    assert changed == told


def test_other_code_of_a_users_own_feature_makes_the_features_anew(story: Story) -> None:
    assert story.after_own[1] == {"featurize@AAA"}
    before, after = story.own
    changed = {path for path, value in before.items() if after[path] != value}
    assert changed == {OWN, "data/features/AAA.parquet", "data/features/AAA.json"}


def test_a_feature_that_knows_the_future_stops_the_datasets_and_is_named(story: Story) -> None:
    assert story.leak.startswith("features of AAA: mine:tomorrow knows the future; ")
    assert "\n" not in story.leak
    made = {path for path in story.after_leak if path.startswith("data/features/AAA")}
    assert made == set()


def test_the_bundled_bars_give_these_very_bytes_everywhere(home: Home) -> None:
    shutil.copytree(PROJECT / "manifests", home.workspace / "manifests")
    params = load_params(PROJECT / "params.yaml")
    for stage in (snapshot, validate, featurize):
        stage.run(home, params, "AAPL")
    made = {Path(path).relative_to("data"): value[:12] for path, value in lying(home).items()}
    assert {path: made[Path(path)] for path in AAPL} == AAPL


# What a stage depends on ------------------------------------------------------------------


def imported(module: str) -> set[str]:
    """Return the files of Ratchet that running a module imports, at once or later, itself too."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        places = [Path(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
        for file in [*places, Path(*parts).with_suffix(".py")]:
            if str(file) not in found and (PROJECT / file).exists():
                found.add(str(file))
                waiting += _names_in((PROJECT / file).read_text())
    return found


def _names_in(code: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def uncovered(stage: dict[str, Any], module: str) -> set[str]:
    """Return the files that a stage imports and does not depend on."""
    deps = [Path(dep) for dep in stage["deps"]]
    return {
        file
        for file in imported(module)
        if not any(dep in (Path(file), *Path(file).parents) for dep in deps)
    }


STAGES = {
    name: stage["do"]
    for name, stage in yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].items()
    if not stage.get("always_changed")  # runs whatever it depends on
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_it_imports(name: str) -> None:
    assert uncovered(STAGES[name], f"pipelines.{name}") == set()


def test_a_dependency_that_is_missing_is_found() -> None:
    deps = [dep for dep in STAGES["validate"]["deps"] if dep != "pipelines/inspection.py"]
    assert uncovered({"deps": deps}, "pipelines.validate") == {"pipelines/inspection.py"}
    deps = [dep for dep in STAGES["featurize"]["deps"] if dep != "features"]
    assert "features/indicators.py" in uncovered({"deps": deps}, "pipelines.featurize")


def test_a_workspace_links_the_code_that_stages_depend_on() -> None:
    code = {Path(dep).parts[0] for stage in STAGES.values() for dep in stage["deps"]}
    assert code - {"data", "manifests", "${vix}"} == set(workspace.CODE)
