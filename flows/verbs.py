"""The verbs of ``ratchet``: what each takes, and its help.

Owns names, arguments and examples. What a verb does is the function of its name in
``flows.commands``; nothing heavy is imported here, so that ``--help`` answers at once.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import NoReturn

from flows import shadowing

USAGE = 2  # exit code, as ConfigError's

TABLES = ("decisions", "orders", "fills", "equity", "events", "sessions")
SOURCES = ("bundled", "csv", "yfinance", "ibkr", "planted")
BROKERS = ("paper", "ibkr")
BASELINES = ("flat", "buy_and_hold", "ma_crossover", "volatility_target", "random")
INTERVALS = ("1d", "1h", "15m", "5m", "1m", "5s")


class Verb(argparse.ArgumentParser):
    """A parser whose errors look like all others: one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument VERB: ").replace("(choose from", "(there is")
        print(f"error: {said}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(USAGE)


Declare = Callable[[str, str, str], Verb]  # name, summary, example


def declare(verb: Declare) -> None:
    """Declare all verbs, in the order of the help."""
    for of_a_kind in (
        _data_verbs,
        _training_verbs,
        _registry_verbs,
        _proof_verbs,
        _serving_verb,
        _watchdog_verb,
        _control_verbs,
        _telling_verbs,
        shadowing.add,
    ):
        of_a_kind(verb)


def _data_verbs(verb: Declare) -> None:
    demo = verb("demo", "run the main job on bundled data, end to end", "ratchet demo")
    demo.add_argument("--agents", nargs="+", metavar="AGENT", help="default: demo.agents")
    demo.add_argument("--size", help="one of search.sizes in params.yaml; default: demo.size")

    ingest = verb(
        "ingest",
        "fetch bars of one symbol into the store, through the same gate as the flow",
        "ratchet ingest NVDA --source yfinance",
    )
    ingest.add_argument("symbol", help="as the source names it: AAPL, IXIC …")
    ingest.add_argument("--source", choices=SOURCES, default="bundled", help="default: %(default)s")
    ingest.add_argument(
        "--path", metavar="FILE", help="the file of `--source csv`: Date, Open, High, Low, Close …"
    )
    ingest.add_argument("--interval", choices=INTERVALS, default="1d", help="default: %(default)s")


def _training_verbs(verb: Declare) -> None:
    retrain = verb(
        "retrain",
        "search, train, judge and register a candidate; promote it if the gate says so",
        "ratchet retrain aapl --trials 40 --seeds 5",
    )
    _agent(retrain)
    retrain.add_argument("--size", default="default", help="one of search.sizes in params.yaml")
    retrain.add_argument(
        "--trials", metavar="N", type=_positive, help="trials of the study; default: by size"
    )
    retrain.add_argument(
        "--seeds", metavar="N", type=_positive, help="seeds of the candidate; default: by size"
    )
    retrain.add_argument("--seed", metavar="N", type=int, help="first seed; default: search.seed")
    retrain.add_argument(
        "--warm-start", action="store_true", help="fine-tune Production instead of training anew"
    )

    backtest = verb(
        "backtest",
        "run a version and the baselines over its out-of-sample bars and write the report",
        "ratchet backtest aapl --version 3",
    )
    _agent(backtest)
    backtest.add_argument("--version", help="a version or an alias; default: Production")

    compare = verb(
        "compare",
        "put versions side by side, with the baselines, on bars that none was trained on",
        "ratchet compare aapl 1 2 3",
    )
    _agent(compare)
    compare.add_argument("versions", nargs="+", metavar="VERSION", help="two or more")

    reproduce = verb(
        "reproduce",
        "rebuild a version from its card, study included, and compare hashes; changes nothing",
        "ratchet reproduce aapl 3",
    )
    _agent(reproduce)
    reproduce.add_argument("version", help="a version of the registry")


def _registry_verbs(verb: Declare) -> None:
    promote = verb(
        "promote",
        "make a version Production: by its gate report, or overridden by a named person",
        'ratchet promote aapl 3 --by "A. Turing" --reason "gate data was stale, see ticket 12"',
    )
    _agent(promote)
    promote.add_argument("version", help="a version of the registry")
    promote.add_argument("--by", metavar="NAME", help="who overrides a gate that said no")
    promote.add_argument("--reason", help="why; recorded with the name")

    register = verb(
        "register",
        "register a baseline and make it Production, to be traded like any model",
        "ratchet register aapl random --seed 1",
    )
    _agent(register)
    register.add_argument("kind", choices=BASELINES, help="what it does")
    register.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of `random`; default: %(default)s"
    )
    register.add_argument("--by", metavar="NAME", help="who; default: the user who is logged in")
    register.add_argument("--reason", help="why; needed where it replaces a trained model")

    rollback = verb(
        "rollback",
        "make the version before Production again; a running worker follows within a second",
        'ratchet rollback aapl --reason "loses on open gaps"',
    )
    _agent(rollback)
    rollback.add_argument("--by", metavar="NAME", help="who; default: the user who is logged in")
    rollback.add_argument("--reason", default="by hand", help="default: %(default)s")

    whatwas = verb(
        "whatwas",
        "say which version was Production at a time, and what evidence put it there",
        "ratchet whatwas aapl --at 2026-03-02T15:00Z",
    )
    _agent(whatwas)
    whatwas.add_argument("--at", required=True, help="ISO date or time; UTC if it names no zone")
    _json(whatwas)

    verb(
        "audit",
        "find every entry of the promotion ledger that was altered, and every alias moved by hand",
        "ratchet audit",
    )


def _proof_verbs(verb: Declare) -> None:
    parity = verb(
        "parity",
        "replay a recorded session by training's own path and name the first difference",
        "ratchet parity 1",
    )
    parity.add_argument("session", type=_positive, help="see `ratchet status`")

    explain = verb(
        "explain",
        "trace an order to decision, features, version, trial, dataset and commit",
        "ratchet explain ratchet-1-aapl-20131101T000000Z-entry-3",
    )
    explain.add_argument("order", help="its reference: see `ratchet ledger orders`")
    _json(explain)


def _serving_verb(verb: Declare) -> None:
    serve = verb(
        "serve",
        "trade with the Production version of every agent: on paper, or at a broker",
        "ratchet serve --bars-per-second 2",
    )
    serve.add_argument(
        "--broker",
        choices=BROKERS,
        default="paper",
        help="paper: the engine is the market. ibkr: TWS or IB Gateway at IB_HOST (127.0.0.1), "
        "IB_PORT (4002; live 4001), IB_CLIENT_ID (1), IB_ACCOUNT (the only one); a paper account, "
        "unless TRADING_MODE=live and the account typed allow a live one; default: %(default)s",
    )
    serve.add_argument("--agents", nargs="+", metavar="AGENT", help="default: all but the demo's")
    serve.add_argument(
        "--feed",
        choices=("replay", "yfinance", "ibkr"),
        help="replay the reserved bars, poll Yahoo, or keep IBKR's bars up to date; default: ibkr "
        "with `--broker ibkr`, else replay",
    )
    serve.add_argument(
        "--stay", action="store_true", help="follow aliases after the replay, until stopped"
    )
    serve.add_argument(
        "--fresh", action="store_true", help="open new books even where some could be resumed"
    )
    serve.add_argument(
        "--standby",
        action="store_true",
        help="wait until the gateway that trades is dead or silent for RATCHET_LEASE_SECONDS (60), "
        "then take its place; RATCHET_LEASE names the lease both see (lease of the home)",
    )
    serve.add_argument(
        "--processes",
        action="store_true",
        help="one process for each agent, on loopback ports from RATCHET_BUS_PORT (5557) on",
    )
    serve.add_argument(
        "--bars-per-second",
        type=_speed,
        metavar="N",
        help="speed of the replay; 0 is as fast as possible; default: paper.bars_per_second",
    )


def _watchdog_verb(verb: Declare) -> None:
    watchdog = verb(
        "watchdog",
        "start the gateway, start it again when it dies, end it when it hangs and see to its "
        "orders by `when_stopped` of each agent",
        "ratchet watchdog -- --broker ibkr --processes",
    )
    watchdog.add_argument(
        "--no-restart",
        action="store_true",
        help="when it has died or was ended, see to its orders and stay stopped (always so in live "
        "mode, where a start takes the account typed)",
    )
    watchdog.add_argument(
        "serve",
        nargs="*",
        metavar="ARGUMENT",
        help="of `ratchet serve`, after `--`; a gateway that runs already is watched as it is",
    )


def _control_verbs(verb: Declare) -> None:
    for name, does in (
        ("pause", "let an agent hold what it has"),
        ("resume", "let it trade again"),
    ):
        steer = verb(name, f"{does}, while `serve --processes` runs", f"ratchet {name} aapl")
        _agent(steer)
        steer.add_argument("--by", metavar="NAME", help="who; default: the user who is logged in")

    verb(
        "reload",
        "let a running worker take over risk limits, alerts and pace from params.yaml",
        "ratchet reload",
    )

    kill = verb(
        "kill",
        "stop all trading of this home at once, until a person releases it",
        'ratchet kill --reason "fills look wrong" --policy flatten',
    )
    kill.add_argument("--by", metavar="NAME", help="who; default: the user who is logged in")
    kill.add_argument("--reason", default="by hand", help="default: %(default)s")
    kill.add_argument(
        "--policy",
        choices=("hold", "protect", "flatten"),
        help="cancel all orders; all but stops and targets; or sell the shares as well. "
        "Default: `when_stopped` of each agent in params.yaml (protect)",
    )

    release = verb(
        "release",
        "let trading go on after `ratchet kill`, from the next close",
        'ratchet release --by "A. Turing" --reason "feed was wrong, mended"',
    )
    release.add_argument(
        "--by", metavar="NAME", required=True, help="the person who answers for it"
    )
    release.add_argument("--reason", required=True, help="why; recorded with the name")


def _telling_verbs(verb: Declare) -> None:
    ledger = verb(
        "ledger",
        "print what the worker decided, ordered and filled",
        "ratchet ledger decisions --agent aapl --last 20 --json",
    )
    ledger.add_argument("table", choices=TABLES, help="which table")
    ledger.add_argument("--agent", help="of this agent only")
    ledger.add_argument("--session", type=_positive, metavar="N", help="default: the newest")
    ledger.add_argument("--last", type=_positive, metavar="N", help="newest N rows; default: all")
    _json(ledger)

    status = verb(
        "status", "say who is Production, what runs and how each sleeve stands", "ratchet status"
    )
    _json(status)

    alerts = verb(
        "alerts",
        "send one alert to every channel, or say which there are and what each event needs",
        "RATCHET_ALERT_URLS=tgram://TOKEN/CHAT ratchet alerts test",
    )
    alerts.add_argument("action", choices=("test", "list"), help="what to do")

    up = verb(
        "up",
        "start Prefect with every deployment, MLflow and the paper worker, until Ctrl-C",
        "RATCHET_PREFECT_PORT=4300 ratchet up",
    )
    up.add_argument("--no-worker", action="store_true", help="leave the paper worker out")

    verb(
        "doctor",
        "say what is installed, configured and reachable, and what to do about what is not",
        "ratchet doctor",
    )


def _agent(verb: Verb) -> None:
    verb.add_argument("agent", help="an entry under `agents:` in params.yaml")


def _json(verb: Verb) -> None:
    verb.add_argument("--json", action="store_true", help="for programs")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


def _speed(text: str) -> float:
    try:
        if 0.0 <= (speed := float(text)) < math.inf:
            return speed
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected bars per second, 0 or more, found {text!r}")
