"""Stage ``own``: which code the user's own features have at this moment.

``python -m pipelines.own``. Writes ``data/own.json``: the hash of the module of each column that
params.yaml calls by its import path. Where that code lies only Python knows, so DVC cannot depend
on it: this stage runs whenever DVC looks, and ``featurize`` depends on what it writes.
"""

import json
import sys

from core.home import Home
from core.settings import Params
from pipelines.stage import main_of_all
from sources.files import write_whole


def run(home: Home, params: Params) -> None:
    """Write the hashes; raise ``ConfigError`` where a column cannot be imported."""
    named = [name for name in params.features.indicators if ":" in name]
    found = {}
    if named:
        from features.own import own_sha256

        found = {name: own_sha256(name) for name in named}
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    write_whole(home.make(home.data) / "own.json", text.encode())


if __name__ == "__main__":
    sys.exit(main_of_all(run))
