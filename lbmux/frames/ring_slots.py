"""Slots of a packet ring: compiled loops that read frames from them, return them to the kernel, and send frames.

Used by lbmux.frames.packet_ring, which sets the ring up. The layouts are those of <linux/if_packet.h>.
"""

import socket

from numba import types

from lbmux.codegen.compiled import compiled
from lbmux.datapath.frame import CUT, UNFINISHED_CHECKSUM
from lbmux.datapath.headers import TYPE_VLAN
from lbmux.datapath.memory import Pointer, at_address, header, int64, layout, rows, step, swap16, u64, unlikely
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.frames.batch import HEADROOM_BYTES
from lbmux.frames.memory_fences import acquire, release
from lbmux.frames.sendmmsg import MESSAGE, sendmmsg, vector_row
from lbmux.frames.super_frames import VNET_BYTES, WHOLE_BYTES, cut, keep, memcpy, open_super, super_row, vnet_row
from lbmux.wire.header_layouts import ETHERNET, TAG_BYTES

HEADER = layout(
    ("status", "u4"), ("length", "u4"), ("captured", "u4"), ("mac", "u2"), ("net", "u2"), ("seconds", "u4"),
    ("nanoseconds", "u4"), ("tag", "u2"), ("tag_type", "u2"), ("pad", "u4"),
)  # fmt: skip
"""struct tpacket2_hdr"""
header_row = rows(HEADER)

STATUS_USER, STATUS_COPY, STATUS_UNFINISHED, STATUS_TAGGED, STATUS_TAG_TYPE = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 6

SOCKADDR_LL_BYTES = 20
SOCKADDR_LL = layout(
    ("family", "u2"), ("protocol", "u2"), ("interface", "i4"), ("pad0", "u8"), ("pad1", "u8"), ("frame", "u8")
)
"""struct sockaddr_ll, padded to the length of a Messages name. ``frame`` (the batch index) follows the kernel part."""
name_row = rows(SOCKADDR_LL)

WHOLE_AT = HEADROOM_BYTES + 16
"""The offset of a super-frame's virtio_net_hdr in its buffer."""
TYPE_AT = ETHERNET.at("type")
TRIES = 3
MESSAGE_BYTES = MESSAGE.itemsize
UNSENT, MSG_DONTWAIT = int(Verdict.UNSENT), int(socket.MSG_DONTWAIT)
recv = types.ExternalFunction("recv", types.int64(types.int32, Pointer, types.uint64, types.int32))
macs_row = header(layout(("first", "u8"), ("second", "u4")))
tag_row = header(layout(("type", "u2"), ("control", "u2")))


@step
def _restore_tag(start, head):
    """Restore the VLAN tag that the kernel removed: the MAC addresses move forward to make space for it."""
    macs = macs_row(start, TAG_BYTES)
    first, second = macs.first, macs.second
    macs = macs_row(start, 0)
    macs.first, macs.second = first, second
    tag = tag_row(start, TYPE_AT)
    tag.type = swap16(head.tag_type) if (head.status & STATUS_TAG_TYPE) != 0 else TYPE_VLAN
    tag.control = swap16(head.tag)


@compiled
def receive_frames(
    ring, stride, frames, first, index, descriptor, state, whole, arena,
    address, length, flags, interface, arrived, wire, capacity,
):  # fmt: skip
    """Read slots from ``first`` on into the arrays of a batch. Return how many frames it has."""
    record = super_row(at_address(state), 0)
    record.used = record.taken = 0
    count, place = 0, first
    while count < capacity:
        head = header_row(at_address(ring + u64(place * stride)), 0)
        status = head.status
        if (status & STATUS_USER) == 0:
            break
        acquire()
        start, captured = ring + u64(place * stride) + u64(head.mac), int64(head.captured)
        arrival_ns = int64(head.seconds) * 1_000_000_000 + int64(head.nanoseconds)
        kind = vnet_row(at_address(start - u64(VNET_BYTES)), 0).kind
        if unlikely(kind != 0 or (status & STATUS_COPY) != 0):
            if record.size == 0:
                start, captured = _whole_frame(record, descriptor, whole, arena, start, captured, head, kind)
            if record.size != 0:
                before = count
                count = _take_pieces(record, arena, address, length, count, capacity)
                for piece in range(before, count):
                    arrived[piece], wire[piece], flags[piece], interface[piece] = arrival_ns, length[piece], 0, index
                if record.size != 0:  # keep its slot, so that the descriptor stays readable
                    break
                place, record.taken = place + 1 if place + 1 < frames else 0, record.taken + 1
                continue
        address[count], length[count], wire[count] = _with_tag(start, captured, head)
        flags[count] = _mark(status, captured, head.length)
        arrived[count], interface[count] = arrival_ns, index
        count, place, record.taken = count + 1, place + 1 if place + 1 < frames else 0, record.taken + 1
    return count


