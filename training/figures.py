"""Figures: what people look at before they believe a number.

Owns the Plotly figures of a report, one function each, and their common look. Draws what it is
given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.metrics import drawdowns
from registry.evidence import Stress
from registry.regimes import regimes as regimes_of
from registry.significance import sharpe_ratio, total_return
from training.backtest import BacktestResult

CANDIDATE, INK, GRID, LOSS, GAIN = "#2f6fde", "#1c2733", "#e6eaef", "#c62a2f", "#18794e"
OTHERS = ("#f08c2e", "#7a8794", "#9b6bd3", "#3aa7a3", "#b8a13a", "#c76a9b")
MOST_POINTS = 2_000  # per line: a screen shows no more, and files stay small
ROLLING_BARS = 126

Contenders = Mapping[str, BacktestResult]  # the first is the one the report is about


def equity(contenders: Contenders) -> go.Figure:
    """Growth of one unit and the fall from its peak, every contender over the same bars."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.04
    )
    for (name, result), colour in zip(contenders.items(), colours(len(contenders)), strict=True):
        curve = np.append(result.opening_cash, result.equity) / result.opening_cash
        line = {"color": colour, "width": 2.4 if colour == CANDIDATE else 1.4}
        shared = {"name": name, "legendgroup": name, "line": line, "mode": "lines"}
        x, growth = thinned(result.time, curve[1:])
        figure.add_trace(go.Scatter(x=x, y=growth, **shared), 1, 1)
        x, fall = thinned(result.time, -drawdowns(curve)[1:])
        figure.add_trace(go.Scatter(x=x, y=fall, showlegend=False, **shared), 2, 1)
    figure.update_yaxes(title_text="growth of 1, after costs", type="log", row=1, col=1)
    figure.update_yaxes(title_text="drawdown", tickformat=".0%", row=2, col=1)
    return dressed(figure, 560)


