"""A short soak: several agents on minutes with faults all the time; ``make soak`` plays a month."""

import pytest

from bench import soak


def test_a_soak_with_many_faults_leaves_books_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "FAULTS_EVERY", 4)
    found = soak.soak(2, 40, seed=3, share=0.3, say=lambda text: None)
    assert found.wrong == []
    assert found.faults.total() >= 5
    assert found.orders > 0
    assert found.fills > 0


def test_agents_on_one_account_leave_each_others_orders_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soak, "FAULTS", {"nothing": lambda tws: None})
    alone = soak.soak(1, 12, seed=1, share=0.5, say=lambda text: None)
    both = soak.soak(2, 12, seed=1, share=0.5, say=lambda text: None)
    assert both.wrong == []
    assert both.fills_by["S0"] == alone.fills_by["S0"] > 2
