"""Work that is given up: what ends by itself is let end, the rest is cancelled."""

from typing import Any

import pytest

from training import workers


def test_only_what_does_not_end_in_a_moment_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    waited: list[tuple[list[str], int, float]] = []
    cancelled: list[tuple[str, bool]] = []

    def wait(running: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        waited.append((list(running), num_returns, timeout))
        return running[:1], running[1:]

    def cancel(reference: str, force: bool) -> None:
        assert waited, "cancelled before it could end by itself"
        cancelled.append((reference, force))

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "cancel", cancel)
    running: list[Any] = ["ends", "hangs", "hangs too"]
    workers._abandon(running)
    assert waited == [(running, 3, workers.ENDING_SECONDS)]
    assert cancelled == [("hangs", True), ("hangs too", True)]
    workers._abandon([])
    assert len(waited) == 1  # nothing ran: there is nobody to wait for
