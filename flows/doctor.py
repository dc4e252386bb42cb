"""``ratchet doctor``: what is installed, configured and reachable, and what to do where not.

Owns the questions. Changes nothing but for a file it writes into the home and removes again.
"""

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from core.errors import RatchetError
from core.home import PROJECT, Home
from core.masking import confidential, masked
from core.settings import Params, load_params
from flows import servers
from sources.catalogue import ingest_command
from sources.manifest import dataset_name

PACKAGES = (
    "prefect", "mlflow", "dvc", "ray", "torch", "optuna", "gymnasium", "onnxruntime", "ta-lib",
    "great-expectations", "evidently", "pandas", "numpy", "yfinance",
)  # fmt: skip
LEAST_FREE_GB = 2.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

Grade = Literal["ok", "note", "bad"]
MARKS: dict[Grade, str] = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question."""

    what: str
    grade: Grade  # note: works without it; bad: does not work
    found: str
    remedy: str = ""  # what to do; empty where nothing is to be done


def run(home: Home, console: Console) -> int:
    """Print every finding; return 1 if something essential is missing."""
    found = examine(home)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for finding in found:
        todo = f"{finding.found}\n→ {finding.remedy}" if finding.remedy else finding.found
        table.add_row(MARKS[finding.grade], finding.what, todo)
    console.print(table)
    bad = [finding.what for finding in found if finding.grade == "bad"]
    console.print(f"\n{len(bad)} to put right: {', '.join(bad)}" if bad else "\nall well")
    return 1 if bad else 0


def examine(home: Home) -> list[Finding]:
    """Return the findings of every check; a check that breaks is a finding itself."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _programs,
        lambda: _home(home),
        lambda: _databases(home),
        lambda: _services(home),
        _gateway,
        lambda: _alerts(home),
        lambda: _agents(home),
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except RatchetError as error:
            found.append(Finding(type(error).__name__, "bad", str(error)))
    secrets = confidential(os.environ)
    return [replace(one, found=masked(one.found, secrets)) for one in found]


def _python() -> list[Finding]:
    version = platform.python_version()
    right = sys.version_info[:2] == (3, 11)
    remedy = "" if right else "make PYTHON=/path/to/python3.11"
    return [Finding("Python", "ok" if right else "bad", f"{version} at {sys.executable}", remedy)]


def _packages() -> list[Finding]:
    versions, missing = [], []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    found = [Finding("packages", "ok", ", ".join(versions))]
    if missing:
        found.append(Finding("packages", "bad", f"missing: {', '.join(missing)}", "make install"))
    return found


def _programs() -> list[Finding]:
    git = shutil.which("git")
    gpu = shutil.which("nvidia-smi")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return [
        Finding("git", "ok", git)
        if git
        else Finding("git", "bad", "not found", "install git: a run records its commit"),
        Finding("GPU", "ok", "an NVIDIA driver")
        if gpu
        else Finding("GPU", "note", "none: training runs on the CPU"),
        Finding("Chromium", "ok", browser)
        if browser
        else Finding("Chromium", "note", "not found", "only the browser test needs it"),
    ]


