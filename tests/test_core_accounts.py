"""Accounts and their snapshots."""

import json
from typing import Any

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest

from core.accounts import choose, open_accounts, state_from_json, state_to_json
from core.errors import CorruptFile


def test_a_snapshot_keeps_every_bit() -> None:
    state = open_accounts(2, 3, 1e5 / 3).but(
        clock=7, equity=np.array([0.1 + 0.2, 5e-324]), halted=np.array([True, False])
    )
    written = json.dumps(state_to_json(state), allow_nan=False)
    again = state_from_json(json.loads(written))
    assert json.dumps(state_to_json(again)) == written
    assert again.equity.tobytes() == state.equity.tobytes()
    assert np.isnan(again.stop).all()
    assert again.halted.tolist() == [True, False]
    assert again.clock == 7


def test_a_snapshot_has_the_fields_that_ledgers_hold() -> None:
    """Other fields make every snapshot so far unreadable: sessions then replay all their bars."""
    written = state_to_json(open_accounts(2, 3, 100.0))
    shapes = {
        name: tuple(value["shape"]) for name, value in written.items() if isinstance(value, dict)
    }
    by_account = (
        "cash equity previous_equity opening_equity average_equity peak block_peak past_peak "
        "weight_scale reducing began_reducing halted ruined"
    )
    by_position = (
        "shares average_price stop_gap target_gap pending_shares last_trade entry_from atr"
    )
    expected = dict.fromkeys(by_account.split(), (2,))
    expected |= dict.fromkeys(by_position.split(), (2, 3)) | {"past_peaks": (8, 2)}
    assert shapes == expected
    assert [asked["shape"] for asked in written["recent"]] == [[2, 3]] * 3
    assert written["clock"] == 0
    flags = {name for name, value in written.items() if isinstance(value, dict) and "bool" in value}
    assert flags == {"reducing", "began_reducing", "halted", "ruined"}


def test_a_snapshot_without_a_field_is_refused() -> None:
    written = state_to_json(open_accounts(1, 1, 100.0))
    del written["atr"]
    with pytest.raises(CorruptFile, match="unknown: atr"):
        state_from_json(written)


def test_a_snapshot_that_does_not_read_is_refused() -> None:
    written = state_to_json(open_accounts(1, 1, 100.0))
    written["cash"]["float64"] = ["ten"]
    with pytest.raises(CorruptFile, match="'cash' does not read"):
        state_from_json(written)


def test_choose_takes_account_by_account() -> None:
    rich, poor = open_accounts(3, 2, 500.0), open_accounts(3, 2, 5.0)
    mixed = choose(np.array([True, False, True]), rich, poor)
    assert mixed.cash.tolist() == [500.0, 5.0, 500.0]
    assert mixed.shares.shape == (3, 2)
    assert mixed.past_peaks.shape == poor.past_peaks.shape


@pytest.mark.parametrize("xp", [np, torch_namespace])
def test_who_takes_over_an_account_traded_as_long_ago_as_before(xp: Any) -> None:
    fresh = open_accounts(3, 1, 500.0, xp).but(last_trade=-2.0, entry_from=1.0)
    old = open_accounts(3, 1, 5.0, xp).but(clock=7, last_trade=4.0, entry_from=9.0)
    mixed = choose(xp.asarray([False, True, False]), fresh, old)
    assert mixed.clock == 7
    assert mixed.last_trade[:, 0].tolist() == [4.0, 5.0, 4.0]  # two bars before 7
    assert mixed.entry_from[:, 0].tolist() == [9.0, 8.0, 9.0]
    assert mixed.cash.tolist() == [5.0, 500.0, 5.0]
    assert old.cash.tolist() == [5.0] * 3
