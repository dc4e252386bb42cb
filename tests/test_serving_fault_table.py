"""The list of faults and its table in docs/reliability.md say the same."""

from pathlib import Path

import fault_table
import pytest
from fault_kit import ALERT_SECONDS, WAITS
from fault_list import FAULTS

from core.home import PROJECT
from serving.brokers.ibkr import Pace

PAGE = PROJECT / "docs" / "reliability.md"


def test_the_page_has_the_table_of_the_list_and_every_strike_held() -> None:
    page = PAGE.read_text()
    assert page == fault_table.page_with(page, fault_table.all_held()), "run `make faults`"


def test_there_are_at_least_thirty_faults_each_with_a_name_of_its_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 30


def test_everything_is_told_within_a_minute_at_the_pace_of_real_trading() -> None:
    late = {fault.name: fault.seconds for fault in FAULTS if fault.seconds > ALERT_SECONDS}
    assert late == {}
    assert {wait for fault in FAULTS for wait in fault.waits} <= WAITS
    assert Pace().remind <= ALERT_SECONDS


def test_a_run_that_broke_or_left_out_a_strike_is_seen_in_the_table(tmp_path: Path) -> None:
    name = FAULTS[0].name
    report = tmp_path / "report.xml"
    report.write_text(
        f'<s><testcase name="test_x[flat: {name}]"/><testcase name="test_x[holding: {name}]">'
        "<failure/></testcase></s>"
    )
    rows = fault_table.table(fault_table.results_of(report)).splitlines()
    assert f"| {name} | held | **BROKEN** |" in rows[2]
    assert "| not run | not run |" in rows[3]


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match="lacks the lines"):
        fault_table.page_with("# Reliability", {})
