"""pcapng files read: sections, interfaces, packet blocks of all kinds, blocks to pass over, and damage."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter

from lbmux.errors import CaptureError
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import LARGEST_BYTES, REASONS, CapturedFrames, ScanEnd
from tests.frames.captures import (
    Read,
    block,
    enhanced,
    interface,
    obsolete,
    read_all,
    read_bytes,
    record,
    section,
    simple,
)

FRAME = bytes(range(64))
IPV4 = b"\x45" + bytes(39)
START = section() + interface()
UNKNOWN_BLOCK = 0x80000BAD


def reason_of(error: CaptureError | None) -> tuple[int, str]:
    assert error is not None
    return error.offset, error.reason


class TestBlocks:
    def test_enhanced(self, tmp_path: Path) -> None:
        frames, error = read_bytes(tmp_path, START + enhanced(FRAME[:61], 5_000_001) + enhanced(FRAME, 2**40))
        assert (frames, error) == ([Read(FRAME[:61], 5_000_001_000), Read(FRAME, 2**40 * 1000)], None)

    def test_big_endian(self, tmp_path: Path) -> None:
        content = section(">") + interface(order=">") + enhanced(FRAME, 7, order=">") + obsolete(FRAME, 8, order=">")
        assert read_bytes(tmp_path, content) == ([Read(FRAME, 7000), Read(FRAME, 8000)], None)

    def test_simple_has_the_time_of_the_packet_before(self, tmp_path: Path) -> None:
        frames, _ = read_bytes(tmp_path, START + simple(FRAME) + enhanced(FRAME, 3) + simple(FRAME))
        assert [read.time_ns for read in frames] == [0, 3000, 3000]

    def test_simple_is_cut_to_the_snap_length(self, tmp_path: Path) -> None:
        content = section() + interface(snap=60) + simple(FRAME[:60], original=64)
        assert read_bytes(tmp_path, content)[0] == [Read(FRAME[:60] + bytes(4), 0, missing=4)]

    def test_obsolete(self, tmp_path: Path) -> None:
        content = START + interface() + obsolete(FRAME, 9, number=1)
        assert read_bytes(tmp_path, content) == ([Read(FRAME, 9000, interface=1)], None)

    def test_comment_on_a_packet(self, tmp_path: Path) -> None:
        content = START + enhanced(FRAME, comment=b"a word on it") + enhanced(FRAME)
        assert read_bytes(tmp_path, content) == ([Read(FRAME, 0)] * 2, None)

    def test_zero_length_packet(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, START + enhanced(b""))[0] == [Read(b"", 0)]

    @pytest.mark.parametrize("size", [0, 4, 5000, 3_000_000], ids=["empty", "small", "middle", "over the buffer"])
    def test_unknown_blocks_are_passed_over(self, tmp_path: Path, size: int) -> None:
        unknown = block(UNKNOWN_BLOCK, bytes(size))
        content = section() + unknown + interface() + unknown + enhanced(FRAME) + unknown + enhanced(FRAME)
        assert read_bytes(tmp_path, content) == ([Read(FRAME, 0)] * 2, None)

    def test_no_packets(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, START) == ([], None)


class TestInterfaces:
    def test_link_types_side_by_side(self, tmp_path: Path) -> None:
        content = START + interface(101) + enhanced(FRAME) + enhanced(IPV4, number=1)
        raw = bytes(12) + b"\x08\x00" + IPV4
        assert read_bytes(tmp_path, content)[0] == [Read(FRAME, 0), Read(raw, 0, interface=1)]

    @pytest.mark.parametrize(
        ("resolution", "units", "time_ns"),
        [(0, 3, 3_000_000_000), (3, 5, 5_000_000), (6, 7, 7_000), (9, 123, 123), (12, 5_999, 5), (28, 2**63, 0),
         (100, 2**63, 0), (0x80, 2, 2_000_000_000), (0x81, 3, 1_500_000_000), (0x80 | 10, 1025, 1_000_976_562),
         (0x80 | 32, 3 << 31, 1_500_000_000), (0x80 | 40, 3 << 39, 1_500_000_000), (0xFF, 2**63, 0)],
    )  # fmt: skip
    def test_units_of_time(self, tmp_path: Path, resolution: int, units: int, time_ns: int) -> None:
        content = section() + interface(resolution=bytes([resolution])) + enhanced(FRAME, units)
        assert read_bytes(tmp_path, content)[0] == [Read(FRAME, time_ns)]

    def test_time_offset(self, tmp_path: Path) -> None:
        content = section() + interface(name=b"eth0", offset=struct.pack("<q", -3)) + enhanced(FRAME, 5_000_000)
        assert read_bytes(tmp_path, content)[0] == [Read(FRAME, 2_000_000_000)]

    def test_more_than_sixteen(self, tmp_path: Path) -> None:
        content = section() + b"".join(interface(resolution=bytes([3 + at % 2])) for at in range(40))
        content += enhanced(FRAME, 1, number=39)
        assert read_bytes(tmp_path, content)[0] == [Read(FRAME, 100_000, interface=39)]

    def test_a_new_section_has_its_own(self, tmp_path: Path) -> None:
        second = section(">") + interface(101, order=">") + enhanced(IPV4, 1, order=">")
        frames, error = read_bytes(tmp_path, START + interface() + enhanced(FRAME, number=1) + second)
        assert error is None
        assert frames[1] == Read(bytes(12) + b"\x08\x00" + IPV4, 1000)

    @pytest.mark.parametrize(
        ("content", "raw", "nanoseconds"),
        [(interface(), False, False), (interface(101), True, False), (interface(resolution=b"\x09"), False, True),
         (interface(113), False, False), (interface(105, resolution=b"\x09"), True, False),
         (interface(105) + enhanced(FRAME) + interface(101), True, False),
         (block(UNKNOWN_BLOCK, bytes(2_000_000)) + interface(101), True, False)],
    )  # fmt: skip
    def test_the_first_interface_decides_the_output_format(
        self, tmp_path: Path, content: bytes, raw: bool, nanoseconds: bool
    ) -> None:
        (tmp_path / "capture").write_bytes(section() + content + interface(229) + enhanced(FRAME))
        with CaptureReader(tmp_path / "capture") as reader:
            assert (reader.raw, reader.nanoseconds) == (raw, nanoseconds)


class TestForeignLinkTypes:
    """Packets of link types that are not known (802.11, USB) beside others."""

    @pytest.mark.parametrize("size", [0, 64, 5000, 3_000_000], ids=["empty", "small", "middle", "over the buffer"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_skipped_and_counted(self, tmp_path: Path, size: int, order: str) -> None:
        content = section(order) + interface(105, order) + interface(1, order) + interface(220, order)
        for number, data in ((0, bytes(size)), (1, FRAME), (0, bytes(size)), (2, bytes(size)), (1, FRAME)):
            content += enhanced(data, number=number, order=order)
        content += obsolete(FRAME, number=0, order=order) + simple(FRAME, order=order)
        (tmp_path / "capture").write_bytes(content)
        frames, count = CapturedFrames(), 0
        with CaptureReader(tmp_path / "capture") as reader:
            for batch in reader.batches(frames):
                count += batch.count
            assert (count, reader.skipped) == (2, {105: 4, 220: 1})

    def test_counted_once_over_batches_chunks_and_sections(self, tmp_path: Path) -> None:
        packets = enhanced(FRAME) + enhanced(bytes(700), number=1)
        content = (START + interface(105) + packets * 2000) * 2
        (tmp_path / "capture").write_bytes(content)
        with CaptureReader(tmp_path / "capture") as reader:
            assert sum(batch.count for batch in reader.batches(CapturedFrames(7))) == 4000
            assert reader.skipped == {105: 4000}

    def test_a_capture_of_only_foreign_packets(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, section() + interface(105) + enhanced(FRAME) * 3) == ([], None)

    def test_cut_short(self, tmp_path: Path) -> None:
        content = START + enhanced(FRAME) + interface(105)
        frames, error = read_bytes(tmp_path, (content + enhanced(FRAME, number=1))[:-1])
        assert len(frames) == 1
        assert reason_of(error) == (len(content), "truncated")


class TestDamage:
    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (block(6, bytes(20), length=11), "an invalid block length"),
            (block(6, bytes(20), length=33), "an invalid block length"),
            (block(6, bytes(16)), "an invalid block length"),
            (block(3, b""), "an invalid block length"),
            (block(1, b"\x01\0\0\0"), "an invalid block length"),
            (block(6, bytes(20), length=1 << 21), "a packet length above the maximum"),
            (enhanced(FRAME, captured=LARGEST_BYTES + 1), "a packet length above the maximum"),
            (block(6, bytes(84), trailer=100), "a block whose two lengths differ"),
            (block(1, bytes(8), trailer=24), "a block whose two lengths differ"),
            (block(UNKNOWN_BLOCK, bytes(8), trailer=24), "a block whose two lengths differ"),
            (enhanced(FRAME, captured=65), "a packet longer than its block"),
            (simple(FRAME, original=65), "a packet longer than its block"),
            (enhanced(FRAME, number=1), "a packet of an interface that is not described"),
            (obsolete(FRAME, number=0xFFFF), "a packet of an interface that is not described"),
            (section() + enhanced(FRAME), "a packet of an interface that is not described"),
            (block(0x0A0D0D0A, bytes(16)), "a section without a byte order"),
            (section(version=2), "a section of an unknown version"),
            (interface(resolution=b"\x06\x06"), "an interface with invalid options"),
            (interface(offset=b"\x06"), "an interface with invalid options"),
            (block(1, struct.pack("<HHIHH", 1, 0, 0, 2, 99)), "an interface with invalid options"),
        ],
    )
    def test_intact_packets_before_it_are_read(self, tmp_path: Path, bad: bytes, reason: str) -> None:
        good = START + enhanced(FRAME, 1)
        frames, error = read_bytes(tmp_path, good + bad + enhanced(FRAME, 2))
        assert frames == [Read(FRAME, 1000)]
        offset, said = reason_of(error)
        assert said == reason
        # Some faults need two blocks; the second is the damaged one.
        assert offset in (len(good), len(good) + len(bad) - len(enhanced(FRAME)))

    @given(st.data())
    def test_cut_anywhere(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        blocks = [section(), interface(name=b"e"), enhanced(FRAME), block(UNKNOWN_BLOCK, FRAME)]
        blocks += [simple(FRAME), obsolete(FRAME)]
        size = data.draw(st.integers(29, sum(map(len, blocks)) - 1))
        frames, error = read_bytes(tmp_path_factory.getbasetemp(), b"".join(blocks)[:size])
        starts = [sum(map(len, blocks[:at])) for at in range(len(blocks) + 1)]
        at = max(at for at, start in enumerate(starts) if start <= size)
        assert len(frames) == sum(blocks.index(one) in (2, 4, 5) for one in blocks[:at])
        if size == starts[at]:
            assert error is None
        else:
            assert reason_of(error) == (starts[at], "truncated")

    def test_cut_in_a_block_over_the_buffer(self, tmp_path: Path) -> None:
        good = START + enhanced(FRAME)
        frames, error = read_bytes(tmp_path, good + block(UNKNOWN_BLOCK, bytes(3_000_000))[:-1])
        assert len(frames) == 1
        assert reason_of(error) == (len(good), "truncated")

    @pytest.mark.slow
    def test_interfaces_without_end(self, tmp_path: Path) -> None:
        _, error = read_bytes(tmp_path, section() + interface() * 65537)
        assert reason_of(error) == (28 + 20 * 65536, "more interfaces than 65536")

    @given(st.binary(max_size=300))
    def test_junk_behind_the_start(self, tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
        frames, error = read_bytes(tmp_path_factory.getbasetemp(), START + enhanced(FRAME) + junk)
        assert frames[0] == Read(FRAME, 0)
        if error is not None:
            assert error.offset >= len(START + enhanced(FRAME))

    def test_pcap_records_in_a_pcapng_file(self, tmp_path: Path) -> None:
        frames, error = read_bytes(tmp_path, START + record(FRAME, 1, 1))
        assert frames == []
        assert error is not None and error.offset == len(START)


def test_every_damage_has_a_reason() -> None:
    assert set(REASONS) == {end for end in ScanEnd if end >= ScanEnd.DAMAGE}


def test_scapy_wrote_it(tmp_path: Path) -> None:
    frame = Ether(bytes(12) + b"\x08\x00" + IPV4)
    frame.time = 12.5
    with PcapNgWriter(str(tmp_path / "capture")) as writer:
        writer.write(frame)
    assert read_all(tmp_path / "capture")[0] == [Read(bytes(frame), 12_500_000_000)]
