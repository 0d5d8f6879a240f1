"""A node that is connected to this manager as a place for the control client, in a thread of the manager."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lbmux.errors import ControlError
from lbmux.manager.relay import Relay, RelayError


@dataclass(frozen=True)
class ConnectedNode:
    """A `lbmux.api.channel.Channel` to a node; ``relay`` raises RelayError, ``loop`` is the manager's."""

    name: str
    relay: Callable[[str], Relay]
    loop: asyncio.AbstractEventLoop

    def lines(self, request: bytes, timeout_s: float | None) -> Iterator[bytes]:
        try:
            answers = self.relay(self.name).ask(request.decode())
        except RelayError as error:
            raise ControlError(self.name, error.reason) from error

        async def next_line() -> str | None:
            return await anext(answers, None)

        try:
            while True:
                line = asyncio.run_coroutine_threadsafe(next_line(), self.loop).result(timeout_s)
                if line is None:
                    return
                yield line.encode()
        except TimeoutError:
            raise ControlError(self.name, f"no answer in {timeout_s:g} s") from None
        except RelayError as error:
            raise ControlError(self.name, error.reason) from error
        finally:
            asyncio.run_coroutine_threadsafe(answers.aclose(), self.loop)
