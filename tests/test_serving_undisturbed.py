import gc
import sys

import pytest

from serving.undisturbed import SWITCH_SECONDS, settled, undisturbed


def test_garbage_waits_for_the_orders_and_is_collected_after_them():
    assert gc.isenabled()
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_leaves_the_collector_as_it_was():
    with pytest.raises(ValueError, match="7"), undisturbed():
        raise ValueError("7")
    assert gc.isenabled()


def test_what_was_loaded_is_not_searched_while_a_worker_trades():
    before = sys.getswitchinterval()
    with settled():
        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == pytest.approx(before)
