"""A signal to all who wait."""

import asyncio


class Signal:
    """Wakes all who wait: take ``next``, look at what may change, then wait for it, and no change is missed."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def send(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
