"""Run every test of IBKR again and again, each time with other jitter in the fake TWS.

``make faults SEEDS=20`` from ``SEED`` on, or ``python tests/jittered.py --seeds 20 [TEST …]``. It
goes on after a failure, says how to repeat it, and ends with exit code 1. Nobody waits for luck in
the suite itself: there, a few seeds play a plain script (``test_serving_ibkr_jitter.py``).
"""

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from tempfile import TemporaryDirectory

from fake_tws.jitter import VARIABLE

HERE = Path(__file__).parent
TESTS = (
    "test_serving_faults.py",  # the fault matrix
    "test_serving_crash.py",  # killed at every boundary
    "test_serving_watchdog_ibkr.py",  # fencing, caretaker, standby
    "test_serving_serve_ibkr.py",
    "test_serving_ibkr.py",
    "test_serving_ibkr_actions.py",
    "test_serving_ibkr_hearing.py",
    "test_serving_ibkr_words.py",
    "test_serving_ibkr_live.py",  # bars of minutes, whole workers
    "test_serving_ibkr_live_ticks.py",
    "test_serving_ibkr_feed.py",
    "test_serving_ibkr_ticks.py",
    "test_serving_auction.py",
    "test_sources_ibkr.py",
)


def failures(report: Path) -> tuple[int, list[str]]:
    """Return how many tests ran, and the names of those that failed."""
    cases = list(ET.parse(report).iter("testcase"))
    bad = [one for one in cases if one.find("failure") is not None or one.find("error") is not None]
    return len(cases), [f"{one.get('classname')}::{one.get('name')}" for one in bad]


def run(seed: int, jobs: int, tests: list[str]) -> tuple[int, list[str]]:
    """Run the tests with the jitter of a seed."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-n", str(jobs), f"--junitxml={report}"]
        said = subprocess.run(
            [*command, *tests], env={**os.environ, VARIABLE: str(seed)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if not report.exists():
            raise SystemExit(f"error: pytest did not run:\n{said.stdout}")
        ran, bad = failures(report)
    if bad:
        print(said.stdout)
    return ran, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many (20)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--jobs", type=int, default=2, help="test processes (2)")
    parser.add_argument("tests", nargs="*", help="files, or names as pytest takes them (all)")
    asked = parser.parse_args()
    tests = asked.tests or [str(HERE / name) for name in TESTS]
    all_ran, all_bad = 0, 0
    for seed in range(asked.first, asked.first + asked.seeds):
        begun = time.monotonic()
        ran, bad = run(seed, asked.jobs, tests)
        all_ran, all_bad = all_ran + ran, all_bad + len(bad)
        took = time.monotonic() - begun
        print(f"seed {seed}: {ran} ran, {len(bad)} failed, {took:.0f} s", flush=True)
        for name in bad:
            print(f"  {name}\n  again: {VARIABLE}={seed} python -m pytest …", flush=True)
    print(f"{asked.seeds} seeds, {all_ran} runs, {all_bad} failed")
    return 1 if all_bad else 0


if __name__ == "__main__":
    sys.exit(main())
