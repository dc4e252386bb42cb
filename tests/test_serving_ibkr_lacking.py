"""What a feed lacks is told once, and its end only when nothing is lacking."""

from serving.ibkr_lacking import Lacking


def test_the_end_of_one_lack_is_not_the_end_of_all() -> None:
    told: list[tuple[str, str]] = []
    lacking = Lacking(lambda kind, detail: told.append((kind, detail)))
    lacking.tell("AAPL", "no bars of AAPL", "")
    lacking.tell("AAPL", "no bars of AAPL", "")
    lacking.tell("MSFT", "no bars of MSFT", "")
    lacking.tell("AAPL", "", "AAPL is back")
    lacking.came_back("link")
    lacking.tell("MSFT", "", "MSFT is back")
    lacking.tell("MSFT", "", "MSFT is back")
    assert told == [
        ("feed stale", "no bars of AAPL"),
        ("feed stale", "no bars of MSFT"),
        ("feed stale", "AAPL is back; but no bars of MSFT"),
        ("feed back", "link"),
        ("feed stale", "no bars of MSFT"),
        ("feed back", "MSFT is back"),
    ]
