"""A VIP that the connections of an experiment do not use: what floods and crowds are sent to, and how muxes take it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from lbmux.api.requests import GetHistory
from lbmux.lab.scoreboard.crowd import ADDRESSES
from lbmux.lab.topology import ECHO_PORT

if TYPE_CHECKING:
    from lbmux.lab.scoreboard.system_under_test import SystemUnderTest

OTHER_VIP = "192.0.2.2"


class OtherVip:
    def __init__(self, system: "SystemUnderTest") -> None:
        self._system = system
        self._sent: tuple[float, float] | None = None
        """When packets were sent to it: beginning and end, in seconds since 1970."""

    def send(self, sender: Callable[[str, int], object]) -> None:
        """Have the client send to the VIP, once the routers know it."""
        for router in self._system.scenario.next_hops:
            self._system.wait_for(lambda: len(self._system.next_hops(router, OTHER_VIP)) > 0, f"route to {OTHER_VIP}")  # noqa: B023 -- called within the turn
        begun = time.time()
        self._system.lab.inside("client", lambda: sender(OTHER_VIP, ECHO_PORT))
        self._sent = begun, time.time()

    def crowd_addresses(self, what: Literal["add", "del"]) -> None:
        """Give the client the addresses of a crowd, or take them away."""
        command = ["ip", "route", what, "local", str(ADDRESSES), "dev", "lo"]
        self._system.lab.run("client", command, check=True, capture_output=True)

    def isolation(self) -> tuple[float | None, float | None]:
        """Return when the last forwarder isolated the VIP that was sent to, from the beginning of that, and when it was
        back everywhere, from its end, in milliseconds; None: that did not happen, or nothing was sent.
        """
        if self._sent is None:
            return None, None
        (begun, ended), self._sent = self._sent, None
        began, back = list[float](), list[float]()
        for node in self._system.scenario.forwarders:
            for event in self._system.client(node).ask(GetHistory(begun)).events:
                if event.text.startswith(f"VIP {OTHER_VIP} is a black hole"):
                    began.append(1000 * (event.time - begun))
                elif event.text.startswith(f"VIP {OTHER_VIP} is no longer"):
                    back.append(1000 * (event.time - ended))
        return max(began, default=None), max(back, default=None)
