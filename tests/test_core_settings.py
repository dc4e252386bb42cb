"""params.yaml: what is right loads, what is wrong is named."""

import copy
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConfigError, UnknownAgent, UnknownKey
from core.home import PROJECT
from core.settings import Params, RiskLimits, load_params, parse_params

Content = dict[str, Any]
SHIPPED: Content = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))


def test_the_shipped_file_loads() -> None:
    params = load_params(PROJECT / "params.yaml")
    assert params.agent("ixic3x").signal_symbol == "IXIC"
    assert params.agent("aapl").signal_symbol == "AAPL"
    assert params.size("demo").trials >= 6
    assert params.size("demo").seeds >= 3
    assert params.size("default").trials >= 20
    assert params.size("default").seeds >= 5


def test_an_agents_limits_override_those_of_all() -> None:
    params = parse_params(SHIPPED)
    assert params.risk_for("aapl") == params.risk
    assert params.risk_for("ixic3x").volatility_target == 0.35
    assert params.risk_for("ixic3x").max_weight == params.risk.max_weight


UNKNOWN: dict[str, tuple[Callable[[Content], Any], str]] = {
    "a section": (lambda c: c.update(riks={}), "`riks`; did you mean 'risk'?"),
    "a key": (lambda c: c["risk"].update(stop_los=1), "`risk.stop_los`; did you mean 'stop_loss'?"),
    "a key of an agent": (
        lambda c: c["agents"]["aapl"].update(algoritm="ppo"),
        "`agents.aapl.algoritm`; did you mean 'algorithm'?",
    ),
    "a limit of an agent": (
        lambda c: c["agents"]["aapl"].update(limits={"halt_drawdwn": 0.5}),
        "`agents.aapl.limits.halt_drawdwn`; did you mean 'halt_drawdown'?",
    ),
    "a key of a size": (
        lambda c: c["search"]["sizes"]["demo"].update(trails=3),
        "`search.sizes.demo.trails`; did you mean 'trials'?",
    ),
    "a key like no other": (lambda c: c["sac"].update(xyzzy=1), "`sac.xyzzy`; known keys: batch, "),
    "a key of an agent named like a key": (
        lambda c: c["agents"].update(symbol={"symbol": "X", "rewrd": "sharpe"}),
        "`agents.symbol.rewrd`; did you mean 'reward'?",
    ),
}


@pytest.mark.parametrize(("change", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_key_is_named_with_its_neighbour(
    change: Callable[[Content], Any], message: str
) -> None:
    content = copy.deepcopy(SHIPPED)
    change(content)
    with pytest.raises(UnknownKey, match=re.escape(f"here: unknown key {message}")):
        parse_params(content, where="here")


WRONG: dict[str, tuple[Callable[[Content], Any], str]] = {
    "a number as text": (
        lambda c: c["account"].update(cash="100000"),
        "`account.cash`: Input should be a valid number, found '100000'",
    ),
    "an impossible value": (
        lambda c: c["costs"].update(volume_participation=1.5),
        "`costs.volume_participation`: Input should be less than or equal to 1, found 1.5",
    ),
    "no finite number": (
        lambda c: c["account"].update(cash=float("inf")),
        "`account.cash`: Input should be a finite number, found inf",
    ),
    "a word that is no choice": (
        lambda c: c["agents"]["aapl"].update(interval="2d"),
        "`agents.aapl.interval`: Input should be '1d', '1h', '15m', '5m', '1m' or '5s', found '2d'",
    ),
    "a limit of the wrong type": (
        lambda c: c["agents"]["aapl"].update(limits={"stop_loss": "5%"}),
        "`agents.aapl.limits.stop_loss`: Input should be a valid number, found '5%'",
    ),
    "limits that contradict": (
        lambda c: c["agents"]["aapl"].update(limits={"halt_drawdown": 0.01}),
        "`agents.aapl.limits`: reduce_drawdown must be smaller than halt_drawdown",
    ),
    "discrete SAC": (
        lambda c: c["agents"]["ixic3x"].update(actions="discrete"),
        "`agents.ixic3x`: algorithm sac needs `actions: continuous`",
    ),
    "a missing key": (
        lambda c: c["agents"].update(new={"algorithm": "ppo"}),
        "`agents.new.symbol`: Field required",
    ),
    "a list of the wrong things": (
        lambda c: c["features"].update(indicators=["rsi", 3]),
        "`features.indicators.1`: Input should be a valid string, found 3",
    ),
    "a date": (
        lambda c: c["demo"].update(size=date(2024, 1, 2)),
        "a value is no text, number, list or section",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named(change: Callable[[Content], Any], message: str) -> None:
    content = copy.deepcopy(SHIPPED)
    change(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_params(content, where="here")
    assert str(caught.value).startswith("here: ")


FILES = {
    "no YAML": (b"risk: {max_weight: 1.0", "not valid YAML"),
    "a key given twice": (b"risk: {}\naccount: {}\nrisk: {}\n", "key 'risk' is given twice"),
    "a list": (b"- a\n- b\n", "expected sections such as `agents:`"),
    "empty": (b"", "expected sections such as `agents:`, found None"),
    "not UTF-8": (b"agents: {\xe4: {}}\n", "line 1 is not UTF-8; save the file as UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_does_not_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_no_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: no such file"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_agent_is_named_with_its_neighbour() -> None:
    with pytest.raises(UnknownAgent, match=r"no agent 'appl'.*did you mean 'aapl'"):
        parse_params(SHIPPED).agent("appl")


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no size 'tiny'.*known: default, demo"):
        parse_params(SHIPPED).size("tiny")


def test_params_do_not_change() -> None:
    params = parse_params(SHIPPED)
    with pytest.raises(ValueError, match="frozen"):
        params.risk.max_weight = 2.0  # type: ignore[misc]
    assert Params.model_validate(params.model_dump()) == params
    assert RiskLimits().halt_drawdown is not None
