"""The table the demo ends with.

Owns its columns and words; everything in it was computed elsewhere.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from core.home import Home
from core.settings import Params
from flows.reports import number, percent, share

if TYPE_CHECKING:
    from flows.demo import Outcome
    from pipelines.retrain import Retrained
    from serving.results import SleeveResult

HEADS = (
    "agent",
    "baseline",
    "candidate",
    "return",
    "Sharpe",
    "max drawdown",
    "gate",
    "registry",
    "paper session",
)
CANDIDATE = "candidate"
WIDEST = 1000  # characters of a line in a file
BASELINES = ("buy_and_hold", "ma_crossover", "volatility_target", "flat", "random")


def show(home: Home, params: Params, console: Console, outcome: "Outcome") -> None:
    """Print the table, what was promoted, what paper and rollback showed, and where reports lie."""
    sleeves = {sleeve.agent: sleeve for sleeve in outcome.paper.session.sleeves}
    _table(console, [_row(params, outcome, d, sleeves.get(d.agent)) for d in outcome.retrained])
    for done in outcome.retrained:
        console.print(f"{done.agent}: {done.summary}", soft_wrap=True)
    for line in _words(outcome):
        console.print(line, soft_wrap=True)
    from pipelines import picture

    console.print("\nreports (open in a browser):")
    drawn = picture.run(home, params, outcome.retrained)
    console.print(f"  the picture: {drawn}", soft_wrap=True)
    for done in outcome.retrained:
        for name, path in done.reports.items():
            if path.suffix == ".html":
                console.print(f"  {done.agent} {name}: {path}", soft_wrap=True)
    for path in sorted((home.data / "reports").glob("*.html")):
        console.print(f"  {path.stem}: {path}", soft_wrap=True)
    console.print(f"\n{outcome.seconds:.0f} s; `ratchet up` shows all of it in Prefect and MLflow")


def _table(console: Console, rows: Sequence[tuple[str, ...]]) -> None:
    """Print whole words on any width: a terminal too narrow for the table gets a list an agent."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for head in HEADS:
        right = head in ("return", "Sharpe", "max drawdown")
        table.add_column(head, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A console never prints wider than itself, and one without a terminal takes itself for 80.
    wide = Console(file=console.file, width=WIDEST, force_terminal=False)
    needed = Measurement.get(wide, wide.options, table).maximum
    if console.width >= needed:
        console.print(table)
    elif not console.is_terminal:
        wide.print(table, width=needed)
    else:
        for row in rows:
            listed = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
            for head, cell in zip(HEADS, row, strict=True):
                listed.add_row(head, cell.replace(",\n", "\n").replace("\n", ", "))
            console.print(listed)


def _row(
    params: Params, outcome: "Outcome", done: "Retrained", sleeve: "SleeveResult | None"
) -> tuple[str, ...]:
    baseline = next((name for name in BASELINES if name in done.contenders), None)
    held = done.contenders.get(baseline or "", {})
    own = done.contenders.get(CANDIDATE, {})
    agent = params.agent(done.agent)
    return (
        f"{done.agent}\n{agent.symbol}",
        f"{(baseline or 'none').replace('_', ' ')}\n{percent(held.get('total_return'))}, "
        f"Sharpe {number(held.get('sharpe'))}",
        f"{agent.algorithm.upper()}\n{done.trials} trials, {done.seeds} seeds",
        percent(own.get("total_return")),
        number(own.get("sharpe")),
        share(own.get("max_drawdown")),
        done.verdict,
        _registry(outcome, done),
        _paper(outcome, done, sleeve),
    )


def _registry(outcome: "Outcome", done: "Retrained") -> str:
    held = f"version {done.version}\n{', '.join(done.aliases) or 'no alias'}"
    switched = outcome.rolled_back
    if switched is not None and done.promoted and str(done.version) == switched.versions[0]:
        return f"{held},\nthen rolled back to {switched.versions[1]}"
    return held


def _paper(outcome: "Outcome", done: "Retrained", sleeve: "SleeveResult | None") -> str:
    if sleeve is None:
        return "not traded"
    same = outcome.paper.differences.get(done.agent) is None
    return (
        f"version {', '.join(sleeve.model_versions)}: {percent(sleeve.total_return)} in "
        f"{sleeve.bars} bars\n{'equals its backtest' if same else 'DIFFERS from its backtest'}"
    )


def _words(outcome: "Outcome") -> list[str]:
    promoted = [done.agent for done in outcome.retrained if done.promoted]
    refused = [done.agent for done in outcome.retrained if not done.promoted]
    lines = []
    if promoted:
        lines.append(f"promoted to Production: {', '.join(promoted)}.")
    if refused:
        lines.append(
            f"not promoted: {', '.join(refused)}. What was Production stays: "
            "an honest no is a good result."
        )
    for difference in outcome.paper.differences.values():
        if difference is not None:
            lines.append(f"paper and backtest differ: {difference}")
    switched = outcome.rolled_back
    if switched is None:
        lines.append("nothing was promoted, so there was nothing to roll back.")
    else:
        lines.append(
            f"rolled back while trading: version {switched.versions[0]} decided "
            f"{switched.bars_before} bars, version {switched.versions[1]} the other "
            f"{switched.bars - switched.bars_before}; the worker followed without a restart and "
            "without missing a bar."
        )
    return lines
