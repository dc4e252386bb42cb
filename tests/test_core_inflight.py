"""Which settings are taken over by something that runs, and which are named and refused."""

from typing import Any

from core.inflight import take_over
from core.settings import Params, parse_params

AGENTS = {"aapl": {"symbol": "AAPL"}, "tna": {"symbol": "TNA", "limits": {"max_weight": 0.5}}}


def params(**sections: Any) -> Params:
    return parse_params({"agents": AGENTS, "risk": {"max_weight": 1.0}} | sections)


def test_risk_alerts_account_limits_and_pace_are_taken_over() -> None:
    new = params(
        risk={"max_weight": 0.8},
        alerts={"latency": "off"},
        portfolio={"max_exposure": 0.9, "allocation": {"aapl": 0.5}},
        paper={"bars_per_second": 2.0},
        agents=AGENTS | {"tna": {"symbol": "TNA", "limits": {"max_weight": 0.4}}},
    )
    found = take_over(params(), new)
    assert found.params == new
    assert found.refused == {}
    assert dict(found.taken) == {
        "risk.max_weight": (1.0, 0.8),
        "agents.tna.limits.max_weight": (0.5, 0.4),
        "portfolio.max_exposure": (None, 0.9),
        "portfolio.allocation.aapl": (None, 0.5),
        "alerts.latency": ("info", "off"),
        "paper.bars_per_second": (0.0, 2.0),
    }


def test_what_makes_bars_incomparable_is_named_and_refused() -> None:
    new = params(
        costs={"slippage_bps": 9.0},
        risk={"max_weight": 0.8},
        agents={"aapl": {"symbol": "MSFT"}, "new": {"symbol": "IBM"}},
        paper={"poll_seconds": 5.0},
    )
    found = take_over(params(), new)
    assert found.params.costs == params().costs
    assert found.params.paper == params().paper
    assert found.params.agents == params().agents
    assert found.params.risk.max_weight == 0.8
    assert {"costs.slippage_bps", "paper.poll_seconds", "agents.aapl.symbol", "agents.new.symbol",
            "agents.tna.symbol"} <= set(found.refused)  # fmt: skip
    assert str(found).startswith("took over risk.max_weight 1.0 -> 0.8; not while it runs, restart")
    assert "costs.slippage_bps 2.0 -> 9.0" in str(found)


def test_the_same_file_changes_nothing() -> None:
    assert str(take_over(params(), params())) == "nothing changed"
