"""Captures compressed by gzip and zstd: read as the plain ones, and what is damaged in them."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from lbmux.errors import CaptureError
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.compressed import PIECE_BYTES
from tests.frames.captures import Read, enhanced, interface, pcap, read_bytes, record, section

FRAME = bytes(range(64))
PCAP, PCAPNG = pcap(record(FRAME), record(FRAME)), section() + interface() + enhanced(FRAME) * 2
TWO = [Read(FRAME, 0)] * 2


def by_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


both = pytest.mark.parametrize("compress", [gzip.compress, by_zstd], ids=["gzip", "zstd"])
Compress = Callable[[bytes], bytes]


@both
class TestBoth:
    @pytest.mark.parametrize("content", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
    def test_reads_the_same_frames_as_the_plain_capture(
        self, tmp_path: Path, compress: Compress, content: bytes
    ) -> None:
        assert read_bytes(tmp_path, compress(content)) == (TWO, None)

    def test_several_members(self, tmp_path: Path, compress: Compress) -> None:
        assert read_bytes(tmp_path, b"".join(compress(PCAP[at : at + 7]) for at in range(0, len(PCAP), 7)))[0] == TWO

    def test_padded_by_zeros(self, tmp_path: Path, compress: Compress) -> None:
        assert read_bytes(tmp_path, compress(PCAP) + bytes(3000)) == (TWO, None)

    def test_more_than_a_chunk(self, tmp_path: Path, compress: Compress) -> None:
        packets = [at.to_bytes(4, "big") * 300 for at in range(3000)]
        frames, error = read_bytes(tmp_path, compress(pcap(*map(record, packets))))
        assert ([read.data for read in frames], error) == (packets, None)

    def test_size_is_not_known(self, tmp_path: Path, compress: Compress) -> None:
        (tmp_path / "capture").write_bytes(compress(PCAP))
        with CaptureReader(tmp_path / "capture") as reader:
            assert reader.size_bytes is None

    def test_junk_after_the_compressed_data(self, tmp_path: Path, compress: Compress) -> None:
        frames, error = read_bytes(tmp_path, compress(PCAP) + b"junk" * 10)
        assert frames == TWO
        assert error is not None and error.offset == len(PCAP) and "data is damaged" in error.reason

    def test_cut_anywhere_says_so(self, tmp_path: Path, compress: Compress) -> None:
        whole = compress(PCAP)
        for size in range(4, len(whole)):
            try:
                _, error = read_bytes(tmp_path, whole[:size])
            except CaptureError as raised:
                error = raised
            assert error is not None and "data is truncated" in error.reason

    def test_a_capture_truncated_inside_a_packet(self, tmp_path: Path, compress: Compress) -> None:
        frames, error = read_bytes(tmp_path, compress(PCAP[:-1]))
        assert frames == TWO[:1]
        assert error is not None and (error.offset, error.reason) == (24 + 80, "truncated")

    def test_damaged_checksum(self, tmp_path: Path, compress: Compress) -> None:
        damaged = bytearray(compress(PCAP))
        damaged[-1 if compress is by_zstd else -8] ^= 1
        with pytest.raises(CaptureError, match="data is damaged") as raised:
            read_bytes(tmp_path, bytes(damaged))
        assert raised.value.offset == 0

    def test_intact_packets_before_the_damage_are_read(self, tmp_path: Path, compress: Compress) -> None:
        damaged = compress(PCAP[:104]) + compress(PCAP[104:])[:-1] + b"\xff" * PIECE_BYTES
        frames, error = read_bytes(tmp_path, damaged)
        assert frames[:1] == TWO[:1]
        assert error is not None and error.offset >= 104 and "data is damaged" in error.reason

    def test_neither_pcap_nor_pcapng_inside(self, tmp_path: Path, compress: Compress) -> None:
        with pytest.raises(CaptureError, match="at byte 0: neither pcap nor pcapng"):
            read_bytes(tmp_path, compress(b"GIF89a" + bytes(40)))

    def test_memory_is_bounded(self, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file of a few kilobytes that holds 64 MB is decompressed a piece at a time."""
        (tmp_path / "capture").write_bytes(compress(pcap(*[record(bytes(1500))] * 40_000)))
        largest = 0
        with CaptureReader(tmp_path / "capture") as reader:
            for _ in reader.batches(CapturedFrames()):
                largest = max(largest, len(reader.file.output))  # type: ignore[union-attr]
        assert 0 < largest <= (1 << 20 if compress is gzip.compress else 1 << 25)


def test_stored_gzip_member(tmp_path: Path) -> None:
    packed = zlib.compressobj(0, wbits=31)
    assert read_bytes(tmp_path, packed.compress(PCAP) + packed.flush()) == (TWO, None)
