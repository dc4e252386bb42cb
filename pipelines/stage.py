"""How a stage runs from the command line of DVC: one dataset, or all of them, one clear error.

Owns arguments and exit codes of ``python -m pipelines.<stage> <name>``.
"""

import os
import sys
from collections.abc import Callable

from core import telemetry
from core.errors import RatchetError
from core.home import Home
from core.masking import confidential, guard, masked
from core.settings import Params, load_params

ERROR = "error: "


def main(run: Callable[[Home, Params, str], None]) -> int:
    """Call ``run`` for the dataset named on the command line; return the exit code."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"{ERROR}expected one dataset, such as AAPL; found {sys.argv[1:]}\n")
        return 2
    return main_of_all(lambda home, params: run(home, params, sys.argv[1]))


def main_of_all(run: Callable[[Home, Params], None]) -> int:
    """Call ``run``, which is for every dataset; return the exit code."""
    guard()
    telemetry.switch_off()
    try:
        home = Home.from_environment()
        run(home, load_params(home.params_file))
    except RatchetError as error:
        sys.stderr.write(f"{ERROR}{masked(str(error), confidential(os.environ))}\n")
        return error.exit_code
    return 0
