"""Where Ratchet keeps its state: one folder, moved by the environment variable RATCHET_HOME.

Owns the layout of that folder. Creates nothing until a caller asks for a path with ``make``.
"""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one Ratchet installation's state; two homes share nothing."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """Return the home RATCHET_HOME names, or ``.ratchet`` beside params.yaml."""
        named = os.environ.get("RATCHET_HOME")
        return cls(Path(named).expanduser().resolve() if named else PROJECT / ".ratchet")

    @property
    def is_default(self) -> bool:
        return self.root == PROJECT / ".ratchet"

    @property
    def workspace(self) -> Path:
        """Folder with dvc.yaml, params.yaml, manifests/ and data/ of this home.

        The checkout itself for the default home, so that flows and a hand-typed ``dvc repro``
        are the same thing; a folder inside any other home, so that homes never meet.
        """
        return PROJECT if self.is_default else self.root / "workspace"

    @property
    def params_file(self) -> Path:
        return self.workspace / "params.yaml"

    @property
    def store(self) -> Path:
        """Raw bars and corporate actions, append-only."""
        return self.root / "store"

    @property
    def data(self) -> Path:
        """Datasets, rebuilt by DVC."""
        return self.workspace / "data"

    @property
    def ledger(self) -> Path:
        """What the worker saw, decided, ordered and filled (SQLite)."""
        return self.root / "ledger.db"

    @property
    def kill(self) -> Path:
        """While this file is there, nobody trades."""
        return self.root / "KILL"

    @property
    def shadows(self) -> Path:
        """Versions that a person lets run beside Production, by agent."""
        return self.root / "shadows.json"

    @property
    def promotions(self) -> Path:
        """Every alias change and every look at a hold-out (SQLite)."""
        return self.root / "promotions.db"

    @property
    def studies(self) -> Path:
        """Optuna studies (SQLite)."""
        return self.root / "studies.db"

    @property
    def checkpoints(self) -> Path:
        """Trainings that are under way, by the hash of their lesson; gone when they end."""
        return self.root / "checkpoints"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def bundles(self) -> Path:
        """Verified copies of Production bundles: the worker lives on these without MLflow."""
        return self.root / "bundles"

    @property
    def experience(self) -> Path:
        """What each agent lived through while trading, merged with history."""
        return self.root / "experience"

    @property
    def drift(self) -> Path:
        """What each agent's last look for drift left for the next."""
        return self.root / "drift"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def locks(self) -> Path:
        """Lock files; the kernel frees a lock when its process dies."""
        return self.root / "locks"

    @property
    def services(self) -> Path:
        """Where Prefect, MLflow and the worker of this home run (JSON, while they run)."""
        return self.root / "services.json"

    def make(self, path: Path) -> Path:
        """Create the folder ``path`` of this home (parents too) and return it."""
        path.mkdir(parents=True, exist_ok=True)
        return path
