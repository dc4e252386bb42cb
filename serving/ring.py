"""A ring: the challengers of one agent, compared with its Production bar by bar.

Owns who is compared, from when, and why a comparison ends. Knows no threads; what it returns is
written to the ledger by others.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from core.accounts import State
from core.calendar import bars_per_year, decisions_per_year
from core.errors import RatchetError, ServiceUnavailable, SpecMismatch
from core.settings import Shadow
from registry.bundle import Bundle
from serving import comparison
from serving.challengers import Challengers
from serving.comparison import Comparison, Histories, Lived
from serving.following import Published
from serving.ledger import rows
from serving.ledger.reader import Reading
from serving.ledger.rows import Row
from serving.ledger.shadow_rows import ShadowBegun, ShadowEnd
from serving.logs import NAME
from serving.shadow_resume import Resumed

DECIDED = ("promote", "drop")


@dataclass(slots=True)
class Ring:
    """One agent's comparisons."""

    agent: str
    session: int
    production: str  # version of Production when the worker began
    seen: Histories
    challengers: Challengers
    settings: Shadow
    calendar: str
    turn: Callable[[], None]  # waits until there is nothing better to do
    comparisons: list[Comparison] = field(default_factory=list)
    named: tuple[Published, ...] = ()  # who is to be compared
    off: bool = False  # after a failure
    _bundles: dict[Published, Bundle] = field(default_factory=dict)
    _refused: set[Published] = field(default_factory=set)
    _places: list[tuple[str, int]] = field(default_factory=list)  # by Production, of any session
    _decided: set[tuple[str, str]] = field(default_factory=set)  # Production and challenger, ever
    _problem: str = ""  # of the newest look

    def know(self, ledger: Reading) -> list[ShadowEnd]:
        """Learn what was compared before; return verdicts on those beside the same Production."""
        ends = [e for e in ledger.rows(ShadowEnd, agent=self.agent) if e.verdict in DECIDED]
        self._decided = {(end.production_version, end.model_version) for end in ends}
        begun = ledger.rows(ShadowBegun, agent=self.agent)
        self._places = [(one.production_version, one.place) for one in begun]
        return [end for end in ends if end.production_version == self.production]

    def catch_up(self, found: Resumed, stopping: Callable[[], bool]) -> Iterator[list[Row]]:
        """Go on with recorded comparisons, through the bars since; yield rows, bar by bar."""
        self.seen, self.comparisons = found.seen, list(found.comparisons)
        for one in self.comparisons:
            self._open(one)
        self.named = tuple(one.versions[1] for one in self.comparisons)
        for lived in found.missed:
            if stopping():
                break
            yield self.live(lived, None)

    def look(self) -> None:
        """Ask who is to be compared; while the registry is away, the ones before."""
        problem = ""
        try:
            self.named = self.challengers.named(self.agent)
        except RatchetError as error:
            problem = str(error)
        if problem and problem != self._problem:
            self._log("no challengers", problem)
        self._problem = problem

    def live(self, lived: Lived, before: State | None) -> list[Row]:
        """Live through a bar of Production's; return what belongs into the ledger.

        ``before``: its sleeve after the bar before; None: nothing new begins.
        """
        batch: list[Row] = []
        for one in list(self.comparisons):
            if why := self._over(one, lived):
                self.comparisons.remove(one)
                batch.append(one.end("over", why))
        if before is not None:
            batch += self._begin(lived, before)
        self.seen.hear(lived)
        for one in list(self.comparisons):
            self.turn()
            batch.append(one.step(lived))
            if end := one.ended():
                self.comparisons.remove(one)
                self._decided.add((end.production_version, end.model_version))
                batch += [end, self.event("shadow", in_words(end, self.settings.promotes))]
        return batch

    def event(self, kind: str, detail: str) -> rows.RiskEvent:
        """Return the row of something out of the ordinary."""
        return rows.RiskEvent(
            session=self.session,
            agent=self.agent,
            bar_time=self.seen.traded.newest,
            kind=kind,
            detail=detail,
        )

    def _over(self, one: Comparison, lived: Lived) -> str:
        production, challenger = one.versions
        if production != lived.production:
            return f"Production is version {lived.production.version} now"
        if challenger not in self.named:
            return "it is neither Challenger nor named any more"
        return ""

    def _begin(self, lived: Lived, before: State) -> list[Row]:
        """Begin comparisons with who is named and not yet compared, as many as are wanted."""
        made: list[Row] = []
        running = {one.versions[1] for one in self.comparisons}
        for named in self.named:
            if len(running) >= self.settings.versions:
                break
            known = (lived.production.version, named.version) in self._decided
            if known or named in running | self._refused | {lived.production}:
                continue
            begun = self._begun(lived.production, named, before)
            one = comparison.of(begun, lived.traded.instrument, self.calendar)
            try:
                self._open(one)
            except ServiceUnavailable:
                continue  # asked again at the next bar
            except RatchetError as error:
                self._refused.add(named)
                detail = f"version {named.version}: {error}"
                self._log("shadow off", detail)
                made.append(self.event("shadow off", detail))
                continue
            self.comparisons.append(one)
            self._places.append((begun.production_version, begun.place))
            running.add(named)
            made.append(begun)
        return made

    def _begun(self, production: Published, named: Published, before: State) -> ShadowBegun:
        places = [place for version, place in self._places if version == production.version]
        return comparison.begin(
            self.session,
            self.agent,
            (production, named),
            before,
            self.seen.traded.newest,
            1 + max(places, default=0),
            (self.settings.alpha, self.settings.drop_alpha),
            self._longest(),
        )

    def _longest(self) -> int:
        """Return how many decisions an undecided challenger gets: those of so many bars."""
        one = self.seen.traded.instrument
        decided = decisions_per_year(one.interval, one.decide, self.calendar)
        return round(
            self.settings.longest_bars * decided / bars_per_year(one.interval, self.calendar)
        )

    def _open(self, one: Comparison) -> None:
        production, challenger = (self._bundle(version) for version in one.versions)
        if challenger.spec.uses_vix and not production.spec.uses_vix:
            raise SpecMismatch(
                "it looks at the VIX, for which Production does not ask the feed; it cannot run "
                "beside a version that does not"
            )
        one.open((production, challenger), self.seen)

    def _bundle(self, version: Published) -> Bundle:
        """Return a bundle of the shadows' own: none is shared with the trading."""
        if version not in self._bundles:
            self._bundles[version] = self.challengers.load(self.agent, version)
        return self._bundles[version]

    def _log(self, what: str, why: str) -> None:
        logging.getLogger(NAME).warning(what, extra={"agent": self.agent, "reason": why})


def figures(end: ShadowEnd) -> str:
    """Return what a test came to, in words."""
    return (
        f"shadow test against version {end.production_version}: {end.reason}, after {end.bars} "
        f"bars, comparison {end.place} with it"
    )


def in_words(end: ShadowEnd, promotes: bool) -> str:
    """Return a verdict, and what follows from it."""
    said = f"version {end.model_version}, {end.verdict}: {figures(end)}"
    if end.verdict != "promote" or promotes:
        return said
    return f"{said}. To promote it: {command(end)}"


def command(end: ShadowEnd) -> str:
    """Return what a person types to promote."""
    return f'ratchet promote {end.agent} {end.model_version} --by NAME --reason "{figures(end)}"'
