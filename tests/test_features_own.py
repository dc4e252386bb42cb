"""A user's own code: its version is the hash of every module of theirs that it needs."""

import hashlib
import sys
from pathlib import Path

import pytest

from core.errors import ConfigError
from features.own import own_sha256

FEATURE = """
import json, numpy.linalg
import features.adjust
from . import near
from .below.far import reach
from mine_beside import tool

def column(prices):
    import mine_later
    return prices.close
"""
FILES = {
    "mine/__init__.py": "",
    "mine/feature.py": FEATURE,
    "mine/near.py": "from .below import far",
    "mine/below/__init__.py": "from . import inner",
    "mine/below/far.py": "reach = 1",
    "mine/below/inner.py": "",
    "mine/unneeded.py": "",
    "mine_beside.py": "tool = 1",
    "mine_later.py": "",
    "mine_alone.py": "def column(prices):\n    return prices.close\n",
}
NAME = "mine.feature:column"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for known in [name for name in sys.modules if name.partition(".")[0].startswith("mine")]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_that_needs_no_other_is_its_own_hash(code: Path) -> None:
    expected = hashlib.sha256((code / "mine_alone.py").read_bytes()).hexdigest()
    assert own_sha256("mine_alone:column") == expected


@pytest.mark.parametrize("changed", [name for name in FILES if name != "mine_alone.py"])
def test_the_code_of_a_helper_is_part_of_the_version_and_no_other(code: Path, changed: str) -> None:
    before = own_sha256(NAME)
    assert own_sha256(NAME) == before
    (code / changed).write_text(FILES[changed] + "\n# another\n")
    needed = changed != "mine/unneeded.py"
    assert (own_sha256(NAME) != before) == needed


def test_a_helper_that_is_no_python_is_named(code: Path) -> None:
    (code / "mine_later.py").write_text("def")
    with pytest.raises(ConfigError, match=r"mine\.feature:column.*cannot be read"):
        own_sha256(NAME)
