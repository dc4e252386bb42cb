"""Versions and aliases: every candidate in MLflow's registry, and verified copies to run on.

Owns how a bundle becomes a version, how aliases are read and set, and the local copies under
``Home.bundles``, by which a worker lives on while MLflow is away. Which version *should* hold an
alias is ``registry/promotion.py``'s to say; only it calls ``set_alias``.

A version is the folder ``bundle`` of a run: plain files, never a pickle.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import (
    BadBundle,
    CorruptFile,
    DiskFull,
    RegistryError,
    StorageError,
    UnknownVersion,
)
from core.home import Home
from core.masking import confidential, masked
from registry.bundle import CARD, bundle_sha256, card_of
from registry.connection import answering, connect
from registry.tracking import BUNDLE_FOLDER, Run, start_run
from registry.verdict import GateReport

Alias = Literal["Production", "Challenger", "Previous"]
ALIASES: tuple[Alias, ...] = ("Production", "Challenger", "Previous")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an agent, as the registry describes it."""

    agent: str
    number: int
    bundle_sha256: str
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Copy:
    """A verified local copy of a version's bundle."""

    agent: str
    number: int
    bundle_sha256: str
    folder: Path


def register(
    home: Home,
    agent: str,
    folder: Path,
    report: GateReport | None = None,
    tags: Mapping[str, str] | None = None,
    run: Run | None = None,
) -> Version:
    """Make the bundle in ``folder`` a new version of ``agent``; ``run``: what it came from.

    Tags tell agent, algorithm, seed, trial, dataset, commit and the gate's verdict. Raises
    ``BadBundle`` before anything is stored, ``ServiceUnavailable`` when MLflow is away.
    """
    if run is None:
        with start_run(home, agent, name=f"register {folder.name}") as own:
            return register(home, agent, folder, report, tags, own)
    sha256 = bundle_sha256(folder)
    card = card_of(folder)
    if card.agent != agent:
        raise BadBundle(f"{folder / CARD}: is a bundle of {card.agent!r}, expected {agent!r}")
    labels = {
        "bundle_sha256": sha256,
        "algorithm": card.algorithm,
        "seed": str(card.seed),
        "trial": "" if card.trial is None else str(card.trial),
        "dataset_sha256": card.dataset_sha256,
        "git_commit": card.commit,
        "dvc_lock_sha256": card.dvc_lock_sha256 or "",
        **(tags or {}),
    }
    if report is not None:
        labels |= {
            "gate_verdict": report.verdict,
            "gate_summary": report.summary,
            "gate_report_sha256": report.sha256,
        }
        run.log_text(json.dumps(report.to_json(), indent=1), "gate.json")
    run.log_folder(folder, BUNDLE_FOLDER)
    client = connect(home)
    with answering(home):
        _require_model(client, agent)
        made = client.create_model_version(
            name=agent,
            source=f"{run.artifact_uri}/{BUNDLE_FOLDER}",
            run_id=run.run_id,
            tags=labels,
            await_creation_for=0,
        )
    return Version(agent, int(made.version), sha256, run.run_id, labels)


def version(home: Home, agent: str, number: int) -> Version:
    """Return one version; raise ``UnknownVersion`` naming what there is."""
    client = connect(home)
    try:
        with answering(home):
            return _version(agent, client.get_model_version(agent, str(number)))
    except UnknownVersion as error:
        known = ", ".join(str(one.number) for one in versions(home, agent)) or "none"
        raise UnknownVersion(
            f"{agent}: no version {number} in the registry; there is {known}"
        ) from error


def versions(home: Home, agent: str) -> list[Version]:
    """Return all versions of an agent, oldest first; empty where there are none."""
    client = connect(home)
    found: list[Version] = []
    token = None
    with answering(home):
        while True:
            page = client.search_model_versions(f"name='{agent}'", page_token=token)
            found += [_version(agent, item) for item in page]
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda item: item.number)


def with_alias(home: Home, agent: str, alias: Alias) -> Version:
    """Return the version that holds an alias, in one call of a few milliseconds, made to be polled.

    Raises ``UnknownVersion`` where none holds it.
    """
    client = connect(home)
    absent = f"{agent}: no version is {alias}; `ratchet retrain {agent}` makes one"
    try:
        with answering(home, absent):
            return _version(agent, client.get_model_version_by_alias(agent, alias))
    except RegistryError as error:
        if isinstance(error, UnknownVersion) or "alias" not in str(error):
            raise
        raise UnknownVersion(absent) from error  # MLflow calls an absent alias a bad parameter


def alias(home: Home, agent: str, name: Alias) -> int | None:
    """Return the number of the version that holds an alias, None where none does."""
    return aliases(home, agent).get(name)


