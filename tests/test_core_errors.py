"""The error tree: as drawn, each with words and an exit code."""

import inspect
import re

from core import errors


def classes() -> dict[str, type]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: dict[str, str | None] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ├└─]*)([A-Z]\w+)\s{2,}", line)
        if found:
            depth = len(found[1]) // 4
            branch = [*branch[:depth], found[2]]
            drawn[found[2]] = branch[depth - 1] if depth else "Exception"
    assert drawn == {name: value.__bases__[0].__name__ for name, value in classes().items()}


def test_every_error_says_what_it_is_and_ends_non_zero() -> None:
    for name, value in classes().items():
        assert value.__doc__, name
        assert value.exit_code > 0, name
