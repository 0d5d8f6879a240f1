"""Makes the messages about the pool's view of health; one for many muxes is made once."""

from lbmux.manager.node_messages import View, encode_message
from lbmux.manager.pool_health import HealthView

Batch = tuple[int, int]
"""An epoch, and the number of a batch in it."""


class SentViews:
    def __init__(self) -> None:
        self._now: Batch = (-1, 0)
        self._messages: dict[Batch, str] = {}
        """Messages by the batch that the receiver has."""

    def message(self, view: HealthView, sent: Batch, pool: str) -> str:
        """Return what a node lacks that has all batches up to ``sent``."""
        if (now := (view.epoch, view.number)) != self._now:
            self._now, self._messages = now, {}
        if sent not in self._messages:
            lines, weights = view.since(*sent), view.weights_since(*sent)
            message = View(epoch=view.epoch, number=view.number, lines=lines, kept=view.kept, weights=weights)
            self._messages[sent] = encode_message(message, pool)
        return self._messages[sent]
