"""Bad input through the command line: one clear error, a non-zero exit, nothing lost.

Every row of the tables names what is broken, the command a user would type, the exit code and
words that the message must hold: what was found, where, and what to do.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flows_kit import free_port_address
from registry_kit import home_with_mlflow

from core.calendar import sessions
from core.home import PROJECT, Home
from flows import cli

NOW = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
PARAMS = """
agents:
  acme: { symbol: ACME, source: csv }
features: { indicators: [return_1, macd, rsi_14], include_vix: false }
split: { paper_bars: 40 }
validation: {}
"""


def good_bars() -> pd.DataFrame:
    """Return 900 sessions of a made-up share as a person would have them in a file."""
    days = sessions("XNYS", datetime(2015, 1, 1), datetime(2019, 12, 31))[:900]
    rng = np.random.default_rng(4)
    close = np.round(40.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(days)))), 2)
    opened = np.round(close * np.exp(rng.normal(0.0, 0.003, len(days))), 2)
    return pd.DataFrame(
        {
            "Date": days.strftime("%Y-%m-%d"),
            "Open": opened,
            "High": np.maximum(opened, close) + 0.25,
            "Low": np.minimum(opened, close) - 0.25,
            "Close": close,
            "Volume": 1_000_000,
        }
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home with one agent: bars ingested, datasets made, a baseline in Production."""
    from core.settings import load_params
    from pipelines import featurize, ingest, retrain, snapshot, validate
    from pipelines.dataset import load_dataset

    home = home_with_mlflow(tmp_path_factory.mktemp("prepared"))
    home.make(home.workspace)
    home.params_file.write_text(PARAMS)
    params = load_params(home.params_file)
    file = home.root / "ACME.csv"
    good_bars().to_csv(file, index=False)
    ingest.run(home, params, "ACME", "csv", "1d", file, now=NOW)
    for stage in (snapshot, validate, featurize):
        stage.run(home, params, "ACME")
    retrain._install(home, params, "acme", load_dataset(home, params, "acme"), NOW)
    return home


@pytest.fixture
def world(prepared: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a copy of the prepared home, to be broken."""
    home = Home(tmp_path / "home")
    shutil.copytree(prepared.root, home.root, symlinks=True)
    # MLflow keeps whole addresses of its files: those of the copy lie in the copy.
    old, new = str(prepared.root), str(home.root)
    with contextlib.closing(sqlite3.connect(home.mlflow / "mlflow.db")) as database, database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
    monkeypatch.setenv("RATCHET_HOME", str(home.root))
    return home


def kept(home: Home) -> dict[str, str]:
    """Return the hash of everything that must survive: bars, datasets, models, promotions."""
    roots = [home.store, home.workspace / "manifests", home.mlflow / "artifacts"]
    roots += [home.data / name for name in ("snapshot", "validated", "features")]
    files = [path for root in roots for path in root.rglob("*")] + [home.promotions]
    return {
        str(path.relative_to(home.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not path.name.endswith(".lock")
    }


def refused(
    capsys: pytest.CaptureFixture[str], home: Home, command: list[str], code: int, words: list[str]
) -> None:
    """Run ``command``; it must end with one error line that holds ``words``, and lose nothing."""
    before = kept(home)
    capsys.readouterr()
    assert cli.main(command) == code
    told = capsys.readouterr().err
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, told
    assert "Traceback" not in told
    for word in words:
        assert word in errors[0]
    assert before.items() <= kept(home).items()
    assert not list(home.root.rglob("*.partial"))


Change = Callable[[pd.DataFrame], pd.DataFrame]


def at(row: int, column: str, value: object) -> Change:
    """Return a change of one cell."""

    def change(bars: pd.DataFrame) -> pd.DataFrame:
        changed = bars.astype(object)
        changed.loc[row, column] = value
        return changed

    return change


BAD_BARS: dict[str, tuple[Change, list[str]]] = {
    "a missing column": (
        lambda bars: bars.drop(columns="Volume"), ["line 1", "no column `Volume`"]
    ),
    "a renamed column": (
        lambda bars: bars.rename(columns={"Close": "Closing"}),
        ["no column `Close`", "rename `Closing`"],
    ),
    "a date given twice": (at(10, "Date", "2015-01-15"), ["line 12", "2015-01-15", "twice"]),
    "dates out of order": (
        lambda bars: bars.iloc[::-1], ["line 3", "earlier than the line before"]
    ),
    "a cell that is no number": (at(5, "Open", "NaN"), ["line 7", "column Open", "NaN"]),
    "a zero price": (at(5, "Low", 0), ["line 7", "column Low", "above zero"]),
    "a negative price": (at(5, "Close", -3.5), ["line 7", "column Close", "-3.5"]),
    "high below low": (at(5, "High", 1.0), ["line 7", "column High", "below the low"]),
    "a date in the future": (at(899, "Date", "2199-01-02"), ["2199-01-02", "later than now"]),
    "gaps of five percent": (
        lambda bars: bars.drop(index=bars.index[300:345]), ["missing", "last good dataset stays"]
    ),
    "an empty file": (lambda bars: bars.iloc[:0], ["a header and no bars"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BARS)
def test_bad_bars_are_refused_whole(
    name: str, world: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = BAD_BARS[name]
    file = tmp_path / "bad.csv"
    change(good_bars()).to_csv(file, index=False)
    command = ["ingest", "ACME", "--source", "csv", "--path", str(file)]
    refused(capsys, world, command, 3, words)


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which the world is broken, and what the user is told."""

    command: str
    code: int
    words: tuple[str, ...]
    breaks: Callable[[Home], None] = lambda home: None
    environment: tuple[tuple[str, str], ...] = ()


def write(name: str, content: bytes | str) -> Callable[[Home], None]:
    """Return a break: a file of the home gets other content."""

    def breaks(home: Home) -> None:
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return breaks


def flip_a_byte(pattern: str) -> Callable[[Home], None]:
    """Return a break: one byte of every file that matches is another."""

    def breaks(home: Home) -> None:
        paths = list(home.root.glob(pattern))
        assert paths, pattern
        for path in paths:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)

    return breaks


