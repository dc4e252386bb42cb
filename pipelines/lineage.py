"""Lineage: which code and which datasets a result comes from.

Owns the questions to git and DVC. Outside a git checkout the commit is ``unknown``, and says so.
"""

import hashlib
import subprocess

from core.home import PROJECT, Home

UNKNOWN = "unknown"


def git_commit() -> str:
    """Return the commit of the checkout, with ``-dirty`` where tracked files were changed."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return f"{commit}-dirty" if changed else commit


def dvc_lock_sha256(home: Home) -> str | None:
    """Return the hash of the workspace's dvc.lock, None where datasets were never reproduced."""
    lock = home.workspace / "dvc.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(PROJECT), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()
