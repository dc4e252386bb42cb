"""The command ``ratchet``: arguments in, one call, an exit code out.

Owns exit codes and how errors look. Decides nothing: every verb (``flows.verbs``) is one function
of ``flows.commands``, imported when it is called, so that ``--help`` answers at once.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core import telemetry
from core.errors import DiskFull, RatchetError
from core.masking import confidential, guard, masked
from flows.verbs import Verb, declare

if TYPE_CHECKING:
    from core.home import Home

UNEXPECTED = 70  # a defect of ours, as in sysexits.h; RatchetError carries its own code
INTERRUPTED = 130

ABOUT = "Reinforcement-learning traders that move forward only when the evidence holds."
EPILOG = """\
the daily use:
  ratchet up                           Prefect, MLflow and the paper worker, until Ctrl-C
  ratchet status                       who is Production, what the worker does
  ratchet ledger decisions --last 5    what was decided, and why
  ratchet rollback aapl                back to the version before

Trading is on paper, unless `serve --broker ibkr` and TRADING_MODE=live say otherwise. State lies
under .ratchet; the environment variable RATCHET_HOME moves it.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; ``verb`` names the function of ``flows.commands``."""
    parser = Verb(
        prog="ratchet",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, summary: str, example: str) -> Verb:
        return verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    declare(verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    if arguments is None:  # this process is the command's own
        guard()
    options = build_parser().parse_args(arguments)
    telemetry.switch_off()
    from core.home import Home

    home = Home.from_environment()
    try:
        command = getattr(importlib.import_module("flows.commands"), options.verb)
        return int(command(home, options))
    except RatchetError as error:
        print(f"error: {masked(str(error), confidential(os.environ))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python flushes once more at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last place where anything can be said
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            where = getattr(error, "filename", None) or home.root
            print(f"error: {where}: no space left; free some and repeat", file=sys.stderr)
            return DiskFull.exit_code
        print(f"error: {_unexpected(error, home)}", file=sys.stderr)
        return UNEXPECTED


def _unexpected(error: Exception, home: "Home") -> str:
    """Write the traceback to the log and return what to tell the user."""
    import traceback
    from datetime import UTC, datetime

    words = " ".join(masked(str(error), confidential(os.environ)).split())[:300]
    text = f"unexpected {type(error).__name__}: {words}"
    log = home.logs / "ratchet.log"
    try:
        home.make(home.logs)
        with log.open("a", encoding="utf-8") as file:
            command = f"{datetime.now(UTC).isoformat()} ratchet {' '.join(sys.argv[1:])}"
            trace = "".join(traceback.format_exception(error))
            file.write(masked(f"{command}\n{trace}\n", confidential(os.environ)))
    except OSError as unwritable:
        return f"{text} (and {log} cannot be written: {unwritable})"
    return f"{text}; the traceback is in {log}"


if __name__ == "__main__":
    sys.exit(main())
