"""Capture files made by struct, right ones and wrong ones, and what a reader finds in them."""

import ctypes
import struct
from dataclasses import dataclass
from pathlib import Path

from lbmux.errors import CaptureError
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames

MICRO, NANO, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34


@dataclass(frozen=True)
class Read:
    """One frame as it was read."""

    data: bytes
    time_ns: int
    missing: int = 0
    interface: int = 0


def pcap(
    *records: bytes, order: str = "<", magic: int = MICRO, link: int = 1, version: tuple[int, int] = (2, 4)
) -> bytes:
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, link) + b"".join(records)


def record(
    data: bytes, seconds: int = 0, fraction: int = 0, original: int | None = None, captured: int | None = None,
    order: str = "<",
) -> bytes:  # fmt: skip
    captured = len(data) if captured is None else captured
    return struct.pack(order + "IIII", seconds, fraction, captured, original or len(data)) + data


def block(kind: int, body: bytes, order: str = "<", length: int | None = None, trailer: int | None = None) -> bytes:
    body += bytes(-len(body) % 4)
    length = len(body) + 12 if length is None else length
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", trailer or length)


def section(order: str = "<", version: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, version, 0, -1), order)


def interface(link: int = 1, order: str = "<", snap: int = 0, **options: bytes) -> bytes:
    codes = {"name": 2, "resolution": 9, "offset": 14}
    body = struct.pack(order + "HHI", link, 0, snap)
    for name, value in options.items():
        body += struct.pack(order + "HH", codes[name], len(value)) + value + bytes(-len(value) % 4)
    return block(1, body + (bytes(4) if options else b""), order)


def enhanced(
    data: bytes, units: int = 0, number: int = 0, order: str = "<", original: int | None = None,
    captured: int | None = None, comment: bytes = b"",
) -> bytes:  # fmt: skip
    captured = len(data) if captured is None else captured
    head = struct.pack(order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, captured, original or len(data))
    options = struct.pack(order + "HH", 1, len(comment)) + comment + bytes(-len(comment) % 4 + 4) if comment else b""
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def simple(data: bytes, original: int | None = None, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", original or len(data)) + data, order)


def obsolete(data: bytes, units: int = 0, number: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "HHIIII", number, 7, units >> 32, units & 0xFFFFFFFF, len(data), len(data))
    return block(2, head + data, order)


def frame_at(frames: CapturedFrames, index: int) -> bytes:
    return ctypes.string_at(int(frames.address[index]), int(frames.length[index]))


def read_all(path: Path) -> tuple[list[Read], CaptureError | None]:
    """All that a reader delivers, and the error it ends with."""
    frames, reads = CapturedFrames(), []
    with CaptureReader(path) as reader:
        try:
            for batch in reader.batches(frames):
                reads += [
                    Read(frame_at(batch, at), *(int(a[at]) for a in (batch.time_ns, batch.missing, batch.interface)))
                    for at in range(batch.count)
                ]
        except CaptureError as error:
            return reads, error
    return reads, None


def read_bytes(directory: Path, content: bytes) -> tuple[list[Read], CaptureError | None]:
    path = directory / "capture"
    path.write_bytes(content)
    return read_all(path)
