"""The workspace: where ``dvc repro`` runs, for the checkout and for every other home.

Owns its making and the call of DVC. The default home works in the checkout itself; any other home
gets ``$RATCHET_HOME/workspace``, with parameters and manifests of its own and the checkout's code.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core import errors
from core.home import PROJECT, Home
from core.progress import Progress, Report, silent
from pipelines.stage import ERROR
from sources.files import write_whole

CODE = ("core", "sources", "features", "pipelines")
OWN = ("params.yaml", "manifests")  # copied once, then this home's to change
SHARED = ("dvc.yaml", ".dvcignore")  # follow the checkout
STAGE = re.compile(  # what DVC says of each it comes to
    r"(?:Running s|S)tage '(?P<stage>\w+)@(?P<dataset>.+?)'(?P<unchanged> didn't change)?"
)
CONFIG = "[core]\n    analytics = false\n    no_scm = true\n    check_update = false\n"


def prepare(home: Home) -> Path:
    """Return the workspace of ``home``, made ready for DVC; does nothing when it is."""
    folder = home.workspace
    if home.is_default:
        return folder
    try:
        _furnish(folder)
    except OSError as error:
        raise errors.StorageError(
            f"{folder}: cannot be made ready ({error.strerror or error}); name a folder that can "
            "be written in RATCHET_HOME"
        ) from error
    return folder


def _furnish(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in OWN:
        if not (folder / name).exists():
            _copy(PROJECT / name, folder / name)
    for name in SHARED:
        content = (PROJECT / name).read_bytes()
        if not (folder / name).exists() or (folder / name).read_bytes() != content:
            write_whole(folder / name, content)
    for name in CODE:
        if not (folder / name).exists():
            (folder / name).symlink_to(PROJECT / name, target_is_directory=True)
    if not (folder / ".dvc" / "config").exists():
        write_whole(folder / ".dvc" / "config", CONFIG.encode())


def reproduce(home: Home, targets: Sequence[str] = (), report: Report = silent) -> None:
    """Run ``dvc repro`` in the workspace; a stage's own error is raised as it was printed.

    ``targets``: ``featurize@AAPL`` …; all stages by default.
    """
    folder = prepare(home)
    total = max(1, 3 * len(targets or _datasets(folder)))
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    with (
        _alone(folder),
        subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        lines, met = [], 0
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if stage := STAGE.match(line):
                name = f"{stage['stage']} {stage['dataset']}"
                text = f"{name}: unchanged" if stage["unchanged"] else name
                report(Progress("datasets", min(0.99, met / total), text))
                met += 1
    if process.returncode:
        raise _failure(folder, lines)
    report(Progress("datasets", 1.0, "datasets are up to date"))


def _datasets(folder: Path) -> list[str]:
    return [path.stem for path in (folder / "manifests").glob("*.json")]


def _environment(home: Home) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}",
        "RATCHET_HOME": str(home.root),
        "DVC_NO_ANALYTICS": "1",
        # A user's own features may lie where their PYTHONPATH says.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
    }


def _failure(folder: Path, lines: list[str]) -> errors.RatchetError:
    """Find the stage's one clear error in what DVC printed, as the kind its exit code tells."""
    told = "\n".join(lines)
    if absent := re.search(r"Parameters '(.+?)' are missing", told):
        return errors.ConfigError(
            f"{folder / 'params.yaml'}: no section `{absent[1]}`, by which DVC knows when to make "
            f"datasets anew; add `{absent[1]}: {{}}` for the defaults"
        )
    own = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    if own:
        code = re.search(r"exited with (\d+)", told)
        kinds = {kind.exit_code: kind for kind in errors.RatchetError.__subclasses__()}
        return kinds.get(int(code[1]) if code else 0, errors.DataError)(own[-1])
    last = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    return errors.DataError(
        f"dvc repro in {folder}: {' '.join(last).removeprefix('ERROR: ') or 'it said nothing'}"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for a run of DVC in the same workspace: it refuses to share it."""
    lock = folder / ".dvc" / "tmp" / "ratchet.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
