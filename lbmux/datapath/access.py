"""Access: may this source use the service?

This step follows the match and precedes the flow table. An access list is a sorted array of the addresses at which
"allowed" and "denied" alternate (lbmux.tables builds it from prefixes, longest match first), so a look-up is a binary
search of RULE_STEPS steps. The search has no branches: the verifier would follow every path through it.
"""

from lbmux.datapath.branchless import below, equals
from lbmux.datapath.context import rule_limit, rules
from lbmux.datapath.memory import int64, step, swap64, u64, unlikely
from lbmux.datapath.tables import RULE_STEPS, rule_row


@step
def allowed(context, service, high, low):
    """Return whether the service's access list allows the source address, given as 128-bit halves as loaded."""
    if not unlikely(service.rule_count != 0):
        return True
    high, low = swap64(high), swap64(low)
    mask, last = u64(rule_limit(context) - 1), u64(service.rule_count) - u64(1)
    at = u64(0)
    for turn in range(RULE_STEPS):
        stride = u64(1) << u64(RULE_STEPS - 1 - turn)
        candidate = at + stride
        rule = rule_row(rules(context), int64((u64(service.rules) + candidate) & mask))
        past = below(high, rule.high) | (equals(high, rule.high) & below(low, rule.low)) | below(last, candidate)
        at += stride * (past ^ u64(1))
    return rule_row(rules(context), int64((u64(service.rules) + at) & mask)).allowed != u64(0)


@step
def unchecked(context, service, high, low):
    """Allow every source, for callers that look a service up without sending it a packet."""
    return True
