"""Every kind of event the code writes is one that alerts know, in one spelling."""

import ast
from pathlib import Path

import serving
from serving.alerts import KILLED, KINDS, RELEASED, ROUTINE

# Which argument holds the kind, by how the method that writes it is called; whom it is about may
# come first in EITHER.
FIRST = frozenset({"account", "tell", "notice", "_say", "_note_settings"})
EITHER = frozenset({"agent", "_event", "_note", "_fence", "_gone"})
NAMED = {"KILLED": KILLED, "RELEASED": RELEASED}


def words(node: ast.expr) -> set[str]:
    """Return the texts an argument may be, where it is written down there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value} - {""}
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)
    return {NAMED[node.id]} if isinstance(node, ast.Name) and node.id in NAMED else set()


def kinds_in(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else called
        given = [one.value for one in node.keywords if one.arg == "kind" and name == "RiskEvent"]
        if called in FIRST | EITHER:
            given += node.args[: 1 if called in FIRST else 2]
        if called == "append" and node.args and isinstance(node.args[0], ast.Tuple):
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            if ast.unparse(of or node).endswith("events"):
                given.append(node.args[0].elts[0])
        found |= {word for one in given for word in words(one)}
    return found


def test_every_kind_that_is_written_is_known_to_alerts() -> None:
    folder = Path(serving.__file__).parent
    written = {kind for path in folder.rglob("*.py") for kind in kinds_in(path.read_text())}
    assert written - KINDS.keys() - ROUTINE - {"risk state"} == set()
    seen = {KILLED, RELEASED, "stopped", "link down", "foreign order", "agent hangs", "settings"}
    assert seen | {"gateway hangs", "feed back", "order waits", "watchdog gave up"} <= written


def test_a_kind_that_is_not_listed_is_found() -> None:
    assert kinds_in("self._event(agent, 'made up', detail)") == {"made up"}
    assert kinds_in("self._events.append(('a' if x else 'b', detail))") == {"a", "b"}
