"""The engine on a device: what a GPU would run, run by torch on the processor."""

import time

import numpy as np

from bench.engine import Run


def test_accounts_on_a_device_live_as_those_in_machine_code_do() -> None:
    here, there = Run(64), Run(64, device="cpu")
    for index in range(80):
        here.step(index, time.perf_counter)
        there.step(index, time.perf_counter)
        assert here.state.account.tobytes() == there.state.account.numpy().tobytes(), index
        assert here.state.position.tobytes() == there.state.position.numpy().tobytes(), index
    assert np.array_equal(here.rows, there.rows.numpy())
    assert here.state.halted.any() or (here.state.shares != 0.0).any()
    assert there.market.table.device.type == there.state.account.device.type == "cpu"
