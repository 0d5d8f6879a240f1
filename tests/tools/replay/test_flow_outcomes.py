"""Flows whose backends change: which are broken, lost or draining, and by which change."""

import random
from pathlib import Path

import numpy as np
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.tools.replay.captured_flows import BROKEN, LOST, CapturedFlows, plain_worker
from lbmux.tools.replay.flow_outcomes import FIRST_CAPACITY, Effect, FlowOutcomes
from tests.frames.captures import pcap, record

ETHER = Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08")

KEYS = [("web", f"h{number}") for number in range(4)]
IDENTITIES = {key: 100 + number for number, key in enumerate(KEYS)}
"""Backends 0 to 3."""


class Replayed:
    """One packet each of some flows, again and again, with the backends that a mux might give them."""

    def __init__(self, directory: Path, flows: int = 1) -> None:
        frames = [bytes(ETHER / IP(dst="192.0.2.1") / UDP(sport=1024 + flow, dport=53)) for flow in range(flows)]
        (directory / "in").write_bytes(pcap(*map(record, frames)))
        self.frames = CapturedFrames()
        with CaptureReader(directory / "in") as reader:
            reader.read(self.frames)
        self.flows = CapturedFlows(plain_worker(), every=True)
        self.outcomes = FlowOutcomes(self.flows)
        self.outcomes.update(IDENTITIES, [], is_change=False)

    def send(self, *backends: int) -> None:
        """Forward a packet of each flow. Backend -1: the packet is dropped."""
        rows = np.array(backends, np.int64)
        self.flows.add(self.frames)
        self.frames.verdict[: self.frames.count] = np.where(rows < 0, Verdict.NO_BACKEND, Verdict.FORWARDED)
        self.outcomes.add(self.frames, rows)

    def change(self, without: tuple[int, ...] = (), removing: tuple[int, ...] = ()) -> None:
        present = {key: identity for key, identity in IDENTITIES.items() if KEYS.index(key) not in without}
        self.outcomes.update(present, [KEYS[number] for number in removing], is_change=True)

    def bits(self) -> list[int]:
        return [int(row["seen"]) & (BROKEN | LOST) for row in self.flows.records]


def test_flow_that_stays_is_not_broken(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path, 2)
    replayed.send(0, 1)
    replayed.change()
    replayed.send(0, 1)
    assert replayed.outcomes.effects() == [Effect(2, 0, 0, 0)]
    assert (replayed.bits(), replayed.outcomes.backends()) == ([0, 0], [[0], [1]])


def test_flow_that_moves_from_a_backend_that_is_up_is_broken(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path, 2)
    replayed.send(0, 1)
    replayed.change()
    replayed.send(2, 1)
    replayed.send(2, 1)
    assert replayed.outcomes.effects() == [Effect(2, 1, 0, 0)]
    assert (replayed.bits(), replayed.outcomes.backends()) == ([BROKEN, 0], [[0, 2], [1]])


def test_flow_whose_backend_is_gone_is_lost(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path, 2)
    replayed.send(0, 0)
    replayed.change(without=(0,))
    replayed.send(3, -1)
    replayed.send(3, -1)
    assert replayed.outcomes.effects() == [Effect(2, 0, 2, 0)]
    assert (replayed.bits(), replayed.outcomes.backends()) == ([LOST, LOST], [[0, 3], [0]])