def trades(result: BacktestResult) -> go.Figure:
    """Every fill on the price, and the position below."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04
    )
    price = split_free(result)
    x, y = thinned(result.time, price)
    figure.add_trace(go.Scatter(x=x, y=y, name="close", line={"color": INK, "width": 1.2}), 1, 1)
    bought = (result.fills.open_shares + result.fills.exit_shares)[:, 0]
    for name, rows, colour, symbol in (
        ("buy", np.flatnonzero(bought > 0), GAIN, "triangle-up"),
        ("sell", np.flatnonzero(bought < 0), LOSS, "triangle-down"),
    ):
        marker = {"color": colour, "symbol": symbol, "size": 8}
        figure.add_trace(
            go.Scatter(
                x=result.time[rows], y=price[rows], name=name, mode="markers", marker=marker
            ),
            1,
            1,
        )
    x, y = thinned(result.time, result.position)
    figure.add_trace(
        go.Scatter(x=x, y=y, name="position", fill="tozeroy", line={"color": CANDIDATE}), 2, 1
    )
    figure.update_yaxes(title_text="price, splits taken out", row=1, col=1)
    figure.update_yaxes(title_text="position", tickformat=".0%", row=2, col=1)
    return dressed(figure, 520)


def returns(contenders: Contenders) -> go.Figure:
    """How the returns of single bars are distributed."""
    figure = go.Figure()
    for (name, result), colour in zip(contenders.items(), colours(len(contenders)), strict=True):
        if not np.any(result.returns):
            continue  # flat: one bar as high as the page
        figure.add_trace(
            go.Histogram(x=result.returns, name=name, nbinsx=80, opacity=0.5, marker_color=colour)
        )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title_text="return of a bar", tickformat=".1%")
    figure.update_yaxes(title_text="bars")
    return dressed(figure, 340)


def rolling(contenders: Contenders, per_year: float) -> go.Figure:
    """Sharpe ratio of the newest half year, along the way."""
    figure = go.Figure()
    for (name, result), colour in zip(contenders.items(), colours(len(contenders)), strict=True):
        window = min(ROLLING_BARS, len(result.equity) // 3)
        newest = pd.Series(result.returns).rolling(window)
        x, y = thinned(result.time, (newest.mean() / newest.std() * np.sqrt(per_year)).to_numpy())
        figure.add_trace(go.Scatter(x=x, y=y, name=name, line={"color": colour}))
    figure.add_hline(y=0, line={"color": INK, "width": 0.8})
    figure.update_yaxes(title_text=f"Sharpe of {ROLLING_BARS} bars")
    return dressed(figure, 340)


def walk_forward(folds: Sequence[Mapping[str, BacktestResult]]) -> go.Figure:
    """Out-of-sample growth, fold after fold; each fold traded with a policy of its own."""
    figure = go.Figure()
    names = list(folds[0]) if folds else []
    for name, colour in zip(names, colours(len(names)), strict=True):
        time = np.concatenate([fold[name].time for fold in folds])
        growth = np.cumprod(1.0 + np.concatenate([fold[name].returns for fold in folds]))
        x, y = thinned(time, growth)
        figure.add_trace(go.Scatter(x=x, y=y, name=name, line={"color": colour}))
    for number, fold in enumerate(folds):
        time = next(iter(fold.values())).time
        figure.add_vrect(
            x0=time[0],
            x1=time[-1],
            fillcolor=INK,
            opacity=0.06 if number % 2 else 0.0,
            line_width=0,
            annotation_text=f"fold {number + 1}",
            annotation_position="top left",
        )
    figure.update_yaxes(title_text="growth of 1, out of sample", type="log")
    return dressed(figure, 380)


def seeds(returns: np.ndarray) -> go.Figure:
    """Growth of one unit with every seed (S, T), from the worst to the best."""
    figure = go.Figure()
    growth = np.cumprod(1.0 + returns, axis=1)
    bars = np.arange(1, returns.shape[1] + 1)
    for place, colour in zip(np.argsort(growth[:, -1]), colours(len(growth)), strict=True):
        x, y = thinned(bars, growth[place])
        line = {"color": colour, "width": 1.4}
        figure.add_trace(go.Scatter(x=x, y=y, name=f"seed {place + 1}", line=line))
    figure.update_xaxes(title_text="bar of the hold-out")
    figure.update_yaxes(title_text="growth of 1, after costs", type="log")
    return dressed(figure, 320)


def stress(stress: Stress, per_year: float) -> go.Figure:
    """Sharpe ratio under each condition, and the growth that more capital leaves."""
    named = {f"costs × {n}": returns for n, returns in stress.costs.items()}
    named["one bar later"] = stress.delayed
    sharpes = [float(sharpe_ratio(r)) * np.sqrt(per_year) for r in named.values()]
    grown = [float(total_return(returns)) for returns in stress.capital.values()]
    figure = make_subplots(rows=1, cols=2, column_widths=[0.5, 0.5])
    figure.add_trace(
        go.Bar(x=list(named), y=sharpes, marker_color=CANDIDATE, showlegend=False), 1, 1
    )
    line = {"color": CANDIDATE, "width": 2}
    figure.add_trace(go.Scatter(x=list(stress.capital), y=grown, line=line, showlegend=False), 1, 2)
    figure.update_yaxes(title_text="Sharpe ratio", row=1, col=1)
    figure.update_xaxes(title_text="times the capital", type="log", row=1, col=2)
    figure.update_yaxes(title_text="return of the hold-out", tickformat=".0%", row=1, col=2)
    return dressed(figure, 320)


def regimes(candidate: np.ndarray, market: np.ndarray) -> go.Figure:
    """Return of the candidate and of the market itself in each regime of the hold-out."""
    masks = regimes_of(market)
    names = [f"{name}, {mask.sum()} bars" for name, mask in masks.items()]
    figure = go.Figure()
    for name, returns, colour in (
        ("candidate", candidate, CANDIDATE),
        ("market", market, OTHERS[1]),
    ):
        made = [float(total_return(returns[mask])) for mask in masks.values()]
        figure.add_trace(go.Bar(x=names, y=made, name=name, marker_color=colour))
    figure.update_yaxes(title_text="return in these bars", tickformat=".0%")
    return dressed(figure, 320)


def choice(walks: np.ndarray, per_year: float) -> go.Figure:
    """How the Sharpe ratios of the paths (P, T) of a cross-validated choice are distributed."""
    sharpes = sharpe_ratio(walks) * np.sqrt(per_year)
    figure = go.Figure(go.Histogram(x=sharpes, nbinsx=20, marker_color=CANDIDATE))
    figure.add_vline(x=0, line={"color": INK, "width": 0.8})
    figure.update_xaxes(title_text="Sharpe ratio of a path, where it was not chosen")
    figure.update_yaxes(title_text="paths")
    return dressed(figure, 300)


def learning(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> go.Figure:
    """Validation score of each seed while it learned."""
    figure = go.Figure()
    for (name, curve), colour in zip(curves.items(), colours(len(curves)), strict=True):
        x = [point["steps"] for point in curve]
        y = [point.get("validation_score") for point in curve]
        figure.add_trace(
            go.Scatter(x=x, y=y, name=name, mode="lines+markers", line={"color": colour})
        )
    figure.update_xaxes(title_text="environment steps")
    figure.update_yaxes(title_text="validation score")
    return dressed(figure, 320)


def study(trials: Sequence[tuple[int, float | None, bool]]) -> go.Figure:
    """Every trial of the study: number, validation score, pruned or not."""
    figure = go.Figure()
    for name, pruned, colour in (("completed", False, CANDIDATE), ("pruned", True, OTHERS[1])):
        chosen = [(n, s) for n, s, was_pruned in trials if was_pruned == pruned and s is not None]
        figure.add_trace(
            go.Scatter(
                x=[n for n, _ in chosen],
                y=[s for _, s in chosen],
                name=name,
                mode="markers",
                marker={"color": colour, "size": 10},
            )
        )
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text="validation score")
    return dressed(figure, 320)


def split_free(result: BacktestResult) -> np.ndarray:
    """Return the closes (T,) in shares of the last bar, so that a split makes no step."""
    ratio = result.market.split_ratio[:, 0]
    later = np.append(np.cumprod(ratio[::-1])[::-1][1:], 1.0)
    closes: np.ndarray = result.market.close[:, 0] / later
    return closes


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about MOST_POINTS of a line, ends included."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int))
    return x[rows], y[rows]


def colours(count: int) -> list[str]:
    """Return one colour for each of ``count`` contenders, the first always the same."""
    return [CANDIDATE, *(OTHERS[i % len(OTHERS)] for i in range(max(count - 1, 0)))][:count]


def dressed(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the common look."""
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 40},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "legend": {"orientation": "h", "y": 1.08},
        "hovermode": "x unified",
    }
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure
