"""Devices: where engine, rollouts and learner compute, chosen by configuration.

``RATCHET_DEVICE`` (or ``Lesson.device``) is ``cpu``, ``cuda``, ``tpu`` or ``torch-cpu``: what runs
on a GPU, run by torch on the processor. On ``cpu`` accounts are NumPy's and run as machine code;
elsewhere accounts, market and trajectories are torch tensors that stay on the device. Only ``cpu``
promises the same weights bit for bit. torch is imported when a device is looked for, not before.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "tpu", "torch-cpu")


def device_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return what RATCHET_DEVICE names, ``cpu`` when unset; raise ``ConfigError`` otherwise."""
    name = environment.get("RATCHET_DEVICE", "cpu").lower()
    if name not in DEVICES:
        raise ConfigError(f"RATCHET_DEVICE={name!r}: expected one of {', '.join(DEVICES)}")
    return name


def arrays_on(name: str) -> tuple[Any, "torch.device | None"]:
    """Return the array-API namespace of accounts on the device called ``name``, and the device.

    ``cpu``: NumPy, and None. Raises as ``find_device`` does.
    """
    if name == "cpu":
        return np, None
    import array_api_compat.torch as arrays

    return arrays, find_device(name)


def find_device(name: str) -> "torch.device":
    """Return the torch device called ``name``; say what is missing when it is not there."""
    import torch

    if name in ("cpu", "torch-cpu"):
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
