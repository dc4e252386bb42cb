"""What is wrong in params.yaml, in words: file, key, what was found, what would do."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from core.errors import ConfigError, UnknownKey


def first_problem(
    error: ValidationError,
    where: str,
    section: type[BaseModel],
    prefix: tuple[str, ...] = (),
) -> ConfigError:
    """Name the first problem of ``section``, which stands at ``prefix`` of the file."""
    problem = error.errors(include_url=False)[0]
    location = problem["loc"]
    # pydantic names the branch of a union, "tuple[str, ...]", as if it were a key.
    key = ".".join(str(part) for part in (*prefix, *location) if "[" not in str(part))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(section, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return UnknownKey(f"{where}: unknown key `{key}`; {hint}")
    message = problem["msg"].removeprefix("Value error, ")
    found = problem.get("input")
    shown = f", found {found!r}" if not isinstance(found, dict) else ""
    return ConfigError(f"{where}: `{key}`: {message}{shown}")


def _known_keys(section: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation
        else:
            section = get_args(section)[-1]  # dict[str, Agent]: every key leads to an Agent
    return sorted(section.model_fields)
