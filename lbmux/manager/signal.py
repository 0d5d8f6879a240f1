"""A signal that wakes every waiting task."""

import asyncio


class Signal:
    """Wakes all waiting tasks. To miss no change, take ``next``, read the state, then wait for ``next``."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def send(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
