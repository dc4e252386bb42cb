"""A real ``ratchet serve``: scraped over HTTP; an agent is killed, and a person told at once."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import retrain_kit as kit
import yaml
from alert_kit import receiving, until
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ConfigError
from core.home import PROJECT, Home
from pipelines.enrolment import enrol
from serving import status, steering

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECTIONS = dict(kit.SECTIONS)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = kit.home_with_data(tmp_path)
    home.params_file.write_text(yaml.safe_dump(SECTIONS))
    enrol(home, kit.settings(), "planted", "buy_and_hold", by="A. Turing", now=NOW)
    return home


def scraped(address: str) -> dict[str, float]:
    with urllib.request.urlopen(address, timeout=10.0) as page:
        text = page.read().decode()
    return {
        f"{one.name} {' '.join(one.labels.values())}".strip(): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def serve(home: Home, **environment: str) -> "subprocess.Popen[str]":
    words = ["serve", "--agents", "planted", "--processes", "--stay", "--bars-per-second", "20"]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words], cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "RATCHET_HOME": str(home.root), "RATCHET_BUS_PORT": "0",
             "RATCHET_METRICS_PORT": "any", **environment},
    )  # fmt: skip


def reload_settings(home: Home, **risk: float) -> str:
    home.params_file.write_text(yaml.safe_dump(SECTIONS | {"risk": risk}))
    return steering.reload(home, seconds=60.0)


def shown(home: Home) -> Any:
    return status.read(home).agents.get("planted")


def test_it_is_scraped_and_tells_of_an_agent_that_was_killed(home: Home) -> None:
    with receiving() as receiver:
        process = serve(home, RATCHET_ALERT_URLS=receiver.url)
        try:
            until(lambda: process.poll() is not None or bool(shown(home) and shown(home).bar_time),
                  60.0)  # fmt: skip
            assert process.poll() is None, process.communicate()
            page = status.read(home).metrics
            until(lambda: scraped(page).get("ratchet_fills_total planted entry", 0.0) >= 1.0)
            found = scraped(page)
            assert found["ratchet_link_up broker"] == 1.0
            assert found["ratchet_risk_state planted"] == 0.0
            assert found["ratchet_equity planted"] > 0.0
            assert found["ratchet_bar_to_order_seconds_count planted"] >= 1.0
            assert found["ratchet_stalls_total planted"] == 0.0
            told = reload_settings(home, max_weight=0.5)
            assert told == "took over risk.max_weight 1.0 -> 0.5 (SIGHUP)"
            with pytest.raises(ConfigError, match=r"params\.yaml: `risk.max_weight`: Input should"):
                reload_settings(home, max_weight=-1.0)
            os.kill(shown(home).pid, signal.SIGKILL)
            dead = "Ratchet warning: stalled planted"
            until(lambda: dead in receiver.titles())
            assert receiver.titles()[:2] == ["Ratchet info: settings", "Ratchet warning: settings"]
            # Whichever came first: the question to it, or the look whether it lives.
            why = ("agent died: exit code -9", "policy failed: the agent's process is not there")
            told = receiver.messages[receiver.titles().index(dead)]["message"]
            assert told.startswith(why)
            until(lambda: scraped(page)["ratchet_stalls_total planted"] >= 1.0)
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60.0)
    assert process.returncode == 0, out + err
    everything = out + err + "".join(
        path.read_text(errors="replace") for path in home.logs.rglob("*") if path.is_file()
    ) + status.path_of(home).read_text()  # fmt: skip
    for secret in ("s3cretword", "token-abcdef"):
        assert secret not in everything
