"""Postponing: what nobody uses is not imported, and what is used is the real thing."""

import importlib
import subprocess
import sys

import pytest

from core.home import PROJECT
from pipelines.postponing import Postponed, postponing

UNUSED = "wsgiref.headers"  # of the standard library; nobody here imports it


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, UNUSED, raising=False)


def test_a_postponed_module_is_imported_by_its_first_use() -> None:
    with postponing(UNUSED):
        # Not `import … as`: that prefers what an earlier test left in the parent package.
        early = importlib.import_module(UNUSED)
    assert isinstance(early, Postponed)
    assert UNUSED not in sys.modules
    assert early.Headers([("a", "b")])["a"] == "b"
    assert sys.modules[UNUSED].Headers is early.Headers


def test_whoever_comes_later_gets_the_real_module() -> None:
    with postponing(UNUSED):
        pass
    import wsgiref.headers as late

    assert not isinstance(late, Postponed)


def test_what_is_imported_already_stays() -> None:
    with postponing("json"):
        import json
    assert json.loads("1") == 1
    assert not isinstance(json, Postponed)


def test_the_gate_imports_neither_altair_nor_scipy_stats_and_both_work_when_asked_for() -> None:
    script = """
import sys
from pipelines import checks
library = checks._library()
print([name for name in ("altair", "scipy.stats") if name in sys.modules])
from great_expectations.expectations.core import expect_column_kl_divergence_to_be_less_than as kl
print(round(float(kl.stats.entropy([0.5, 0.5])), 3), "scipy.stats" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n0.693 True\n"
