"""Steps that use one flow table on several CPUs at once, in kernel programs and in user space.

Their own numbers are in the region of slots.
"""

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.atomics import compare_exchange, fetch_or
from lbmux.datapath.context import (
    backends,
    clock,
    context_at,
    current_worker,
    services,
    settings,
    slots,
    worker_limit,
    xdp_context,
)
from lbmux.datapath.flow_lookup import delete, lookup, target_of
from lbmux.datapath.flows import remember, still_good
from lbmux.datapath.memory import advance, int64, layout, rows, step, u32, u64
from lbmux.datapath.tables import WAYS, backend_row, service_row, settings_row
from lbmux.targets.bpf.xdp_programs import XDP_DROP
from lbmux.wire.numbers import ACK, FIN

word_row = rows(layout(("value", "u8")))
OWNER = 1
RACE_FLOWS, RACERS = 1 << 16, 8
TURN, PRESENT, EXPECTED, SAID = range(4)
"""Whose turn it is, who is there, as bits, and who has to be; behind them what each participant got for each flow."""
KEYS, RANDOM, WRONG, HITS = 128, 0, 1, 2


@step
def enter_next(context, worker):
    """Enter the flow whose turn it is, with our own number as its target, and record the target that it got."""
    scratch = slots(context)
    turn, present = word_row(scratch, TURN).value, word_row(scratch, PRESENT).value
    if present != word_row(scratch, EXPECTED).value:
        fetch_or(advance(scratch, 8 * PRESENT), u64(1) << u64(worker & (RACERS - 1)))
    if present != word_row(scratch, EXPECTED).value or turn >= u64(RACE_FLOWS):
        return
    number, key = int64(turn & u64(RACE_FLOWS - 1)), turn + u64(1)
    word = remember(
        context, settings_row(settings(context), 0), worker, u32(number), u64(0), key, u32(key), int64(OWNER),
        worker + 1, int64(0), service_row(services(context), 0), clock(context),
    )  # fmt: skip
    word_row(scratch, SAID + (worker & (RACERS - 1)) * RACE_FLOWS + number).value = u64(target_of(word))
    compare_exchange(scratch, turn, turn + u64(1))


@step
def next_random(row):
    number = row.value
    number ^= number << u64(13)
    number ^= number >> u64(7)
    number ^= number << u64(17)
    row.value = number
    return number


@step
def hammer_once(context, worker):
    """Do something to a random flow of few. Its target names it and who entered it; another flow's target is wrong."""
    mine = advance(slots(context), (worker & (RACERS - 1)) * 64)
    number, now = next_random(word_row(mine, RANDOM)), clock(context)
    key, kind = number & u64(KEYS - 1), int64((number >> u64(20)) & u64(7))
    hashed, low, ports = u32(u32(key) * u32(0x9E3779B1)), key * u64(5), u32(key * u64(7))
    setting, service = settings_row(settings(context), 0), service_row(services(context), 0)
    bucket, way, word = lookup(context, hashed, u64(0), low, ports, OWNER)
    if way < 0:
        word = remember(
            context, setting, worker, hashed, u64(0), low, ports, int64(OWNER), int64(key << u64(4)) | worker, int64(0),
            service, now,
        )  # fmt: skip
    elif kind == 0:
        delete(bucket, way & (WAYS - 1), word)
    else:
        flags = int64(FIN | ACK) if kind == 1 else int64(ACK)
        row = backend_row(backends(context), 0)
        still_good(context, setting, worker, hashed, bucket, way & (WAYS - 1), word, row, service, flags, now)
    if word != u64(0):
        word_row(mine, HITS).value += u64(1)
        if u64(target_of(word)) >> u64(4) != key:
            word_row(mine, WRONG).value += u64(1)


def race(ctx):
    context = xdp_context(ctx)
    worker = current_worker(context)
    if worker < worker_limit(context):
        enter_next(context, worker)
    return XDP_DROP


def hammer(ctx):
    context = xdp_context(ctx)
    worker = current_worker(context)
    if worker < worker_limit(context):
        hammer_once(context, worker)
    return XDP_DROP


@compiled_nogil
def race_in_user_space(context_address, worker, turns):  # type: ignore[no-untyped-def]
    for _ in range(turns):
        enter_next(context_at(context_address), worker)


@compiled_nogil
def hammer_in_user_space(context_address, worker, turns):  # type: ignore[no-untyped-def]
    for _ in range(turns):
        hammer_once(context_at(context_address), worker)
