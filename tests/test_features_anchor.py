import pandas as pd
from features_kit import daily_index, intraday_index

from features.anchor import Period, history_start, newest_period, periods


def test_daily_rows_start_at_the_first_bar_of_the_year_two_years_before():
    index = daily_index(1200, "2000-01-03")
    found = periods(index, "1d", 2)
    first = {int(year): int((index.year < year).sum()) for year in index.year.unique()}
    assert found[0] == Period(0, 0, first[2001])
    assert found[2] == Period(0, first[2002], first[2003])
    assert found[3] == Period(first[2001], first[2003], first[2004])
    assert history_start(index, "1d", 2) == first[2002]


def test_intraday_rows_start_so_many_days_with_bars_before():
    index = intraday_index(days=7, minutes=30)
    found = periods(index, "15m", 2)
    assert len(found) == 7
    assert found[0] == Period(0, 0, 13)
    assert found[1] == Period(0, 13, 26)
    assert found[6] == Period(4 * 13, 6 * 13, 7 * 13)  # over the weekend: days with bars count


def test_periods_cover_every_row_once():
    index = daily_index(800).append(daily_index(300, "2010-06-01"))
    found = periods(pd.DatetimeIndex(index), "1d", 1)
    assert [p.first for p in found[1:]] == [p.stop for p in found[:-1]]
    assert (found[0].first, found[-1].stop) == (0, 1100)
    assert all(p.anchor <= p.first < p.stop for p in found)


def test_the_newest_period_is_the_last_of_all():
    daily, minutes = daily_index(1200, "2000-01-03"), intraday_index(days=9, minutes=30)
    for index, interval in ((daily, "1d"), (minutes, "15m")):
        for length in (1, 2, 13, 14, 26, 27, 66, 117, 260, 261, 262, 800, 1200):
            some = index[:length]
            for anchor in (1, 2, 5):
                expected = periods(some, interval, anchor)[-1]
                assert newest_period(some, interval, anchor) == expected