@step
def _mark(status, captured, length):
    """Return the flags of a frame for the data path."""
    mark = UNFINISHED_CHECKSUM if (status & STATUS_UNFINISHED) != 0 else 0
    return mark | CUT if captured < int64(length) else mark


@step
def _with_tag(start, captured, head):
    """Return (address, bytes present, bytes on the wire) of a frame, with the VLAN tag that the kernel removed."""
    if (head.status & STATUS_TAGGED) == 0:
        return start, captured, int64(head.length)
    start -= u64(TAG_BYTES)
    _restore_tag(at_address(start), head)
    return start, captured + TAG_BYTES, int64(head.length) + TAG_BYTES


@step
def _take_pieces(record, arena, address, length, count, capacity):
    """Cut segments from the open super-frame while the batch has space. Return the new number of frames."""
    while record.size != 0 and count < capacity:
        address[count], length[count] = cut(record, arena)
        if length[count] == 0:
            break
        count += 1
    return count


@step
def _whole_frame(record, descriptor, whole, arena, start, captured, head, kind):
    """Open a super-frame for segmentation, or pass another large frame unchanged. Return (address, bytes present)."""
    begin = whole + u64(WHOLE_AT)
    frame, wire_bytes = begin + u64(VNET_BYTES), int64(head.length)
    if (head.status & STATUS_COPY) != 0:
        received = int64(recv(descriptor, at_address(begin), WHOLE_BYTES - WHOLE_AT, MSG_DONTWAIT))
        is_whole = received == wire_bytes + VNET_BYTES
    else:
        memcpy(at_address(begin), at_address(start - u64(VNET_BYTES)), u64(captured + VNET_BYTES))
        is_whole = captured == wire_bytes
    if not is_whole:
        record.lost += 1
        return start, captured
    vnet = vnet_row(at_address(begin), 0)
    flags, size, checksum_start, tag_bytes = vnet.flags, int64(vnet.size), int64(vnet.checksum_start), int64(0)
    if kind == 0:  # longer than a slot: the interface's MTU was raised
        copied = keep(record, arena, frame, wire_bytes)
        return (copied, wire_bytes) if copied != u64(0) else (start, captured)
    if (head.status & STATUS_TAGGED) != 0:
        tag_bytes = int64(TAG_BYTES)
        _restore_tag(at_address(frame - u64(TAG_BYTES)), head)
    if open_super(
        record, frame - u64(tag_bytes), wire_bytes + tag_bytes, flags, kind, size, checksum_start + tag_bytes
    ):
        record.split += 1
        return frame, wire_bytes
    record.lost += 1
    return start, captured


@compiled
def release_frames(ring, stride, frames, first, count):
    release()
    place = first
    for _ in range(count):
        header_row(at_address(ring + u64(place * stride)), 0).status = 0
        place += 1
        if place == frames:
            place = 0


@compiled
def send_frames(descriptor, own, address, length, verdict, interface, count, vectors, names, messages):
    wanted = int64(0)
    for index in range(count):
        if verdict[index] < PASSES:
            vector = vector_row(at_address(vectors), wanted)
            vector.base, vector.length = address[index], length[index]
            name = name_row(at_address(names), wanted)
            name.interface, name.frame = interface[index] if interface[index] != 0 else own, index
            wanted += 1
    tried, sent, tries = int64(0), int64(0), 0
    while tried < wanted:
        taken = sendmmsg(descriptor, at_address(messages + u64(MESSAGE_BYTES * tried)), wanted - tried, MSG_DONTWAIT)
        if taken > 0:
            sent, tried, tries = sent + taken, tried + taken, 0
        else:
            tries += 1
            if tries == TRIES:
                verdict[name_row(at_address(names), tried).frame] = UNSENT
                tried, tries = tried + 1, 0
    return sent, wanted - sent
