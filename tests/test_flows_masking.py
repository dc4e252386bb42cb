"""What a flow raises and tells of: nothing that Prefect keeps of it is a secret."""

import pytest
from flows_kit import Served
from test_flows_deployments import ask

from core.home import Home
from core.progress import Progress

PLACED = "postgresql://ratchet:pw1@db/mlflow"  # the password is short: its place gives it away
TOKEN = "tok-0123456789"


def test_prefect_keeps_neither_words_nor_traceback_of_a_secret(
    served: Served, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.progress import RunProgress
    from flows.rolling_back import rollback
    from registry import promotion

    home.make(home.workspace)
    home.params_file.write_bytes(served.home.params_file.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", PLACED)
    monkeypatch.setenv("IB_TOKEN", TOKEN)

    def broken(*_: object) -> str:
        RunProgress("rollback")(Progress("asking", 0.5, f"{PLACED} with {TOKEN}"))
        try:
            raise KeyError(TOKEN)
        except KeyError as error:
            raise ConnectionError(f"no answer from {PLACED}") from error

    monkeypatch.setattr(promotion, "rollback", broken)
    with temporary_settings({PREFECT_API_URL: served.api}):
        with pytest.raises(Exception, match=r"ratchet:\*\*\*\*@db") as raised:
            rollback("aapl")
        APILogWorker.drain_all(timeout=60)
    (run,) = ask(served, "flow_runs", flow_runs={"state": {"type": {"any_": ["FAILED"]}}})
    assert run["state"]["message"].endswith(
        "ConnectionError: no answer from postgresql://ratchet:****@db/mlflow"
    )
    wanted = {"flow_run_id": {"any_": [run["id"]]}}
    logs, artifacts = ask(served, "logs", logs=wanted), ask(served, "artifacts", artifacts=wanted)
    trace = next(one["message"] for one in logs if "Traceback" in one["message"])
    assert "KeyError: '****'" in trace  # the cause, and where it came from
    assert ", in broken\n" in trace
    (shown,) = [one["description"] for one in artifacts if one["key"] == "rollback-asking"]
    assert shown == "postgresql://ratchet:****@db/mlflow with ****"
    assert any(
        "50 %  postgresql://ratchet:****@db/mlflow with ****" in one["message"] for one in logs
    )
    kept = f"{run} {logs} {artifacts} {raised.value!r}"
    assert "pw1" not in kept
    assert TOKEN not in kept
