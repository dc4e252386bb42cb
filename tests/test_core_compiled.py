"""Machine code: kept between processes, never stale, and not needed to be kept at all."""

import importlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from core_kit import every_rule, flat, random_market

from core import engine
from core.accounts import open_accounts
from core.arrays import ELEMENTWISE
from core.compiled import Compiled, cache_folder
from core.engine import PackedMarket, settle, submit
from core.home import PROJECT

LOOP = """
from core.compiled import compiled
from doubling_rule import rule

@compiled
def double(numbers, doubled):
    for i in range(len(numbers)):
        doubled[i] = rule(numbers[i])
"""
RULE = """
from core.arrays import elementwise

@elementwise
def rule(number):
    return {factor} * number
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a loop in one file and its rule in another; what they register goes again."""
    folder = tmp_path / "doubling"
    folder.mkdir()
    (folder / "doubling_loop.py").write_text(LOOP)
    (folder / "doubling_rule.py").write_text(RULE.format(factor=2.0))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would outlive a change of a second
    registered = len(ELEMENTWISE)
    yield folder
    del ELEMENTWISE[registered:]


def loaded() -> Compiled:
    """Import the loop as a new process would."""
    for name in ("doubling_rule", "doubling_loop"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    found = importlib.import_module("doubling_loop").double
    assert isinstance(found, Compiled)
    return found


def doubled(loop: Compiled) -> list[float]:
    numbers, result = np.array([1.0, 2.0]), np.zeros(2)
    loop(numbers, result)
    return result.tolist()


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_code_is_kept_for_the_next_process(package: Path, cache: Path) -> None:
    assert doubled(loaded()) == [2.0, 4.0]
    kept = {path: path.stat().st_mtime_ns for path in files(cache)}
    assert kept
    again = loaded()
    assert doubled(again) == [2.0, 4.0]
    assert {path: path.stat().st_mtime_ns for path in files(cache)} == kept
    assert again.hits == 1


def test_a_changed_rule_in_another_file_runs_no_stale_code(package: Path, cache: Path) -> None:
    assert doubled(loaded()) == [2.0, 4.0]
    (package / "doubling_rule.py").write_text(RULE.format(factor=3.0))
    assert doubled(loaded()) == [3.0, 6.0]
    (package / "doubling_rule.py").write_text(RULE.format(factor=2.0))
    again = loaded()
    assert doubled(again) == [2.0, 4.0]
    assert again.hits == 1


def test_without_a_folder_to_keep_it_the_code_runs(package: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert doubled(loaded()) == [2.0, 4.0]
    assert cache.is_file()


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_damaged_code_is_compiled_again(
    package: Path, cache: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    doubled(loaded())
    (damaged,) = [path for path in files(cache) if path.suffix == suffix]
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert doubled(loaded()) == [2.0, 4.0]
    assert str(cache) in caplog.text


def made_by_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)


def open_to_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o777)


def open_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.parent.chmod(0o775)


def a_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (made_by_others, "belongs to user"),
        (open_to_all, "can be written by others (mode 0777)"),
        (open_above, "can be written by others (mode 0775)"),
        (a_link, "is a link"),
    ],
)
def test_code_that_others_could_have_written_is_not_run(
    package: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path, pytest.MonkeyPatch], None],
    told: str,
) -> None:
    first = loaded()
    doubled(first)
    change(cache_folder(first.loop), monkeypatch)
    again = loaded()
    assert doubled(again) == [2.0, 4.0]
    assert again.hits == 0
    assert told in caplog.text


def test_code_is_kept_where_only_its_user_may_look(package: Path, cache: Path) -> None:
    before = os.umask(0)  # what numba writes, others may change; where it lies, they cannot go
    try:
        first = loaded()
        doubled(first)
        again = loaded()
        doubled(again)
    finally:
        os.umask(before)
    folder = cache_folder(first.loop)
    parts = (folder, folder.parent, folder.parent.parent)
    assert {stat.S_IMODE(part.stat().st_mode) for part in parts} == {0o700}
    assert again.hits == 1


def test_two_processes_that_compile_at_once_both_run(package: Path, cache: Path) -> None:
    program = (
        "import numpy as np, doubling_loop\n"
        "result = np.zeros(2)\n"
        "doubling_loop.double(np.array([1.0, 2.0]), result)\n"
        "print(result.tolist())"
    )
    environment = {"PYTHONPATH": f"{PROJECT}:{package}", "XDG_CACHE_HOME": str(cache)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"[2.0, 4.0]\n"] * 2
    assert files(cache)


def test_a_full_disk_does_not_stop_the_engine(package: Path, cache: Path) -> None:
    program = (
        "import resource, signal, numpy as np, doubling_loop\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "result = np.zeros(2)\n"
        "doubling_loop.double(np.array([1.0, 2.0]), result)\n"
        "print(result.tolist())"
    )
    environment = {
        "PYTHONPATH": f"{PROJECT}:{package}",
        "XDG_CACHE_HOME": str(cache),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "[2.0, 4.0]\n"), ran.stderr
    assert "File too large" in ran.stderr


def test_the_folder_is_that_of_the_sources(package: Path) -> None:
    loop = loaded()
    before = cache_folder(loop.loop)
    (package / "unrelated.py").write_text("x = 1")
    assert cache_folder(loop.loop) != before
    (package / "unrelated.py").unlink()
    assert cache_folder(loop.loop) == before


def test_whatever_holds_the_numbers_one_compilation_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    packed, rules = PackedMarket.of(random_market(np.random.default_rng(1), 30)), every_rule()
    weights = np.array([[0.5], [np.nan], [-0.25]])
    rows = np.array([3, 4, 5])
    kinds, results = set(), set()
    still = np.array([[0.5], [np.nan], [-0.25]])
    still.flags.writeable = False
    for weight in (weights, weights.astype(np.float32), still, np.repeat(weights, 2, 1)[:, ::2]):
        for at in (rows, rows.astype(np.int32), np.repeat(rows, 2)[::2]):
            state = open_accounts(6, 1, 1e4).only(slice(0, 6, 2))
            state = submit(state, weight, packed.at(at), rules).state
            state = settle(state, packed.at(at + 1), rules).state
            kinds.add((engine.submit_each.kinds, engine.settle_each.kinds))
            results.add(state.account.tobytes() + state.position.tobytes())
    assert len(kinds) == 1
    assert len(results) == 1


def test_what_does_not_fit_is_refused_before_it_is_read() -> None:
    state, rules = open_accounts(3, 1, 1e4), every_rule()
    weight = np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"weights of shape \(1, 1\), expected \(3, 1\)"):
        submit(state, np.zeros((1, 1)), flat(10.0), rules)
    packed = PackedMarket.of(random_market(np.random.default_rng(1), 30))
    with pytest.raises(ValueError, match=r"\(2,\) rows, expected .* \(3,\) rows"):
        submit(state, weight, packed.at(np.array([0, 1])), rules)
    with pytest.raises(ValueError, match="bars of 2 symbols"):
        settle(state, flat([10.0, 20.0]), rules)
    with pytest.raises(ValueError, match="rules of 2 accounts and 1 symbols, expected 3 and 1"):
        settle(state, flat(10.0), every_rule(slippage_rate=np.zeros((2, 1))))
