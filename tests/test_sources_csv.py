"""The csv source: what it reads, and the one clear error for what it does not."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from data_kit import NOW, csv_text, day, market

from core.errors import BadBars
from sources.csv import CsvFile
from sources.port import as_traded

GOOD = """Date,Open,High,Low,Close,Volume
2024-01-02,10,11,9,10.5,1000
2024-01-03,10.5,12,10,11,2000
2024-01-04,11,11.5,10.5,11.2,1500
"""


def read(tmp_path: Path, content: str | bytes, interval: str = "1d", now: datetime = NOW):  # type: ignore[no-untyped-def]
    path = tmp_path / "own.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CsvFile(path).fetch("OWN", interval, None, now)


def test_daily_bars_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.convention == "as_traded"
    assert found.frame.index[0] == day("2024-01-02")
    assert found.frame.close.tolist() == [10.5, 11.0, 11.2]
    assert found.frame.split_ratio.tolist() == [1.0, 1.0, 1.0]


def test_a_byte_order_mark_spaces_and_case_do_not_matter(tmp_path: Path) -> None:
    text = "\ufeff" + GOOD.replace("Date,Open", "date, open").replace(",", " ,")
    assert len(read(tmp_path, text).frame) == 3


def test_intraday_times_without_offset_are_new_york_time(tmp_path: Path) -> None:
    text = "Datetime,Open,High,Low,Close,Volume\n"
    winter, summer = "2024-01-02 09:30:00", "2024-06-03 09:30:00-04:00"
    text += "".join(f"{time},10,11,9,10,5\n" for time in (winter, summer))
    index = read(tmp_path, text, "5m").frame.index
    assert index.tolist() == [day("2024-01-02 14:30"), day("2024-06-03 13:30")]


def test_files_that_yfinance_wrote_are_read_as_split_adjusted(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
        "2024-01-02 00:00:00-05:00,25,26,24,25,4000,0.0,0.0\n"
        "2024-01-03 00:00:00-05:00,25,26,24,25.5,4000,0.1,0.0\n"
        "2024-01-04 00:00:00-05:00,25.5,26,25,25.2,4000,0.0,4.0\n"
    )
    found = read(tmp_path, text)
    assert found.convention == "split_adjusted"
    bars = as_traded(found.frame, found.convention)
    assert bars.close.tolist() == [100.0, 102.0, 25.2]
    assert bars.volume.tolist() == [1000.0, 1000.0, 4000.0]
    assert bars.dividend.tolist() == [0.0, 0.4, 0.0]


def test_raw_prices_with_splits_are_read_as_traded(tmp_path: Path) -> None:
    text = GOOD.replace("Volume", "Volume,Stock Splits").replace("000\n", "000,0\n")
    text = text.replace("11,11.5,10.5,11.2,1500", "5.5,6,5,5.6,3000,2")
    found = read(tmp_path, text)
    assert found.convention == "as_traded"
    assert found.frame.split_ratio.tolist() == [1.0, 1.0, 2.0]


def test_an_adjusted_close_tells_the_dividends(tmp_path: Path) -> None:
    bars = market()
    lines = csv_text(bars).splitlines()
    ex_date = 40
    factor = np.where(np.arange(len(bars)) < ex_date, 1 - 0.5 / bars.close.iloc[ex_date - 1], 1.0)
    adjusted = [f",{value:.6f}" for value in bars.close * factor]
    text = "\n".join(
        [lines[0] + ",Adj Close", *(a + b for a, b in zip(lines[1:], adjusted, strict=True))]
    )
    found = read(tmp_path, text).frame.dividend
    assert found[found > 0].to_dict() == {bars.index[ex_date]: pytest.approx(0.5, abs=0.002)}


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BAD: list[tuple[str, str | bytes, str]] = [
    ("empty", "", r"own.csv: is empty; expected a header"),
    ("only a header", GOOD.splitlines()[0], "has a header and no bars"),
    ("missing column", "Date,Open,High,Low,Close\n2024-01-02,1,1,1,1\n", "no column `Volume`"),
    ("renamed column", changed("Close", "Closing"), "no column `Close`; rename `Closing`"),
    ("no date", changed("Date", "When"), "line 1: no column `Date`"),
    (
        "unknown column",
        GOOD.replace("Volume", "Volume,Dividend").replace("00\n", "00,0\n"),
        "column `Dividend` does not belong here; known columns: .*Dividends",
    ),
    ("repeated column", changed("High", "Open"), "no column `High`"),
    (
        "repeated date",
        changed("2024-01-03", "2024-01-02"),
        "line 3, column Date: '2024-01-02' appears twice",
    ),
    (
        "unordered dates",
        changed("2024-01-04", "2024-01-01"),
        "line 4, column Date: '2024-01-01' is earlier",
    ),
    (
        "not a date",
        changed("2024-01-03", "01/03/2024"),
        "line 3, column Date: '01/03/2024' is no time",
    ),
    (
        "impossible date",
        changed("2024-01-03", "2024-02-30"),
        "line 3, column Date: '2024-02-30' is no time",
    ),
    (
        "future date",
        changed("2024-01-04", "2034-01-04"),
        "line 4, column Date: '2034-01-04' is later than now",
    ),
    ("NaN", changed("12,10", "NaN,10"), "line 3, column High: 'NaN' is not a number"),
    ("missing value", changed("12,10", ",10"), "line 3, column High: '' is not a number"),
    ("infinite", changed("12,10", "inf,10"), "line 3, column High: 'inf' is not a number"),
    ("text", changed("1500", "many"), "line 4, column Volume: 'many' is not a number"),
    ("zero price", changed("10,11,9", "10,11,0"), "line 2, column Low: 0 must be above zero"),
    (
        "negative price",
        changed("10,11,9", "-10,11,9"),
        "line 2, column Open: -10 must be above zero",
    ),
    ("negative volume", changed("1500", "-1500"), "line 4, column Volume: -1500 is negative"),
    (
        "high below low",
        changed("11,11.5,10.5", "11,10,10.5"),
        "line 4, column High: 10 is below the low",
    ),
    (
        "close above high",
        changed("11.2,1500", "13,1500"),
        "line 4, column Close: 13 is above the high",
    ),
    ("too many cells", changed("2000", "2000,3,4"), "not a table of comma-separated cells"),
    (
        "wrong encoding",
        "Date,Open,Ré\n".encode("latin-1"),
        "line 1 is not UTF-8.*0xe9.*save the file as UTF-8",
    ),
    ("utf-16", GOOD.encode("utf-16"), "is not UTF-8"),
    ("a blank line", changed("2024-01-03", "\n2024-01-03"), "line 3, column Date: '' is no time"),
]


@pytest.mark.parametrize(
    ("content", "message"), [case[1:] for case in BAD], ids=[c[0] for c in BAD]
)
def test_a_fault_is_refused_by_file_line_and_column(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(BadBars, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "own.csv") in str(caught.value)


def test_a_file_that_mixes_raw_and_adjusted_splits_is_refused(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Volume,Stock Splits\n"
        "2024-01-02,100,101,99,100,1000,0\n2024-01-03,50,51,49,50,1000,2\n"
        "2024-01-04,50,51,49,50,1000,2\n"
    )
    with pytest.raises(BadBars, match="line 4, column Stock Splits: the price does not follow"):
        read(tmp_path, text)


def test_daily_bars_asked_for_as_minutes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match="bars of 5m need a column `Datetime`, found `Date`"):
        read(tmp_path, GOOD, "5m")


def test_a_time_that_the_clock_change_skips_is_refused(tmp_path: Path) -> None:
    text = "Datetime,Open,High,Low,Close,Volume\n2024-03-10 02:30:00,10,11,9,10,5\n"
    with pytest.raises(BadBars, match="line 2, column Datetime: '2024-03-10 02:30:00' is no time"):
        read(tmp_path, text, "5m")


def test_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match=r"nowhere.csv: no such file"):
        CsvFile(tmp_path / "nowhere.csv").fetch("OWN", "1d", None, datetime(2024, 1, 1, tzinfo=UTC))
