"""What IBKR says by itself: a fill is heard when it happens, an order's end is no answer."""

import threading
from pathlib import Path

from fake_tws import Once
from ibkr_kit import HISTORY_BARS, SYMBOL, Trading, market

PATIENCE_SECONDS = 20.0  # only ever spent by a run that fails


def test_a_fill_and_its_fee_wake_the_worker_and_hearing_them_again_does_not(tmp_path: Path) -> None:
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)
        woken = threading.Semaphore(0)
        trading.broker.listen(woken.release)
        try:
            trading.close_bar()
            assert trading.broker.open_orders(), "the script buys at its first bar"
            found.play(HISTORY_BARS + 1, 0)
            for word in ("the fill", "its fee"):
                assert woken.acquire(timeout=PATIENCE_SECONDS), word
            (execution,) = trading.broker.news().executions
            assert execution.symbol == SYMBOL
            trading.broker.ask()
            trading.broker.ask()
            assert not woken.acquire(blocking=False)
        finally:
            trading.close()


def test_an_order_whose_end_is_said_amid_an_answer_counts_as_ended(tmp_path: Path) -> None:
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)
        try:
            trading.close_bar()
            (working,) = trading.broker.open_orders()
            found.remote.do(lambda tws: tws.faults.once(Once.CANCEL_AMID))
            assert trading.broker.cancel(working.order_ref).status == "cancelled"
            assert trading.broker.open_orders() == ()
        finally:
            trading.close()
