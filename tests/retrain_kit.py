"""A home in which an agent can be retrained within seconds: few bars, few columns, few steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry_kit import home_with_mlflow

from core.home import Home
from core.settings import Params, parse_params
from pipelines import featurize
from pipelines.featurize import validated_path
from sources.files import parquet_bytes, write_whole
from sources.planted import planted_bars

BARS = 1_300
TRIALS, SEEDS, FOLDS = 3, 3, 2

SECTIONS: Mapping[str, Any] = {
    "agents": {
        "planted": {"symbol": "PLANTED", "source": "planted", "schedule": "none"},
        "other": {"symbol": "ABSENT"},
    },
    "features": {
        "indicators": ["return_1", "return_5", "macd", "rsi_14", "volatility_20"],
        "include_vix": False,
        "anchor_years": 1,
    },
    "split": {"paper_bars": 40},
    "environment": {"accounts": 32, "episode_bars": 64},
    "ppo": {"steps": 4_096, "rollout_bars": 16, "minibatch": 256, "hidden": [16]},
    "search": {
        "generation": 2,
        "reports": 2,
        "sizes": {"tiny": {"trials": TRIALS, "seeds": SEEDS, "folds": FOLDS}},
    },
    "gate": {"min_holdout_bars": 60, "bootstrap_samples": 200},
}


def settings(**sections: Any) -> Params:
    return parse_params({**SECTIONS, **sections})


def home_with_data(root: Path) -> Home:
    home = home_with_mlflow(root)
    write_whole(validated_path(home, "PLANTED"), parquet_bytes(planted_bars(sessions=BARS)))
    featurize.run(home, settings(), "PLANTED")
    return home
