"""The verbs of ``ratchet``, one function each: load, one call, print.

Owns what is printed. Everything heavy is imported by the verb that needs it. A function returns
the exit code.
"""

import argparse
import dataclasses
import getpass
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.home import Home
from core.masking import confidential

DIFFERENT = 8  # as ExecutionError: what was done again did not come out the same
ALTERED = 4  # as StorageError: what is stored is not what was written

if TYPE_CHECKING:
    from rich.console import Console

    from core.settings import Params
    from serving.alerts import Alert


def demo(home: Home, options: argparse.Namespace) -> int:
    from flows import demo as main_job

    params = _params(home)
    agents = tuple(options.agents or params.demo.agents)
    return main_job.run(home, params, _console(), agents, options.size or params.demo.size)


def ingest(home: Home, options: argparse.Namespace) -> int:
    from flows.progress import Terminal
    from pipelines import featurize, workspace
    from pipelines import ingest as stage
    from sources.manifest import dataset_name

    params = _params(home)
    console = _console(stderr=True)
    path = Path(options.path) if options.path else None
    with console.status(f"asking {options.source} for {options.symbol} …"):
        added = stage.run(
            home, params, options.symbol, options.source, options.interval, path, now=_now()
        )
    print(added)
    name = dataset_name(options.symbol, options.interval)
    with Terminal(console) as report:
        workspace.reproduce(home, [f"featurize@{name}"], report)
    print(f"{name}: {featurize.told_of(home, name)}")
    return 0


def retrain(home: Home, options: argparse.Namespace) -> int:
    from core.progress import Progress
    from flows import reports, running
    from flows.progress import Terminal, listening

    params = _params(home)
    params.agent(options.agent)
    params.size(options.size)
    console = _console(stderr=True)
    with Terminal(console) as terminal, listening(terminal):
        terminal(Progress("prefect", 0.0, "starting"))
        with running.prefect_for(home) as api:
            terminal(Progress("prefect", 1.0, f"this is a run of {api}"))
            from flows.retraining import retrain as flow

            done = flow(
                options.agent,
                size=options.size,
                trials=options.trials,
                seeds=options.seeds,
                warm_start=options.warm_start,
                seed=options.seed,
                reason=f"by hand ({getpass.getuser()})",
            )
    _console().print(reports.retrained_table(done))
    return 0


def backtest(home: Home, options: argparse.Namespace) -> int:
    params = _params(home)
    params.agent(options.agent)
    from flows import reports
    from pipelines import backtest as stage

    done = stage.run(home, params, options.agent, options.version or "Production", now=_now())
    _console().print(reports.backtested_table(done))
    return 0


def compare(home: Home, options: argparse.Namespace) -> int:
    params = _params(home)
    params.agent(options.agent)
    numbers = [_version(text) for text in options.versions]
    from pipelines import compare as stage

    done = stage.run(home, params, options.agent, numbers, now=_now())
    for name, measures in done.contenders.items():
        print(
            f"{name:<24} return {measures['total_return']:+8.1%}  Sharpe {measures['sharpe']:6.2f}"
            f"  max drawdown {measures['max_drawdown']:6.1%}  trades {measures['trades']:5.0f}"
        )
    print(f"{done.bars} bars, {done.first:%Y-%m-%d} to {done.last:%Y-%m-%d}: {done.report}")
    return 0


def promote(home: Home, options: argparse.Namespace) -> int:
    from registry import promotion

    _params(home).agent(options.agent)
    number = _version(options.version)
    print(promotion.promote(home, options.agent, number, _now(), options.by, options.reason))
    return 0


def register(home: Home, options: argparse.Namespace) -> int:
    from pipelines.enrolment import enrol

    change = enrol(
        home,
        _params(home),
        options.agent,
        options.kind,
        seed=options.seed,
        by=options.by or getpass.getuser(),
        reason=options.reason,
        now=_now(),
    )
    print(change)
    return 0


def reproduce(home: Home, options: argparse.Namespace) -> int:
    from flows.progress import Terminal
    from pipelines import reproduce as stage

    _params(home).agent(options.agent)
    with Terminal(_console(stderr=True)) as report:
        found = stage.run(home, options.agent, _version(options.version), report=report)
    print(found)
    return 0 if found.passed else DIFFERENT


def rollback(home: Home, options: argparse.Namespace) -> int:
    from registry import promotion

    _params(home).agent(options.agent)
    who = options.by or getpass.getuser()
    print(promotion.rollback(home, options.agent, who, options.reason, _now()))
    return 0


def whatwas(home: Home, options: argparse.Namespace) -> int:
    from registry import promotion

    _params(home).agent(options.agent)
    tenure = promotion.was_production(home, options.agent, _moment(options.at))
    if options.json:
        _print_json(dataclasses.asdict(tenure))
    else:
        print(tenure, tenure.evidence, sep="\n")
    return 0


def audit(home: Home, options: argparse.Namespace) -> int:
    from registry import promotion

    found = promotion.audit(home, tuple(_params(home).agents))
    for one in found:
        print(one)
    if not found:
        print("the promotion ledger is whole, and every alias is where it says")
    return ALTERED if found else 0


