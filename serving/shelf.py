"""The registry as the worker's shelf: alias look-ups, and bundles from the verified local copies.

Owns the way from an alias to a loaded bundle. MLflow is imported by the first look-up, beside the
trading; a copy that is there and matches its hash needs no registry at all.
"""

from core.errors import BadBundle, ServiceUnavailable, UnknownVersion
from core.home import Home
from registry.bundle import Bundle, load_bundle
from serving.following import ALIAS, Published


class RegistryShelf:
    """Implements ``serving.following.Shelf`` over ``registry.models``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._hashes: dict[tuple[str, int], str] = {}  # a version never changes its bundle

    def production(self, agent: str) -> Published:
        """Return what Production is; one call to the registry once a version is known."""
        from registry.models import aliases

        number = aliases(self._home, agent).get(ALIAS)
        if number is None:
            raise UnknownVersion(
                f"{agent}: no version is {ALIAS}; `ratchet retrain {agent}` makes one"
            )
        return self.published(agent, number)

    def published(self, agent: str, number: int) -> Published:
        """Return a version by its number; raise ``UnknownVersion`` where there is none."""
        from registry.models import version

        if (agent, number) not in self._hashes:
            found = version(self._home, agent, number)
            self._hashes[agent, number] = found.bundle_sha256
        return Published(str(number), self._hashes[agent, number])

    def load(self, agent: str, published: Published) -> Bundle:
        """Return the bundle, from the local copy or fetched.

        Raises ``BadBundle`` when the copy is damaged and the registry cannot replace it.
        """
        folder = self._home.bundles / published.bundle_sha256
        try:
            return load_bundle(folder, published.bundle_sha256)
        except BadBundle as damage:
            damaged, reason = folder.exists(), damage
        from registry.models import fetch, version

        try:
            copy = fetch(self._home, version(self._home, agent, int(published.version)))
        except ServiceUnavailable as error:
            if damaged:
                raise BadBundle(f"{reason}; the registry that could replace it is away") from error
            raise
        return load_bundle(copy.folder, published.bundle_sha256)
