"""The bus: ZeroMQ sockets on loopback between the gateway and its agents.

Owns sockets, addresses and framing; every message is JSON. The gateway publishes bars (5557),
answers requests (5558), pulls signals (5559) and publishes feedback (5560). A publisher never
waits for a slow agent: it drops what the agent has no room for, and the agent asks again. Knows
nothing of what is said.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from core.errors import ConfigError, ServiceUnavailable
from serving.signals import NONSENSE, encode

FIRST_PORT = 5557
BARS, TICKS = "bars ", "ticks"  # topics of what is published on the first port
ROLES = ("bars", "requests", "signals", "feedback")  # on consecutive ports
REQUEST_SECONDS = 10.0
LARGEST = 1 << 20  # bytes an agent may send at once
HOST = "tcp://127.0.0.1"


class Hub:
    """The gateway's end; to be used by one thread."""

    def __init__(self, first_port: int = FIRST_PORT) -> None:
        """Bind the four ports from ``first_port`` on; 0 takes whichever are free."""
        self._context = zmq.Context()
        kinds = (zmq.PUB, zmq.REP, zmq.PULL, zmq.PUB)
        self._sockets = {
            role: self._context.socket(kind) for role, kind in zip(ROLES, kinds, strict=True)
        }
        self.addresses: dict[str, str] = {}
        for number, (role, socket) in enumerate(self._sockets.items()):
            socket.linger = 0
            socket.maxmsgsize = LARGEST
            try:
                if first_port:
                    port = first_port + number
                    socket.bind(f"{HOST}:{port}")
                else:
                    port = socket.bind_to_random_port(HOST)
            except zmq.ZMQError as error:
                self.close()
                raise ConfigError(
                    f"port {first_port + number} of the bus cannot be bound ({error}); "
                    "name the first of four free ports in RATCHET_BUS_PORT"
                ) from error
            self.addresses[role] = f"{HOST}:{port}"
        self._poller = zmq.Poller()
        for role in ("requests", "signals"):
            self._poller.register(self._sockets[role], zmq.POLLIN)

    def publish(self, role: str, topic: str, content: bytes) -> None:
        """Send to every subscriber of ``topic`` that has room."""
        self._sockets[role].send_multipart([topic.encode(), content])

    def serve(self, seconds: float, answer: Callable[[Any], Mapping[str, Any]]) -> list[bytes]:
        """Wait up to ``seconds`` for anything; answer a request, return the signals that came.

        ``answer`` gets the decoded request and may raise ``NONSENSE``: the sender is told so,
        and nobody else is harmed.
        """
        ready = dict(self._poller.poll(int(1e3 * seconds)))
        if self._sockets["requests"] in ready:
            self._answer(answer)
        signals: list[bytes] = []
        while self._sockets["signals"] in ready and len(signals) < 100:
            try:
                signals.append(self._sockets["signals"].recv(zmq.NOBLOCK))
            except zmq.Again:
                break
        return signals

    def _answer(self, answer: Callable[[Any], Mapping[str, Any]]) -> None:
        socket = self._sockets["requests"]
        message = socket.recv()
        try:
            reply = answer(json.loads(message))
        except NONSENSE as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        socket.send(encode(reply))

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._context.term()


class Line:
    """An agent's end; to be used by one thread."""

    def __init__(self, addresses: Mapping[str, str], agent: str) -> None:
        self._addresses = addresses
        self._context = zmq.Context()
        self.bars = self._subscribe("bars", BARS)
        self.feedback = self._subscribe("feedback", f"{agent} ")
        self._signals = self._context.socket(zmq.PUSH)
        self._signals.linger = 0
        self._signals.connect(addresses["signals"])
        self._poller = zmq.Poller()
        self._poller.register(self.bars, zmq.POLLIN)
        self._poller.register(self.feedback, zmq.POLLIN)

    def _subscribe(self, role: str, topic: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.SUB)
        socket.linger = 0
        socket.subscribe(topic)
        socket.connect(self._addresses[role])
        return socket

    def request(self, content: Mapping[str, Any], seconds: float = REQUEST_SECONDS) -> Any:
        """Ask the gateway; raise ``ServiceUnavailable`` when it does not answer in time."""
        return ask_gateway(self._addresses["requests"], content, seconds)

    def wait(self, seconds: float) -> None:
        """Wait until bars or feedback are there, or the time is over."""
        self._poller.poll(int(1e3 * seconds))

    def next(self, socket: "zmq.Socket[bytes]", seconds: float = 0.0) -> Any:
        """Return the next message of a subscription, or None."""
        if not socket.poll(int(1e3 * seconds)):
            return None
        _, content = socket.recv_multipart()
        return json.loads(content)

    def signal(self, message: bytes) -> None:
        self._signals.send(message)

    def close(self) -> None:
        for socket in (self.bars, self.feedback, self._signals):
            socket.close()
        self._context.term()


def ask_gateway(address: str, content: Mapping[str, Any], seconds: float) -> Any:
    """Send one request and return the reply; raise ``ServiceUnavailable`` when none comes."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(address)
        socket.send(encode(content))
        if not socket.poll(int(1e3 * seconds)):
            raise ServiceUnavailable(f"the gateway gave no answer within {seconds:g} s")
        return json.loads(socket.recv())