def aliases(home: Home, agent: str) -> dict[Alias, int]:
    """Return which version holds which alias; empty for an agent without versions."""
    client = connect(home)
    try:
        with answering(home):
            held = client.get_registered_model(agent).aliases
    except UnknownVersion:
        return {}
    return {known: int(held[known]) for known in ALIASES if known in held}


def set_alias(home: Home, agent: str, alias: Alias, number: int | None) -> None:
    """Give an alias to a version, or take it away (None)."""
    client = connect(home)
    with answering(home, absent=f"{agent}: no version {number} in the registry"):
        if number is not None:
            client.set_registered_model_alias(agent, alias, str(number))
        elif alias in client.get_registered_model(agent).aliases:
            client.delete_registered_model_alias(agent, alias)


def set_tag(home: Home, agent: str, number: int, name: str, text: str) -> None:
    """Tag a version."""
    client = connect(home)
    with answering(home, absent=f"{agent}: no version {number} in the registry"):
        text = masked(text, confidential(os.environ))
        client.set_model_version_tag(agent, str(number), name, text)


def fetch(home: Home, wanted: Version) -> Copy:
    """Return a verified local copy of a version, downloaded only if there is none yet."""
    folder = home.bundles / wanted.bundle_sha256
    if not _is_intact(folder, wanted.bundle_sha256):
        shutil.rmtree(folder, ignore_errors=True)
        _download(home, wanted, folder)
    return Copy(wanted.agent, wanted.number, wanted.bundle_sha256, folder)


def run_file(home: Home, wanted: Version, name: str) -> bytes | None:
    """Return a file of the run that made a version, None where it has none of that name."""
    client = connect(home)
    with answering(home), tempfile.TemporaryDirectory() as place:
        if name not in {item.path for item in client.list_artifacts(wanted.run_id)}:
            return None
        return Path(client.download_artifacts(wanted.run_id, name, place)).read_bytes()


def production(home: Home, agent: str) -> Copy:
    """Return the Production version's copy, and remember it for when MLflow is away."""
    copy = fetch(home, with_alias(home, agent, "Production"))
    pointer = {"number": copy.number, "bundle_sha256": copy.bundle_sha256}
    _write_whole(_pointer(home, agent), json.dumps(pointer))
    return copy


def cached_production(home: Home, agent: str) -> Copy:
    """Return the newest Production copy this home has seen, verified, without asking MLflow.

    Raises ``UnknownVersion`` where none was seen, ``BadBundle`` where the copy was altered.
    """
    path = _pointer(home, agent)
    try:
        content = json.loads(path.read_text())
        number, sha256 = int(content["number"]), str(content["bundle_sha256"])
    except FileNotFoundError:
        raise UnknownVersion(
            f"{agent}: no copy of a Production bundle under {home.bundles}; start MLflow and the "
            "worker once together"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path}: unreadable ({error}); delete it and start MLflow") from error
    folder = home.bundles / sha256
    if bundle_sha256(folder) != sha256:
        raise BadBundle(f"{folder}: is not the bundle it is named after; delete it")
    return Copy(agent, number, sha256, folder)


def _download(home: Home, wanted: Version, folder: Path) -> None:
    client = connect(home)
    absent = f"{wanted.agent} version {wanted.number}: its files are gone from MLflow"
    with answering(home, absent=absent):
        home.make(home.bundles)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.bundles) as place:
            got = Path(client.download_artifacts(wanted.run_id, BUNDLE_FOLDER, place))
            try:
                found = bundle_sha256(got)
            except BadBundle as error:
                told = str(error).replace(f"{got}/", "").partition(";")[0]
                raise BadBundle(
                    f"{wanted.agent} version {wanted.number}: its files in MLflow are damaged "
                    f"({told}); restore those of run {wanted.run_id}, or go back by "
                    f"`ratchet rollback {wanted.agent}`"
                ) from error
            if found != wanted.bundle_sha256:
                raise BadBundle(
                    f"{wanted.agent} version {wanted.number}: MLflow delivered bundle "
                    f"{found[:12]}, registered was {wanted.bundle_sha256[:12]}; do not trade it"
                )
            if not folder.exists():
                got.rename(folder)


def _is_intact(folder: Path, sha256: str) -> bool:
    try:
        return bundle_sha256(folder) == sha256
    except BadBundle:
        return False


def _pointer(home: Home, agent: str) -> Path:
    return home.bundles / f"{agent}.production.json"


def _write_whole(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old or the new one, never half of it."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: no space left; free some and repeat") from error
        raise StorageError(f"{path}: cannot be written ({error})") from error


def _version(agent: str, item: Any) -> Version:
    tags = dict(item.tags)
    if "bundle_sha256" not in tags:
        raise UnknownVersion(
            f"{agent}: version {item.version} holds no bundle of Ratchet's; delete it in MLflow"
        )
    return Version(agent, int(item.version), tags["bundle_sha256"], str(item.run_id), tags)


def _require_model(client: Any, agent: str) -> None:
    try:
        client.create_registered_model(agent)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
