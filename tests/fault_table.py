"""The table of faults in docs/reliability.md: made from the list and a run's results.

``python tests/fault_table.py RESULTS.xml PAGE`` prints the table and writes it between the page's
markers; RESULTS.xml is pytest's report of test_serving_faults.py.
"""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from fault_kit import PLACES
from fault_list import FAULTS

BEGIN, END = "<!-- faults: make faults -->", "<!-- end of faults -->"
HELD, BROKEN, NOT_RUN = "held", "**BROKEN**", "not run"

Results = Mapping[tuple[str, str], str]  # by strike (flat, holding) and name


def strike_id(where: str, name: str) -> str:
    return f"{where}: {name}"


def results_of(report: Path) -> dict[tuple[str, str], str]:
    """Read what became of each strike from pytest's report."""
    found: dict[tuple[str, str], str] = {}
    for case in ET.parse(report).iter("testcase"):
        words = case.get("name", "").partition("[")[2].removesuffix("]")
        where, _, name = words.partition(": ")
        if where in PLACES:
            bad = any(case.find(tag) is not None for tag in ("failure", "error"))
            found[where, name] = BROKEN if bad else HELD
    return found


def all_held() -> dict[tuple[str, str], str]:
    return {(where, fault.name): HELD for fault in FAULTS for where in fault.strikes}


def table(results: Results) -> str:
    """Return the table in Markdown."""
    lines = ["| fault | flat | holding | told as | within | then |", "|---|---|---|---|---|---|"]
    for fault in FAULTS:
        struck = [
            results.get((where, fault.name), NOT_RUN) if where in fault.strikes else ""
            for where in PLACES
        ]
        within = (f"{fault.seconds:g} s" if fault.waits else "at once") if fault.says else ""
        told = fault.says.replace(".*", "").replace("|", " or ")
        cells = [fault.name, *struck, told, within, fault.then]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page_with(page: str, results: Results) -> str:
    """Return the page with its table made anew."""
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    if not tail:
        raise SystemExit(f"error: the page lacks the lines {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n{table(results)}\n{END}{tail}"


def main() -> None:
    report, page = Path(sys.argv[1]), Path(sys.argv[2])
    results = results_of(report)
    page.write_text(page_with(page.read_text(), results))
    held = sum(word == HELD for word in results.values())
    print(table(results))
    print(f"\n{len(FAULTS)} faults, {len(results)} strikes, {held} held")


if __name__ == "__main__":
    main()