def _home(home: Home) -> list[Finding]:
    named = "RATCHET_HOME" if os.environ.get("RATCHET_HOME") else "the default"
    probe = home.root / f".doctor-{os.getpid()}"
    try:
        home.make(home.root)
        probe.write_text("can be written", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        remedy = "make it writable, or name another folder in RATCHET_HOME"
        return [Finding("home", "bad", f"{home.root}: {error}", remedy)]
    free_gb = shutil.disk_usage(home.root).free / 1e9
    return [
        Finding("home", "ok", f"{home.root} ({named})"),
        Finding("disk", "ok", f"{free_gb:.0f} GB free")
        if free_gb >= LEAST_FREE_GB
        else Finding("disk", "bad", f"{free_gb:.1f} GB free", f"free {LEAST_FREE_GB:.0f} GB"),
    ]


def _databases(home: Home) -> list[Finding]:
    named = {
        "ledger": (home.ledger, "ratchet serve"),
        "promotions": (home.promotions, "ratchet retrain AGENT"),
        "studies": (home.studies, "ratchet retrain AGENT"),
        "Prefect's database": (home.prefect / "prefect.db", "ratchet up"),
        "MLflow's database": (home.mlflow / "mlflow.db", "ratchet retrain AGENT"),
    }
    return [_database(what, path, maker) for what, (path, maker) in named.items()]


def _database(what: str, path: Path, maker: str) -> Finding:
    if not path.exists():
        return Finding(what, "note", "not there yet", f"`{maker}` makes it")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        answer = str(error)
    if answer == "ok":
        return Finding(what, "ok", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB")
    return Finding(what, "bad", f"{path}: {answer}", "restore it from a copy, or move it away")


def _services(home: Home) -> list[Finding]:
    found = []
    named = os.environ.get("PREFECT_API_URL")
    notes = servers.noted(home)
    if named:
        api = servers.running_prefect(home)  # raises, with the remedy, when it does not answer
        found.append(Finding("Prefect", "ok", f"{api} (PREFECT_API_URL)"))
    for name, title in (("prefect", "Prefect"), ("mlflow", "MLflow"), ("worker", "worker")):
        note = notes.get(name)
        if note is None:
            if not (named and name == "prefect"):
                found.append(Finding(title, "note", "not running", "`ratchet up` starts it"))
        elif servers.answers(note.health):
            found.append(Finding(title, "ok", note.url or f"pid {note.pid}"))
        else:
            log = home.logs / f"{name}.log"
            found.append(Finding(title, "bad", f"{note.url} does not answer", f"see {log}"))
    return found


def _gateway() -> list[Finding]:
    from serving.brokers.ibkr.access import Access
    from serving.brokers.ibkr.probe import probe

    what, access = "TWS or IB Gateway", Access.from_environment(os.environ)
    try:
        return [Finding(what, "ok", probe(access))]
    except ConnectionRefusedError:
        found = f"nothing listens at {access.host}:{access.port}"
        remedy = "only trading at IBKR and its bars need it: start it, or set IB_HOST and IB_PORT"
        return [Finding(what, "note", found, remedy)]
    except (RatchetError, OSError) as error:
        return [Finding(what, "bad", str(error))]


def _alerts(home: Home) -> list[Finding]:
    from serving.channels import URLS, Channels

    channels = Channels.of(home)  # raises, with the remedy, where an address is wrong
    if channels is None:
        remedy = f"set {URLS}, then `ratchet alerts test`"
        return [Finding("alerts", "note", "go nowhere but into the log", remedy)]
    return [Finding("alerts", "ok", f"to {', '.join(channels.names)}")]


def _agents(home: Home) -> list[Finding]:
    file = home.params_file if home.params_file.exists() else PROJECT / "params.yaml"
    params = load_params(file)
    found = [Finding("params.yaml", "ok", f"{file}: {len(params.agents)} agents")]
    for name in params.agents:
        found.append(_dataset(home, params, name))
        found.append(_production(home, name))
    return found


def _dataset(home: Home, params: Params, name: str) -> Finding:
    agent, folder = params.agent(name), home.data / "features"
    missing = [
        symbol
        for symbol in dict.fromkeys((agent.symbol, agent.signal_symbol))
        if not (folder / f"{dataset_name(symbol, agent.interval)}.parquet").exists()
    ]
    if missing:
        remedy = ingest_command(missing[0], agent.source, agent.interval).strip("`")
        return Finding(f"dataset of {name}", "note", f"none of {', '.join(missing)}", remedy)
    from pipelines.featurize import told_of

    told = told_of(home, dataset_name(agent.signal_symbol, agent.interval))
    return Finding(f"dataset of {name}", "ok", told)


def _production(home: Home, name: str) -> Finding:
    from registry import connection, models

    if not connection.exists(home):
        return Finding(f"Production of {name}", "note", "none yet", f"ratchet retrain {name}")
    version = models.alias(home, name, "Production")
    if version is None:
        return Finding(f"Production of {name}", "note", "none yet", f"ratchet retrain {name}")
    return Finding(f"Production of {name}", "ok", f"version {version}")
