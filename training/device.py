"""Devices: where a learner computes, chosen by configuration.

``RATCHET_DEVICE`` (or ``Lesson.device``) is ``cpu``, ``cuda`` or ``tpu``. Only the CPU promises
the same weights bit for bit.
"""

import os
from collections.abc import Mapping

import torch

from core.errors import ConfigError, MissingDependency

DEVICES = ("cpu", "cuda", "tpu")


def device_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return what RATCHET_DEVICE names, ``cpu`` when unset; raise ``ConfigError`` otherwise."""
    name = environment.get("RATCHET_DEVICE", "cpu").lower()
    if name not in DEVICES:
        raise ConfigError(f"RATCHET_DEVICE={name!r}: expected one of {', '.join(DEVICES)}")
    return name


def find_device(name: str) -> torch.device:
    """Return the torch device called ``name``; say what is missing when it is not there."""
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise MissingDependency(
                f"device cuda: torch {torch.__version__} sees no NVIDIA GPU; install the driver "
                "and a CUDA build of torch, or set RATCHET_DEVICE=cpu"
            )
        return torch.device("cuda")
    if name == "tpu":
        try:
            import torch_xla  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise MissingDependency(
                f"device tpu: torch-xla is not installed; `pip install torch-xla` matching torch "
                f"{torch.__version__}, or set RATCHET_DEVICE=cpu"
            ) from None
        return torch.device(torch_xla.device())
    raise ConfigError(f"device {name!r}: expected one of {', '.join(DEVICES)}")
