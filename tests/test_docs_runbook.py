"""The runbook holds what the code does: its commands, its alerts, the words it says to look for."""

import re
import shlex
from pathlib import Path

import pytest

from core.home import PROJECT
from flows.cli import build_parser
from serving.alerts import KINDS

RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", RUNBOOK)]
COMMANDS = sorted({span for span in SPANS if span.startswith("ratchet ")})
ALERTS = sorted(set(re.findall(r"\balert `([a-z ]+)`", RUNBOOK)))
WORDS = sorted({" ".join(one.split()) for one in re.findall(r'"([^"]+)"', RUNBOOK)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_runbook_is_one(command: str) -> None:
    words = shlex.split(command.replace("ARGUMENTS", "--broker paper"))[1:]
    assert build_parser().parse_args(words).verb == words[0]


def test_an_alert_of_the_runbook_can_come() -> None:
    assert len(ALERTS) > 5
    assert set(ALERTS) <= set(KINDS)


@pytest.mark.parametrize("words", WORDS)
def test_what_the_runbook_says_to_look_for_is_said(words: str) -> None:
    said = words.removesuffix(" N")  # stands for a number
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("core", "serving")
        for path in Path(PROJECT / folder).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # sentences that are broken over lines
    assert said in re.sub(r"\{[^{}]*\}", "", joined) or said in joined