def other_features(home: Home) -> None:
    """Make a bundle Production that expects a feature which this code does not build."""
    from registry import models

    folder = models.production(home, "acme").folder
    text = (folder / "features.json").read_text()
    _replace_bundle(home, folder, {"features.json": text.replace("rsi_14", "rsi_99")})


def _replace_bundle(home: Home, folder: Path, changed: dict[str, str]) -> None:
    """Register a bundle with other files, consistent in itself, and make it Production."""
    from registry import models, promotion

    draft = home.root / "draft"
    shutil.copytree(folder, draft)
    for name, text in changed.items():
        (draft / name).write_text(text)
    manifest = json.loads((draft / "manifest.json").read_text())
    _rehash(draft, manifest)
    version = models.register(home, "acme", draft)
    promotion.promote(home, "acme", version.number, NOW, by="A. Tester", reason="to break it")
    shutil.rmtree(draft)


def _rehash(folder: Path, manifest: dict[str, object]) -> None:
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}))


NOWHERE = free_port_address()
CASES: dict[str, Case] = {
    "a file in another encoding": Case(
        "ingest ACME --source csv --path {home}/latin.csv", 3,
        ("latin.csv", "line 1 is not UTF-8", "0xe9"),
        write("latin.csv", "Date,Ouvert\xe9\n".encode("latin-1")),
    ),
    "a file that is empty": Case(
        "ingest ACME --source csv --path {home}/empty.csv", 3, ("empty.csv", "is empty"),
        write("empty.csv", b""),
    ),
    "a file that is not there": Case(
        "ingest ACME --source csv --path {home}/none.csv", 3, ("none.csv", "no such file")
    ),
    "a source without its file": Case(
        "ingest ACME --source csv", 2, ("source csv needs a file", "--path")
    ),
    "an unknown symbol": Case("ingest NOSUCH", 3, ("NOSUCH", "AAPL")),
    "an unknown agent": Case(
        "retrain acm", 2, ("no agent 'acm'", "did you mean 'acme'", "params.yaml")
    ),
    "an unknown size": Case("retrain acme --size huge", 2, ("no size 'huge'", "default")),
    "an unknown key": Case(
        "status", 2, ("params.yaml", "unknown key `risk.max_wieght`", "max_weight"),
        write("workspace/params.yaml", PARAMS + "risk: { max_wieght: 1.0 }\n"),
    ),
    "a value of the wrong type": Case(
        "status", 2, ("params.yaml", "`split.paper_bars`", "'forty'"),
        write("workspace/params.yaml", PARAMS.replace("40", "forty")),
    ),
    "params.yaml that is no YAML": Case(
        "status", 2, ("params.yaml", "not valid YAML"),
        write("workspace/params.yaml", "agents: [\n"),
    ),
    "MLflow that does not answer": Case(
        "promote acme 1", 7, ("MLflow", NOWHERE),
        environment=(("MLFLOW_TRACKING_URI", NOWHERE),),
    ),
    "Prefect that does not answer": Case(
        "retrain acme", 7, ("Prefect does not answer", f"{NOWHERE}/api", "ratchet up"),
        environment=(("PREFECT_API_URL", f"{NOWHERE}/api"),),
    ),
    "a database server that does not answer": Case(
        "promote acme 1", 7, (NOWHERE.removeprefix("http://"),),
        environment=(
            ("MLFLOW_TRACKING_URI", NOWHERE.replace("http", "postgresql") + "/mlflow"),
        ),
    ),
    "a ledger that is no database": Case(
        "ledger decisions", 4, ("ledger.db",), write("ledger.db", b"not a database" * 100)
    ),
    "a promotion ledger that is no database": Case(
        "whatwas acme --at 2026-03-03", 4, ("promotions.db",),
        write("promotions.db", b"not a database" * 100),
    ),
    "bars in the store that do not read": Case(
        "ingest ACME --source csv --path {home}/ACME.csv", 4,
        ("store/csv/ACME/1d/", "restore it"), flip_a_byte("store/csv/ACME/1d/*.parquet"),
    ),
    "validated bars that do not read": Case(
        "serve", 4, ("validated/ACME.parquet", "does not read as Parquet"),
        write("workspace/data/validated/ACME.parquet", b"PAR1 no more"),
    ),
    "validated bars of which a byte is another": Case(
        "backtest acme",
        4,
        ("validated/ACME.parquet", "does not read as Parquet"),
        flip_a_byte("workspace/data/validated/ACME.parquet"),
    ),
    "a bundle that was altered": Case(
        "serve",
        6,
        ("acme version 1", "policy.onnx", "altered", "restore"),
        flip_a_byte("**/policy.onnx"),
    ),
    "a bundle that expects other features": Case("serve", 6, ("rsi_99",), other_features),
    "a version that does not exist": Case("promote acme 99", 6, ("acme", "99")),
    "a version that is no number": Case("promote acme newest", 2, ("VERSION", "'newest'")),
    "a promotion nobody judged": Case("promote acme 1", 6, ("version 1 is Production already",)),
    "a rollback from the first version": Case("rollback acme", 6, ("no earlier Production",)),
    "a time that is no time": Case("whatwas acme --at yesterday", 2, ("--at", "'yesterday'")),
    "a time before the first version": Case(
        "whatwas acme --at 1999-01-01", 6, ("no Production at 1999-01-01",)
    ),
    "trading with real money": Case(
        "serve", 8, ("TRADING_MODE=live", "paper"), environment=(("TRADING_MODE", "live"),)
    ),
    "a port that is no port": Case(
        "up", 2, ("RATCHET_PREFECT_PORT", "'http'"),
        environment=(("RATCHET_PREFECT_PORT", "http"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_broken_is_named_with_its_remedy(
    name: str, world: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    case.breaks(world)
    for variable, value in case.environment:
        monkeypatch.setenv(variable, value)
    command = case.command.format(home=world.root).split()
    refused(capsys, world, command, case.code, list(case.words))


def test_a_full_disk_loses_nothing(
    world: Home,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = pd.concat([good_bars(), good_bars().tail(1).assign(Date="2018-08-01")])
    more.to_csv(tmp_path / "more.csv", index=False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    command = ["ingest", "ACME", "--source", "csv", "--path", str(tmp_path / "more.csv")]
    refused(capsys, world, command, 4, ["no space left", "Free some and repeat"])


def test_the_real_parameters_are_good() -> None:
    from core.settings import load_params

    assert load_params(PROJECT / "params.yaml").agents
