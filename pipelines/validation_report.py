"""The gate's report: one standalone page that says what was checked, found and taken out.

Owns wording and markup. The same data give the same page: it tells no time of its making.
"""

from html import escape

import pandas as pd

from pipelines.checks import Check

SHOWN_ROWS = 100  # of the quarantine; the Parquet file has them all

MEANING = {
    "schema": "columns, types and clock are those of bars",
    "rows": "after quarantine: times increase, prices are positive, low ≤ open, close ≤ high",
    "future_bars": "bars later than now",
    "quarantined": "fraction of the rows taken out",
    "missing_sessions": "fraction of the bars the exchange calendar expects that is absent",
    "unexplained_jump": "largest |log return| that no split or dividend explains; "
    "counts half where the volume vouches for it",
    "stale_run": "longest run of identical closes without volume, in bars",
    "stale_opens": "fraction of sessions that open exactly at the close before: quotes, not prices",
    "seams": "splits on which the price did not follow: an adjusted series would break there",
}

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{padding:.35rem .6rem;border-bottom:1px solid #d8dde6;text-align:left;vertical-align:top}
.passed{color:#17693a}.failed{color:#b3261e;font-weight:600}
code{font:13px ui-monospace,monospace}.note{color:#5b6575}
"""


def page(
    name: str, bars: pd.DataFrame, quarantined: pd.DataFrame, checks: tuple[Check, ...]
) -> str:
    """Return the page: every check, and the rows taken out with their reasons."""
    verdict = "passed" if all(check.passed for check in checks) else "failed"
    span = f"{bars.index[0]:%Y-%m-%d} to {bars.index[-1]:%Y-%m-%d}" if len(bars) else "none"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: data gate {verdict}</title>
<style>{STYLE}</style></head><body>
<h1>{escape(name)}: data gate <span class="{verdict}">{verdict}</span></h1>
<p>{len(bars)} bars may be used, {escape(span)}; {len(quarantined)} are in quarantine.</p>
<table><tr><th>check</th><th>found</th><th>required</th><th>where</th><th></th></tr>
{"".join(_check_row(check) for check in checks)}</table>
{_quarantine(quarantined)}</body></html>
"""


def _check_row(check: Check) -> str:
    verdict = "passed" if check.passed else "failed"
    cells = (check.found, check.limit, check.where)
    return (
        f"<tr><td><code>{escape(check.name)}</code><br>"
        f'<span class="note">{escape(MEANING.get(check.name, ""))}</span></td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f'<td class="{verdict}">{verdict}</td></tr>\n'
    )


def _quarantine(quarantined: pd.DataFrame) -> str:
    if quarantined.empty:
        return "<p>No row was taken out.</p>"
    head = quarantined.head(SHOWN_ROWS)
    columns = list(head.columns)
    rows = "".join(
        f"<tr><td>{escape(str(time))}</td>"
        + "".join(f"<td>{escape(_cell(value))}</td>" for value in row)
        + "</tr>\n"
        for time, row in zip(head.index, head.itertuples(index=False), strict=True)
    )
    heading = "".join(f"<th>{escape(name)}</th>" for name in ["time", *columns])
    return (
        f"<h2>Quarantined rows</h2><p>{len(head)} of {len(quarantined)} shown.</p>"
        f"<table><tr>{heading}</tr>\n{rows}</table>"
    )


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
