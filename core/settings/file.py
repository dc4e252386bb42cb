"""The file params.yaml: read once, every key once, or one ``ConfigError``."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from core.errors import ConfigError
from core.settings.params import Params
from core.settings.problems import first_problem


def load_params(path: Path) -> Params:
    """Read params.yaml; raise ``ConfigError`` naming file, key and remedy on anything wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run this in a Ratchet checkout") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    try:
        content = yaml.load(text, Loader=_OnceOnly)
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: {at}not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as `agents:`, found {content!r}")
    return parse_params(content, where=str(path))


def parse_params(content: dict[str, Any], where: str = "params") -> Params:
    """Turn plain data into ``Params``; ``where`` names the origin in error messages."""
    try:
        # YAML knows lists only, tuples are ours: JSON mode accepts one for the other.
        params = Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise first_problem(error, where, Params) from error
    except TypeError as error:
        raise ConfigError(
            f"{where}: a value is no text, number, list or section ({error})"
        ) from error
    for name in params.agents:
        params.risk_for(name, where)
    return params


class _OnceOnly(yaml.SafeLoader):
    """YAML that refuses a key given twice; the standard lets the later one win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, ((key_node, _), key) in enumerate(zip(node.value, keys, strict=True)):
            if key in keys[:number] and key != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
        return super().construct_mapping(node, deep)
