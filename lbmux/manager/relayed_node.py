"""A node of the pool as a place for the control client: its requests go through a manager."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from lbmux.errors import ControlError
from lbmux.manager.api_client import ApiClient, ApiError


@dataclass(frozen=True)
class RelayedNode:
    """A `lbmux.api.channel.Channel` to a node."""

    client: ApiClient
    name: str

    def lines(self, request: bytes, timeout_s: float | None) -> Iterator[bytes]:
        try:
            yield from self.client.lines(f"/v1/nodes/{quote(self.name, safe='')}/ask", request, timeout_s)
        except ApiError as error:
            raise ControlError(self.name, error.reason, error.problems) from error
