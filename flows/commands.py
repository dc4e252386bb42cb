"""The verbs of ``ratchet``, one function each: load, one call, print.

Owns what is printed. Everything heavy is imported by the verb that needs it.
"""

import argparse
import dataclasses
import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from core.settings import Params


def demo(home: Home, options: argparse.Namespace) -> int:
    from flows import demo as main_job

    params = _params(home)
    return main_job.run(
        home,
        params,
        _console(),
        agents=tuple(options.agents or params.demo.agents),
        size=options.size or params.demo.size,
    )


def up(home: Home, options: argparse.Namespace) -> int:
    from flows import up as everything

    _params(home)
    return everything.run(home, _console(), with_worker=not options.no_worker)


def doctor(home: Home, options: argparse.Namespace) -> int:
    from flows import doctor as examination

    return examination.run(home, _console())


def _params(home: Home) -> "Params":
    from core.settings import load_params
    from pipelines import workspace

    workspace.prepare(home)
    return load_params(home.params_file)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
