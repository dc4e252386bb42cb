"""The architecture as docs/architecture.md draws it: who may import whom, and what."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from core.home import PROJECT

PACKAGES = ("core", "sources", "features", "registry", "training", "serving", "pipelines", "flows")
HOMES = {  # heavy library: the packages that may import it
    "numba": {"core"},
    "ray": {"training"},
    "optuna": {"training"},
    "plotly": {"training"},
    "torch": {"training"},
    "mlflow": {"registry"},
    "great_expectations": {"pipelines"},
    "evidently": {"pipelines"},
    "prefect": {"flows"},
    "yfinance": {"sources"},
    "talib": {"features"},
    "onnx": {"registry", "training"},
    "onnxruntime": {"registry"},
    "ib_async": {"sources", "serving"},
    "ccxt": {"sources", "serving"},
    "fastapi": {"serving"},
    "zmq": {"serving"},
    "apprise": {"serving"},
    "prometheus_client": {"serving"},
}


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the top-level names a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return frozenset(name.partition(".")[0] for name in names)


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def test_imports_go_left_only() -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "1 kept, 0 broken" in found.stdout


@pytest.mark.parametrize("library", HOMES)
def test_every_heavy_library_has_one_home(library: str) -> None:
    guests = {
        str(path.relative_to(PROJECT))
        for path in sources()
        if library in imported(path) and path.relative_to(PROJECT).parts[0] not in HOMES[library]
    }
    assert not guests, f"{library} belongs to {sorted(HOMES[library])}"


def test_the_core_needs_neither_network_nor_a_learning_library() -> None:
    allowed = {
        "array_api_compat",
        "core",
        "exchange_calendars",
        "llvmlite",  # numba's own back end
        "numba",
        "numpy",
        "pandas",
        "pydantic",
        "yaml",
    }
    for path in sorted((PROJECT / "core").rglob("*.py")):
        foreign = imported(path) - allowed - set(sys.stdlib_module_names)
        assert not foreign, f"{path.name} imports {sorted(foreign)}"
        assert not imported(path) & {"http", "socket", "ssl", "urllib"}, path.name


def test_importing_a_package_does_nothing(tmp_path: Path) -> None:
    """No files made, no heavy library loaded by the packages that serving starts with."""
    program = (
        "import sys, core.engine, core.metrics, core.settings, core.trades\n"
        "heavy = {'numba', 'ray', 'torch', 'mlflow', 'prefect', 'optuna', 'plotly', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "RATCHET_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.strip() == "[]"
    assert not (tmp_path / "home").exists()
