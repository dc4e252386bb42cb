"""The fault matrix: every fault of ``fault_list``, struck while the sleeve is flat and holding.

After each the ledger is held against the broker's own books: no fill lost, no order doubled, none
sent before its intent was written, shares and cash the same; what went wrong was told, and the
sleeve went on by itself, or ended and said why. ``make faults`` makes a table of it.
"""

from pathlib import Path

import pytest
from fault_kit import Fault, survive
from fault_list import FAULTS
from fault_table import strike_id

STRIKES = [
    pytest.param(fault, place, id=strike_id(where, fault.name))
    for fault in FAULTS
    for where, place in fault.strikes.items()
]


@pytest.mark.parametrize(("fault", "place"), STRIKES)
def test_a_fault_loses_nothing_and_doubles_nothing(
    fault: Fault, place: int, tmp_path: Path
) -> None:
    assert survive(fault, place, tmp_path) == []
