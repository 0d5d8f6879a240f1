"""The sketch of known sources: how many strangers pass as known."""

from collections import Counter

import numpy as np
import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.tables.mux_tables import SOURCE_LINES
from tests.datapath.craft import Craft
from tests.datapath.harness import Frames
from tests.datapath.plain_packet import UDP
from tests.tables.test_mux_tables import Mux, config, web

KNOWN, STRANGERS = 100_000, 20_000


@pytest.mark.slow
def test_with_100_000_sources_fewer_than_one_stranger_in_thirty_passes_as_known() -> None:
    """The limit first admits all sources, then almost none. What is forwarded then is known or passes as known."""
    mux = Mux(config(web(1, new_flows_per_s=KNOWN, flows="none") | {"protocol": "udp"}))
    assert len(mux.tables.sources) == SOURCE_LINES
    known = [Craft(source=at.to_bytes(4), protocol=UDP).frame() for at in range(KNOWN)]
    assert forwarded(mux, known) == KNOWN
    assert np.count_nonzero(mux.tables.sources) > KNOWN
    mux.load(config(web(1, new_flows_per_s=1, flows="none") | {"protocol": "udp"}))
    assert forwarded(mux, known[:1000]) == 1000
    strangers = [Craft(source=(1 << 31 | at).to_bytes(4), protocol=UDP).frame() for at in range(STRANGERS)]
    assert forwarded(mux, strangers) == pytest.approx(0, abs=STRANGERS / 30)


def forwarded(mux: Mux, frames: list[bytes]) -> int:
    batch = Frames(frames)
    mux.worker.forward(batch, 5000)
    return Counter(batch.verdict.tolist())[Verdict.FORWARDED]
