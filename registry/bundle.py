"""Bundles: a policy as data (ONNX graph, feature spec and scaler, card), saved, proved, loaded.

Owns the folder's layout and its hashes. Loading runs no code of the bundle's: no pickle, no custom
operators, no external files. Must not know how a policy was trained nor where versions are kept.

    policy.onnx    registry.policy.Policy
    features.json  feature spec and fitted scaler
    card.json      registry.card.Card
    manifest.json  sha256 of the three; the bundle's own sha256 is that of this file
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadBundle, DiskFull, SpecMismatch, StorageError
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec
from registry.card import Card
from registry.policy import Decision, Policy

POLICY, FEATURES, CARD, MANIFEST = "policy.onnx", "features.json", "card.json", "manifest.json"
FORMAT = 1  # of manifest.json


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A loaded, verified policy with everything needed to feed it."""

    sha256: str
    card: Card
    spec: FeatureSpec
    scaler: Scaler
    policy_onnx: bytes
    policy: Policy

    def decide(self, observation: np.ndarray) -> Decision:
        """Decide on observations (n, D) float32, each row by itself: see ``Policy.decide``."""
        return self.policy.decide(observation)


def save_bundle(
    folder: Path, policy_onnx: bytes, spec: FeatureSpec, scaler: Scaler, card: Card
) -> str:
    """Write a bundle as ``folder``, all or nothing, and return its sha256.

    Same inputs, same bytes. A folder that holds this very bundle is left as it is; one that holds
    another is never overwritten (``StorageError``). ``DiskFull`` leaves nothing behind.
    """
    files = {
        POLICY: policy_onnx,
        FEATURES: canonical(_features_json(spec, scaler)),
        CARD: canonical(card.to_json()),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[MANIFEST] = canonical({"format": FORMAT, "files": hashes})
    sha256 = hashlib.sha256(files[MANIFEST]).hexdigest()
    if folder.exists() and _holds(folder, sha256):
        return sha256
    if folder.exists():
        raise StorageError(
            f"{folder}: already holds something other than bundle {sha256[:12]}; "
            "bundles are never overwritten, choose another folder"
        )
    try:
        _write_folder(folder, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{folder}: no space left; nothing was written, free some") from error
        if folder.exists() and _holds(folder, sha256):  # another process saved the same bundle
            return sha256
        raise StorageError(f"{folder}: the bundle cannot be written ({error})") from error
    return sha256


def load_bundle(folder: Path, expect_sha256: str | None = None) -> Bundle:
    """Read, verify and probe a bundle; raise ``BadBundle`` or ``SpecMismatch``, one per defect."""
    files, sha256 = _verified(folder, expect_sha256)
    card = Card.from_json(_parsed(folder / CARD, files[CARD]))
    spec, scaler = _features(folder, _parsed(folder / FEATURES, files[FEATURES]))
    policy = Policy.open(files[POLICY], len(card.symbols), name=str(folder / POLICY))
    columns = observation_columns(spec)
    if policy.observation_size != len(columns):
        raise SpecMismatch(
            f"{folder}: the policy expects {policy.observation_size} inputs, the observation this "
            f"code builds for its feature spec has {len(columns)}; retrain {card.agent}, "
            f"or check out its commit {card.commit[:12]}"
        )
    return Bundle(sha256, card, spec, scaler, files[POLICY], policy)


def bundle_sha256(folder: Path) -> str:
    """Return the sha256 of a bundle whose files match their manifest; raise ``BadBundle``."""
    return _verified(folder, None)[1]


def card_of(folder: Path) -> Card:
    """Return the card of a verified bundle without opening its policy; raise ``BadBundle``."""
    files, _ = _verified(folder, None)
    return Card.from_json(_parsed(folder / CARD, files[CARD]))


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return JSON bytes that depend on the content alone; raise ``ValueError`` on NaN."""
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files beside ``folder``, then rename: it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in files.items():
            _write_durably(partial / name, data)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _holds(folder: Path, sha256: str) -> bool:
    try:
        return _verified(folder, sha256)[1] == sha256
    except BadBundle:
        return False


def _verified(folder: Path, expect_sha256: str | None) -> tuple[dict[str, bytes], str]:
    if not folder.is_dir():
        raise BadBundle(f"{folder}: no such bundle; expected a folder with {MANIFEST}")
    raw = _read(folder / MANIFEST)
    sha256 = hashlib.sha256(raw).hexdigest()
    if expect_sha256 is not None and sha256 != expect_sha256:
        raise BadBundle(
            f"{folder}: is bundle {sha256[:12]}, expected {expect_sha256[:12]}; fetch it again"
        )
    manifest = _parsed(folder / MANIFEST, raw)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or set(listed) != {POLICY, FEATURES, CARD}:
        raise BadBundle(f"{folder / MANIFEST}: does not list {POLICY}, {FEATURES} and {CARD}")
    if manifest.get("format") != FORMAT:
        raise BadBundle(
            f"{folder / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT}"
        )
    files = {name: _read(folder / name) for name in listed}
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != listed[name]:
            raise BadBundle(
                f"{folder / name}: altered: sha256 is {found[:12]}, "
                f"the manifest says {str(listed[name])[:12]}; fetch the bundle again"
            )
    return files, sha256


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadBundle(f"{path}: missing from the bundle; fetch it again") from None
    except OSError as error:
        raise BadBundle(f"{path}: cannot be read ({error})") from error


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadBundle(f"{path}: not JSON ({error})") from error


def _features_json(spec: FeatureSpec, scaler: Scaler) -> dict[str, Any]:
    return {"spec": json.loads(spec.to_json()), "scaler": json.loads(scaler.to_json())}


def _features(folder: Path, content: Any) -> tuple[FeatureSpec, Scaler]:
    if not isinstance(content, dict) or set(content) != {"spec", "scaler"}:
        raise BadBundle(f"{folder / FEATURES}: expected the keys `spec` and `scaler`")
    try:
        spec = FeatureSpec.from_json(json.dumps(content["spec"]))
        return spec, Scaler.from_json(json.dumps(content["scaler"]))
    except SpecMismatch as error:
        raise SpecMismatch(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadBundle(f"{folder / FEATURES}: scaler is misshapen ({error})") from error
