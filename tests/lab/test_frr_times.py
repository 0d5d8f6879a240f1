"""How soon FRR notices that a mux is gone, silent or full.

Run by itself: other load on the machine would be measured too.
"""

import signal
from collections.abc import Iterator
from statistics import median

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.lab.frr_routed import frr_lab, installed, ways
from tests.lab.routed import (
    BFD_S,
    KILLED_S,
    MANY,
    SEVERAL,
    WAY,
    announcing,
    are_within,
    reload_until,
    services,
    silenced,
    until,
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with frr_lab() as lab:
        yield lab


@pytest.mark.root
@installed
@pytest.mark.parametrize("speaker", ["exabgp", "bird"])
def test_two_muxes_are_two_next_hops_until_one_stops_or_is_killed(lab: Lab, speaker: str) -> None:
    with announcing(lab, "mux1", speaker) as one:
        until(lambda: ways(lab) == {VIP: {WAY["mux1"]}})
        took_s = []
        for _ in range(SEVERAL):
            with announcing(lab, "mux2", speaker) as two:
                until(lambda: ways(lab) == {VIP: set(WAY.values())})
                two.tell(signal.SIGKILL)
                took_s.append(until(lambda: ways(lab) == {VIP: {WAY["mux1"]}}, 2))
                two.process.wait(2)
        print(f"{speaker}: withdrawn {1000 * median(took_s):.0f} ms after kill -9")
        assert are_within(took_s, KILLED_S if speaker == "bird" else 2 * KILLED_S), "FRR takes ExaBGP's end later"
        one.tell(signal.SIGTERM)
        until(lambda: not ways(lab), 2)
        assert one.process.wait(10) == 0


@pytest.mark.root
@installed
def test_with_bfd_a_silent_speaker_is_withdrawn_before_the_hold_time(lab: Lab) -> None:
    with announcing(lab, "mux1", "bird", "--bfd") as mux:
        took_s = [silenced(mux, lambda: bool(ways(lab))) for _ in range(SEVERAL)]
        print(f"withdrawn {1000 * median(took_s):.0f} ms after SIGSTOP of the speaker, with BFD")
        assert are_within(took_s, BFD_S)


@pytest.mark.root
@installed
def test_a_thousand_vips_are_in_the_kernel_within_two_seconds_of_a_reload(lab: Lab) -> None:
    lab.write_config(services(MANY))  # tables are sized for the services at the start
    with announcing(lab, "mux1", "bird") as mux:
        until(lambda: len(ways(lab)) == MANY, pause_s=0.05)
        lab.write_config(services(2))
        assert mux.reload().returncode == 0
        until(lambda: len(ways(lab)) == 2, 10, 0.05)
        lab.write_config(services(MANY))
        took_s = reload_until(mux, lambda: len(ways(lab)) == MANY)
        print(f"{MANY} VIPs in the router's kernel {took_s:.2f} s after the reload was asked for")
        assert took_s < 2
