"""Where results are kept: one file per commit, written after every row.

Owns name and content of the file. A run of the same commit takes it up again.
"""

import json
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

FOLDER = "bench/results"


def file_of(project: Path, quick: bool, now: datetime) -> Path:
    """Return the newest file of this commit, else the name of a new one."""
    ending = f"{commit(project)}{'-quick' if quick else ''}.json"
    folder = project / FOLDER
    known = sorted(folder.glob(f"????-??-??-{ending}"))
    return known[-1] if known else folder / f"{now:%Y-%m-%d}-{ending}"


def load(file: Path, quick: bool) -> dict[str, Any]:
    """Return what a file holds, or the beginning of a new one."""
    if file.exists():
        return json.loads(file.read_text())  # type: ignore[no-any-return]
    return {"quick": quick, "machine": machine(), "rows": {}}


def save(file: Path, content: dict[str, Any]) -> None:
    """Write the file whole, or leave what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(new, file)


def commit(project: Path) -> str:
    """Return the short name of the commit, ``-changed`` where the checkout differs from it."""
    named = _git(project, "rev-parse", "--short=9", "HEAD")
    if named is None:
        return "unknown"
    changed = _git(project, "status", "--porcelain", "-uno")
    return f"{named}-changed" if changed else named


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "memory_gib": _memory_gib(),
    }


def _git(project: Path, *arguments: str) -> str | None:
    try:
        ended = subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None


def _processor_name() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
