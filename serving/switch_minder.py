"""The switch's minder: what the kill switch means to the sleeves of a running worker.

Owns what they were last told, also before a restart. The switch itself is a file
(``serving/switch.py``); what a stopped sleeve does is the sleeve's own.
"""

from core.home import Home
from core.settings import Params
from serving import switch
from serving.alerts import KILLED, RELEASED
from serving.floor import Floor
from serving.ledger import rows
from serving.noting import Notes


class SwitchMinder:
    """Stops the sleeves when the switch is pressed, and lets them go when it is released."""

    def __init__(self, home: Home, params: Params, floor: Floor, notes: Notes) -> None:
        self._home = home
        self._params = params
        self._floor = floor
        self._notes = notes
        self._press: switch.Press | None = None  # as the sleeves know it

    def recall(self) -> None:
        """After a start: know again what the sleeves were told of the switch before."""
        events = self._floor.ledger.rows(rows.RiskEvent, session=self._floor.session, agent="")
        told = [event for event in events if event.kind in (KILLED, RELEASED)]
        if not told or told[-1].kind == RELEASED:
            return
        self._press = switch.pressed(self._home)
        if self._press is None:
            released = "the kill switch was released while nobody traded"
            for name in self._floor.seats:
                self._notes.agent(name, "let go", released)
            self._notes.account(RELEASED, "while nobody traded")
        elif self._press.words == told[-1].detail:
            for name, seat in self._floor.seats.items():
                seat.sleeve.stopped_by(self._policy(name, self._press))
        else:
            self._press = None  # pressed anew

    def look(self) -> None:
        """Stop every sleeve when the switch is pressed; let them trade when it is released."""
        press = switch.pressed(self._home)
        if press == self._press:
            return
        if press is None:
            for name, seat in self._floor.seats.items():
                seat.sleeve.stopped_by(None)
                self._notes.agent(name, "let go", "the kill switch was released")
            self._notes.account(RELEASED, "trading goes on from the next close")
        else:
            for name, seat in self._floor.seats.items():
                policy = self._policy(name, press)
                seat.sleeve.stop(policy, press.words)
                self._notes.agent(name, "stopped", f"by the kill switch, policy {policy}")
            # Last, so that a start after a crash in between stops those that were left.
            self._notes.account(KILLED, press.words)
        self._press = press

    def _policy(self, agent: str, press: switch.Press) -> switch.Policy:
        return press.policy or self._params.agent(agent).when_stopped
