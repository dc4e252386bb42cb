"""The verb ``shadow``: who runs beside Production, how it stands, and who is to run there.

Owns its options and what is printed. The comparisons are the worker's.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.home import Home

if TYPE_CHECKING:
    from flows.verbs import Verb


def add(verb: "Callable[[str, str, str], Verb]") -> None:
    """Add the verb to the command line."""
    shadow = verb(
        "shadow",
        "show the challengers beside Production: bars, books, wealth of the test, verdict",
        "ratchet shadow aapl --version 3",
    )
    shadow.add_argument("agent", help="an entry under `agents:` in params.yaml")
    shadow.add_argument(
        "--version",
        metavar="N",
        type=int,
        help="let this version run beside Production, too; the alias Challenger always does",
    )
    shadow.add_argument("--end", metavar="N", type=int, help="let it run there no more")
    shadow.add_argument("--json", action="store_true", help="for programs")


def run(home: Home, options: argparse.Namespace) -> int:
    """Name or unname a version where asked to; print every comparison, write the picture."""
    from pipelines import shadowing
    from registry import models
    from serving.challengers import further_versions, name_version, unname_version

    if options.version is not None:
        models.version(home, options.agent, options.version)
        name_version(home, options.agent, options.version)
    if options.end is not None:
        unname_version(home, options.agent, options.end)
    found = shadowing.compared(home, options.agent)
    drawn = shadowing.picture(home, options.agent)
    named = further_versions(home, options.agent)
    if options.json:
        content = {
            "agent": options.agent,
            "named": named,
            "comparisons": [dataclasses.asdict(one) for one in found],
            "picture": str(drawn) if drawn else None,
        }
        json.dump(content, sys.stdout, indent=1, default=str)
        print()
        return 0
    if named:
        print(f"named, besides the Challenger: version {', '.join(map(str, named))}")
    for one in found:
        print(one)
        if one.to_promote:
            print(f"  to promote it: {one.to_promote}")
    print(drawn or f"{options.agent}: nothing was compared yet; a running worker compares")
    return 0


def line(home: Home, agent: str) -> str:
    """Return what `ratchet status` says of an agent's challengers; empty: there are none."""
    from pipelines import shadowing

    running = [one for one in shadowing.compared(home, agent) if one.verdict == "continue"]
    said = [
        f"version {one.challenger} {one.bars} bars, wealth {one.evidence:.3g} of {one.needed:.4g}, "
        f"against {one.against:.3g} of {one.needed_against:.4g}"
        for one in running
    ]
    return f"beside it: {'; '.join(said)}" if said else ""