def test_loss_counts_for_the_change_that_took_the_backend(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    replayed.send(0)
    replayed.change(without=(0,))
    replayed.change(without=(0, 1))
    replayed.send(2)
    assert replayed.outcomes.effects() == [Effect(1, 0, 1, 0), Effect(1, 0, 0, 0)]


def test_break_counts_for_the_last_change_before_it(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    replayed.send(0)
    replayed.change()
    replayed.send(0)
    replayed.change()
    replayed.send(1)
    replayed.change()
    replayed.send(0)
    assert [effect.broken for effect in replayed.outcomes.effects()] == [0, 1, 1]
    assert replayed.outcomes.backends() == [[0, 1, 0]]


def test_flow_that_stays_with_a_removed_backend_is_draining_once(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path, 2)
    replayed.send(0, 1)
    replayed.change(removing=(0,))
    replayed.send(0, 1)
    replayed.send(0, 1)
    replayed.change(removing=(0,))
    replayed.send(0, 1)
    assert replayed.outcomes.effects() == [Effect(2, 0, 0, 1), Effect(2, 0, 0, 0)]


def test_a_flow_of_a_removed_backend_that_moves_is_broken(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    replayed.send(0)
    replayed.change(removing=(0,))
    replayed.send(1)
    assert replayed.outcomes.effects() == [Effect(1, 1, 0, 0)]


def test_dropped_packet_breaks_nothing(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    replayed.send(-1)
    replayed.send(0)
    replayed.change()
    replayed.send(-1)
    replayed.send(0)
    assert replayed.outcomes.effects() == [Effect(1, 0, 0, 0)]
    assert replayed.outcomes.backends() == [[0]]


def test_backend_that_comes_back_is_up_again(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    replayed.send(0)
    replayed.change(without=(0,))
    replayed.change()
    replayed.send(1)
    assert [(effect.broken, effect.lost) for effect in replayed.outcomes.effects()] == [(0, 0), (1, 0)]


def test_renamed_backend_is_the_same(tmp_path: Path) -> None:
    outcomes = Replayed(tmp_path).outcomes
    outcomes.update({("web", "new"): IDENTITIES[KEYS[2]]}, [], is_change=True)
    assert outcomes.number(IDENTITIES[KEYS[2]]) == 2


def test_more_moves_than_at_first_fit(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path)
    for packet in range(FIRST_CAPACITY + 1):
        replayed.send(packet % 2)
    assert replayed.outcomes.backends() == [[packet % 2 for packet in range(FIRST_CAPACITY + 1)]]


class Plain:
    """What the compiled code counts, for flows that each send one packet a batch."""

    def __init__(self, flows: int) -> None:
        self.effects = [[0, 0, 0, 0]]
        self.backends: list[list[int]] = [[] for _ in range(flows)]
        self.held, self.changes = [-1] * flows, [0] * flows
        self.gone, self.removing = [0] * len(KEYS), [0] * len(KEYS)

    def change(self, without: tuple[int, ...], removing: tuple[int, ...]) -> None:
        self.effects.append([0, 0, 0, 0])
        now = len(self.effects) - 1
        self.gone = [(was or now) if at in without else 0 for at, was in enumerate(self.gone)]
        self.removing = [(was or now) if at in removing else 0 for at, was in enumerate(self.removing)]

    def send(self, *backends: int) -> None:
        now = len(self.effects) - 1
        for flow, target in enumerate(backends):
            held, self.held[flow] = self.held[flow], target
            for change in range(self.changes[flow] + 1, now + 1):
                self.effects[change][0] += 1
            if held >= 0 and target != held and self.gone[held]:
                self.effects[self.gone[held]][2] += 1
            elif held >= 0 and target not in (held, -1):
                self.effects[now][1] += 1
            elif held >= 0 and target == -1:
                self.held[flow] = held
            elif held >= 0 and self.removing[held] > self.changes[flow]:
                self.effects[self.removing[held]][3] += 1
            self.changes[flow] = now
            if target not in (-1, held):
                self.backends[flow].append(target)


def test_random_changes_are_counted_as_plain_code_does(tmp_path: Path) -> None:
    pick, flows = random.Random(5), 20
    replayed, plain = Replayed(tmp_path, flows), Plain(flows)
    backends = [pick.randrange(4) for _ in range(flows)]
    replayed.send(*backends)
    plain.send(*backends)
    for _ in range(200):
        if pick.random() < 0.3:
            without, removing = (tuple(at for at in range(4) if pick.random() < 0.3) for _ in range(2))
            removing = tuple({*removing} - {*without})
            replayed.change(without, removing)
            plain.change(without, removing)
        backends = [pick.randrange(-1, 4) if pick.random() < 0.2 else backend for backend in backends]
        replayed.send(*backends)
        plain.send(*backends)
    assert [[*vars(effect).values()] for effect in replayed.outcomes.effects()] == plain.effects[1:]
    assert replayed.outcomes.backends() == plain.backends