def explain(home: Home, options: argparse.Namespace) -> int:
    from serving.ledger.printing import lineage_as_json, lineage_as_text
    from serving.ledger.reader import lineage

    found = lineage(home.ledger, options.order)
    print(lineage_as_json(found) if options.json else lineage_as_text(found))
    return 0


def parity(home: Home, options: argparse.Namespace) -> int:
    from pipelines.certificate import certify

    certificates = certify(home, _params(home), options.session)
    for one in certificates:
        print(one)
    return 0 if all(one.passed for one in certificates) else DIFFERENT


def serve(home: Home, options: argparse.Namespace) -> int:
    from flows.narration import narrated
    from serving.results import as_table
    from serving.service import serve as trade

    with narrated(sys.stderr, confidential(os.environ)):
        result = trade(
            home,
            _params(home),
            agents=tuple(options.agents) if options.agents else None,
            feed=options.feed,
            bars_per_second=options.bars_per_second,
            stay=options.stay,
            fresh=options.fresh,
            processes=options.processes,
            standby=options.standby,
            broker=options.broker,
            ask=_typed,
        )
    print(as_table(result))
    return 0


def watchdog(home: Home, options: argparse.Namespace) -> int:
    from serving.watchdog_process import watch_over

    print(watch_over(home, _params(home), options.serve, not options.no_restart))
    return 0


def _typed(question: str) -> str:
    """Return what a person typed; without a terminal there is none."""
    return input(question) if sys.stdin.isatty() else ""


def pause(home: Home, options: argparse.Namespace) -> int:
    from serving.steering import steer

    _params(home).agent(options.agent)
    print(steer(home, options.verb, options.agent, options.by or getpass.getuser()))
    return 0


resume = pause


def reload(home: Home, options: argparse.Namespace) -> int:
    from serving import steering

    _params(home)
    print(steering.reload(home))
    return 0


def kill(home: Home, options: argparse.Namespace) -> int:
    from serving import switch
    from serving.aftermath import aftermath
    from serving.lock import lock_holder

    made = switch.press(
        home, options.by or getpass.getuser(), options.reason, _now(), options.policy
    )
    policy = made.policy or "by `when_stopped` of each agent"
    print(f"trading is stopped, policy {policy}; {home.kill} keeps it so until `ratchet release`")
    if lock_holder(home) is None:
        print(aftermath(home))
    return 0


def release(home: Home, options: argparse.Namespace) -> int:
    from serving import switch

    found = switch.release(home, options.by, options.reason, _now())
    print(f"released; it had been pressed {found.words}. Trading goes on from the next close")
    return 0


def ledger(home: Home, options: argparse.Namespace) -> int:
    from serving.ledger.printing import as_json, as_table
    from serving.ledger.reader import read

    if options.agent:
        _params(home).agent(options.agent)
    of = {"agent": options.agent, "session": options.session, "newest": options.last}
    rows = read(home.ledger, options.table, **of)
    print(as_json(rows) if options.json else as_table(rows))
    return 0


def shadow(home: Home, options: argparse.Namespace) -> int:
    from flows import shadowing

    _params(home).agent(options.agent)
    return shadowing.run(home, options)


def status(home: Home, options: argparse.Namespace) -> int:
    from flows import overview

    found = overview.of(home, _params(home))
    if options.json:
        _print_json(found)
    else:
        _console().print(overview.tables(found))
    return 0


def alerts(home: Home, options: argparse.Namespace) -> int:
    from serving.channels import DEFAULT_FILE, URLS, Channels

    wanted = _params(home).alerts
    channels = Channels.of(home)
    if options.action == "test":
        if channels is None:
            raise ConfigError(
                f"no alert goes anywhere: set {URLS}, or write addresses, one a line, into "
                f"{home.root / DEFAULT_FILE} (mode 600)"
            )
        channels.deliver(_test_alert())
        print(f"delivered to {', '.join(channels.names)}")
        return 0
    print(f"channels: {', '.join(channels.names) if channels else 'none'}")
    for event, least in wanted.levels.items():
        print(f"{event:<16} {least}")
    print(
        f"one a {wanted.quiet_seconds:g} s, again every {wanted.repeat_seconds:g} s while it lasts"
    )
    return 0


def _test_alert() -> "Alert":
    from serving.alerts import Alert

    by = getpass.getuser()
    return Alert("other", "info", "command line", "", _now(), f"a test, sent by {by}")


def up(home: Home, options: argparse.Namespace) -> int:
    from flows import up as everything

    _params(home)
    return everything.run(home, _console(), with_worker=not options.no_worker)


def doctor(home: Home, options: argparse.Namespace) -> int:
    from flows import doctor as examination

    return examination.run(home, _console())


def _params(home: Home) -> "Params":
    """Read params.yaml of the home's workspace, which is made when it is not there yet."""
    from core.settings import load_params
    from pipelines import workspace

    workspace.prepare(home)
    return load_params(home.params_file)


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(highlight=False, stderr=stderr)


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(text: str) -> datetime:
    """Return an ISO date or time; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--at: expected a date or time such as 2026-03-02 or 2026-03-02T15:00Z, found {text!r}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _version(text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"VERSION: expected a number such as 3, found {text!r}")
    return int(text)


def _print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=1, default=str)
    print()
