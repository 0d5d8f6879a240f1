"""pcap files read and written: both byte orders and units of time, raw IP, and every kind of damage."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapReader

from lbmux.errors import CaptureError, SetupError
from lbmux.frames.batch import HEADROOM_BYTES
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import ARENA_BYTES, LARGEST_BYTES, CapturedFrames
from lbmux.frames.pcap import PcapWriter
from tests.frames.captures import MICRO, MODIFIED, NANO, Read, frame_at, pcap, read_all, read_bytes, record

FRAME = bytes(range(64))
IPV4, IPV6 = b"\x45" + bytes(39), b"\x60" + bytes(59)
AS_IPV4, AS_IPV6 = bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd"


def copy(source: Path, target: Path) -> None:
    frames = CapturedFrames()
    with CaptureReader(source) as reader, PcapWriter(target, reader.raw, reader.nanoseconds) as writer:
        for batch in reader.batches(frames):
            batch.verdict[:] = 0
            writer.write(batch, 1)


class TestRead:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(("magic", "time_ns"), [(MICRO, 5_000_123_000), (NANO, 5_000_000_123)])
    def test_byte_orders_and_units_of_time(self, tmp_path: Path, order: str, magic: int, time_ns: int) -> None:
        content = pcap(record(FRAME, 5, 123, order=order), order=order, magic=magic)
        assert read_bytes(tmp_path, content) == ([Read(FRAME, time_ns)], None)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_modified_records_are_longer(self, tmp_path: Path, order: str) -> None:
        more = struct.pack(order + "IHBx", 2, 0x0800, 4)
        records = [record(FRAME, 5, at, order=order)[:16] + more + FRAME for at in range(2)]
        frames = read_bytes(tmp_path, pcap(*records, order=order, magic=MODIFIED))
        assert frames == ([Read(FRAME, 5_000_000_000), Read(FRAME, 5_000_001_000)], None)
        frames, error = read_bytes(tmp_path, pcap(*records, order=order, magic=MODIFIED)[:-1])
        assert len(frames) == 1 and error is not None and error.offset == 24 + 24 + 64

    def test_time_after_2038(self, tmp_path: Path) -> None:
        (read,), _ = read_bytes(tmp_path, pcap(record(FRAME, 0xFFFFFFFF, 999_999)))
        assert read.time_ns == 0xFFFFFFFF * 10**9 + 999_999_000

    def test_no_packets(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, pcap()) == ([], None)

    def test_zero_length_packet(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, pcap(record(b""), record(FRAME))) == ([Read(b"", 0), Read(FRAME, 0)], None)

    def test_captured_more_than_the_snap_length_or_the_original(self, tmp_path: Path) -> None:
        large = bytes(LARGEST_BYTES)
        assert read_bytes(tmp_path, pcap(record(large, original=100)))[0] == [Read(large, 0)]

    def test_cut_by_the_snap_length_is_filled_where_the_headers_are_there(self, tmp_path: Path) -> None:
        (read,), _ = read_bytes(tmp_path, pcap(record(FRAME, original=1514)))
        assert read == Read(FRAME + bytes(1450), 0, missing=1450)

    def test_a_frame_truncated_within_the_headers_stays_truncated(self, tmp_path: Path) -> None:
        (read,), _ = read_bytes(tmp_path, pcap(record(FRAME[:53], original=1514)))
        assert read == Read(FRAME[:53], 0)

    def test_original_length_beyond_any_packet_is_not_filled(self, tmp_path: Path) -> None:
        (read,), _ = read_bytes(tmp_path, pcap(record(FRAME, original=0xFFFFFFFF)))
        assert read == Read(FRAME, 0)

    @pytest.mark.parametrize(
        ("link", "packet", "header"),
        [(101, IPV4, AS_IPV4), (101, IPV6, AS_IPV6), (12, IPV4, AS_IPV4), (14, IPV4, AS_IPV4), (228, IPV4, AS_IPV4),
         (229, IPV6, AS_IPV6), (101, b"\x00", bytes(14)), (101, b"", bytes(14))],
    )  # fmt: skip
    def test_raw_ip_gets_an_ethernet_header(self, tmp_path: Path, link: int, packet: bytes, header: bytes) -> None:
        assert read_bytes(tmp_path, pcap(record(packet), link=link))[0] == [Read(header + packet, 0)]

    @given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 999_999))))
    def test_random_records(self, tmp_path_factory: pytest.TempPathFactory, packets: list[tuple]) -> None:
        content = pcap(*(record(*packet) for packet in packets))
        wanted = [Read(data, seconds * 10**9 + micros * 1000) for data, seconds, micros in packets]
        assert read_bytes(tmp_path_factory.getbasetemp(), content) == (wanted, None)

    def test_more_than_a_batch_and_more_than_a_chunk(self, tmp_path: Path) -> None:
        sizes = np.random.default_rng(1).integers(0, 3000, 4000)
        packets = [bytes([at % 256]) * size for at, size in enumerate(sizes.tolist())]
        frames, error = read_bytes(tmp_path, pcap(*map(record, packets)))
        assert error is None
        assert [read.data for read in frames] == packets

    def test_largest_frames_fill_the_arena_before_the_batch(self, tmp_path: Path) -> None:
        (tmp_path / "capture").write_bytes(pcap(*[record(bytes(LARGEST_BYTES))] * 10))
        frames = CapturedFrames()
        with CaptureReader(tmp_path / "capture") as reader:
            counts = [batch.count for batch in reader.batches(frames)]
        assert sum(counts) == 10
        assert max(counts) < ARENA_BYTES // LARGEST_BYTES

    def test_room_to_grow_before_each_frame(self, tmp_path: Path) -> None:
        (tmp_path / "capture").write_bytes(pcap(*[record(FRAME[:size]) for size in range(65)]))
        frames = CapturedFrames()
        with CaptureReader(tmp_path / "capture") as reader:
            assert reader.read(frames) == 65
        ends = np.concatenate([[frames.arena], frames.address[:64] + frames.length[:64]])
        assert (frames.address[:65] - ends >= HEADROOM_BYTES).all()


class TestDamage:
    two = pcap(record(FRAME), record(FRAME))
    second_at = 24 + 16 + 64

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        for size in range(24, 184):
            frames, error = read_bytes(tmp_path, self.two[:size])
            whole = (size - 24) // 80
            assert len(frames) == whole, size
            if (size - 24) % 80:
                assert error is not None, size
                assert (error.offset, error.reason) == (24 + whole * 80, "truncated"), size
            else:
                assert error is None, size

    def test_absurd_length(self, tmp_path: Path) -> None:
        content = pcap(record(FRAME), record(FRAME, captured=LARGEST_BYTES + 1), record(FRAME))
        frames, error = read_bytes(tmp_path, content)
        assert len(frames) == 1
        assert error is not None and error.offset == self.second_at and "length" in error.reason

    def test_damage_far_behind_the_first_chunk(self, tmp_path: Path) -> None:
        content = pcap(*[record(bytes(1500))] * 3000) + b"\xff" * 100
        frames, error = read_bytes(tmp_path, content)
        assert len(frames) == 3000
        assert error is not None and error.offset == 24 + 3000 * 1516

    def test_cut_in_the_file_header(self, tmp_path: Path) -> None:
        for size in range(1, 24):
            with pytest.raises(CaptureError):
                print(size, read_bytes(tmp_path, self.two[:size]))

    @pytest.mark.parametrize(
        ("content", "offset", "reason"),
        [(b"", 0, "empty"), (b"GIF89a" + bytes(40), 0, "neither"),
         (pcap(link=105), 20, "link type 105 is not Ethernet"), (pcap(version=(3, 0)), 4, "version 3.0")],
        ids=["empty", "other format", "link type", "version"],
    )  # fmt: skip
    def test_not_a_capture(self, tmp_path: Path, content: bytes, offset: int, reason: str) -> None:
        with pytest.raises(CaptureError, match=reason) as raised:
            read_bytes(tmp_path, content)
        assert raised.value.offset == offset

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match="No such file"):
            CaptureReader(tmp_path / "none")


class TestWrite:
    @pytest.mark.parametrize(("link", "written_link"), [(1, 1), (101, 101), (228, 101)])
    @pytest.mark.parametrize("magic", [MICRO, NANO])
    def test_packets_that_were_read_are_written_back(
        self, tmp_path: Path, link: int, written_link: int, magic: int
    ) -> None:
        records = [record(IPV4, 1, 2), record(IPV4 + FRAME, 0xFFFFFFFE, 999_999, original=1500), record(IPV4[:20])]
        (tmp_path / "in").write_bytes(pcap(*records, link=link, magic=magic))
        copy(tmp_path / "in", tmp_path / "out")
        header = struct.pack("=IHHiIII", magic, 2, 4, 0, 0, LARGEST_BYTES, written_link)
        assert (tmp_path / "out").read_bytes() == header + b"".join(records)

    def test_only_verdicts_below(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(pcap(*[record(FRAME[:size]) for size in range(4)]))
        frames = CapturedFrames()
        with CaptureReader(tmp_path / "in") as reader, PcapWriter(tmp_path / "out") as writer:
            reader.read(frames)
            frames.verdict[:4] = [16, 0, 64, 2]
            writer.write(frames, 16)
        assert writer.frames == 2
        assert [read.data for read in read_all(tmp_path / "out")[0]] == [FRAME[:1], FRAME[:3]]

    def test_grown_frames_keep_the_uncaptured_length(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(pcap(record(FRAME, original=100)))
        frames = CapturedFrames()
        with CaptureReader(tmp_path / "in") as reader, PcapWriter(tmp_path / "out") as writer:
            reader.read(frames)
            frames.verdict[0] = 0
            frames.address[0] -= np.uint64(20)
            frames.length[0] += np.uint32(20)
            grown = frame_at(frames, 0)[:84]
            writer.write(frames, 1)
        assert (tmp_path / "out").read_bytes()[24:] == record(grown, original=120)

    def test_more_than_the_output_buffer(self, tmp_path: Path) -> None:
        content = pcap(*[record(bytes([at]) * LARGEST_BYTES) for at in range(20)])
        (tmp_path / "in").write_bytes(content)
        copy(tmp_path / "in", tmp_path / "out")
        assert (tmp_path / "out").read_bytes()[24:] == content[24:]

    def test_scapy_reads_it(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(pcap(record(FRAME, 7, 8), magic=NANO))
        copy(tmp_path / "in", tmp_path / "out")
        with RawPcapReader(str(tmp_path / "out")) as reader:
            assert [(data, meta.sec, meta.usec) for data, meta in reader] == [(FRAME, 7, 8)]

    def test_disk_is_full(self) -> None:
        writer = PcapWriter(Path("/dev/full"))
        with pytest.raises(SetupError, match="No space left"):
            writer.close()

    def test_directory_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match="No such file"):
            PcapWriter(tmp_path / "none" / "out")


def test_standard_input_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pcap(*[record(FRAME, at) for at in range(2000)])
    (tmp_path / "in").write_bytes(content)
    with io.FileIO(tmp_path / "in") as source, io.FileIO(tmp_path / "out", "wb") as target:
        monkeypatch.setattr("sys.stdin", source)
        monkeypatch.setattr("sys.stdout", target)
        copy(Path("-"), Path("-"))
    assert (tmp_path / "out").read_bytes()[24:] == content[24:]
