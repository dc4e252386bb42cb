"""A sleeve at the IBKR broker, against the fake TWS: accounts, corrections, restarts, the audit.

What goes wrong on purpose is in ``fault_list`` and runs in ``test_serving_faults.py``.
"""

from pathlib import Path

import pytest
from fake_tws import Ticket as Typed
from fault_kit import FRAME, QUICK, WEIGHTS, linked, play_on, play_session
from ibkr_kit import SYMBOL, Trading, audit, market

from core.errors import ConfigError, NotAllowed
from serving.brokers.ibkr import Access, confirm_live


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"TRADING_MODE": "live", "IB_ACCOUNT": "DU1234567"}, "is a paper account"),
        ({"IB_ACCOUNT": "U1234567"}, "is a live account"),
    ],
)
def test_mode_and_account_that_do_not_fit_are_refused(
    environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(NotAllowed, match=problem):
        Access.from_environment(environment)


def test_an_account_is_never_shown_whole() -> None:
    with pytest.raises(NotAllowed) as caught:
        Access.from_environment({"IB_ACCOUNT": "U1234567"})
    assert "U1234567" not in str(caught.value)


def test_live_trading_needs_the_account_typed() -> None:
    live = Access.from_environment({"TRADING_MODE": "live", "IB_ACCOUNT": "U1234567"})
    with pytest.raises(NotAllowed, match="nothing was started"):
        confirm_live(live, "yes")
    confirm_live(live, "U1234567")


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match="IB_PORT=gateway"):
        Access.from_environment({"IB_PORT": "gateway"})


def test_the_account_at_the_gateway_decides_whether_trading_starts(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        found.exchange.accounts = ("U7654321",)
        with pytest.raises(NotAllowed, match="TRADING_MODE=paper"):
            Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)


def test_a_correction_replaces_its_fill_and_its_fee_stays(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
        try:
            play_on(trading, found, trading.place + 2)
            exec_id = next(iter(found.exchange.executions))
            found.remote.do(lambda tws: tws.correct(exec_id, price=70.0))
            linked(trading)
            play_on(trading, found)
        finally:
            trading.close()
        assert audit(tmp_path, found.exchange) == []


def test_a_sleeve_that_starts_again_goes_on_from_its_ledger(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        while True:
            trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
            try:
                if trading.place == len(FRAME):
                    break
                play_session(trading, found)
                trading.close_bar()
            finally:
                trading.close()
        assert audit(tmp_path, found.exchange) == []


def test_the_audit_finds_an_order_that_left_before_its_intent(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
        try:
            order = Typed(1, SYMBOL, "BUY", 5, order_ref="ratchet-1-scripted-x-entry-1")
            found.remote.do(lambda tws: tws.exchange.place(7, order))
        finally:
            trading.close()
        wrong = audit(tmp_path, found.exchange)
        assert "ratchet-1-scripted-x-entry-1: sent before its intent was written" in wrong
        assert "ratchet-1-scripted-x-entry-1: not in the ledger" in wrong
