"""An agent's process for tests: ``python serving_agent.py SHELF MISDEED AGENT``.

MISDEED is one of ``none``, or what the agent ``solo`` does from its fifth decision on: ``dies``,
``hangs``, ``babbles`` (no signal at all), ``invents`` (a weight that is no number), ``doubles``,
``lags`` (one bar late), ``forges`` (signs as another process), ``pretends`` (another version).
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import serving_kit as world

from serving.agent_process import AgentProcess, run
from serving.signals import Signal

HONEST = 4


class Misbehaving(AgentProcess):
    decided = 0
    kept: Signal | None = None

    def send(self, signal_: Signal) -> None:
        self.decided += 1
        if self.name != "solo" or self.decided <= HONEST:
            super().send(signal_)
            return
        misdeed = sys.argv[2]
        if misdeed == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if misdeed == "hangs":
            os.kill(os.getpid(), signal.SIGSTOP)
        if misdeed == "babbles":
            self._line.signal(b'{"agent": "solo", "weight": 1.0}')
            return
        if misdeed == "invents":
            text = signal_.encode().replace(b'"confidence":', b'"confidence":NaN,"was":')
            self._line.signal(text)
            return
        if misdeed == "lags":
            self.kept, signal_ = signal_, self.kept  # type: ignore[assignment]
        if misdeed == "forges":
            signal_ = replace(signal_, token="0" * 32)
        if misdeed == "pretends":
            signal_ = replace(signal_, version="2")
        if signal_ is not None:
            super().send(signal_)
        if misdeed == "doubles":
            super().send(signal_)


if __name__ == "__main__":
    run(sys.argv[3], world.FolderShelf(Path(sys.argv[1])), Misbehaving)
