"""Explain what a mux does with a packet, step by step, and why.

The packet runs on a private copy of the tables (tools.mux_run), so nothing changes. tools.mux_steps describes what each
step did, and tools.mux_hints says what to do if the packet is not forwarded.
"""

from collections.abc import Sequence

from lbmux.api.answers import BackendHealth
from lbmux.api.channel import ControlTarget, target_name
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetHealth
from lbmux.config.models import Config
from lbmux.errors import SetupError
from lbmux.targets.regions import now_ticks
from lbmux.tools.backend_states import states_of
from lbmux.tools.explanation import Explanation
from lbmux.tools.mux_hints import hint
from lbmux.tools.mux_run import MuxRun
from lbmux.tools.mux_steps import MuxSteps
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.table_copy import LiveCopy, of_configuration

TRIES = 3
"""How often to retry if the mux's configuration changes while it is read."""


def explain_configuration(packet: ClientPacket, config: Config) -> Explanation:
    """Explain what a mux with this configuration and no flows would do."""
    return _explanation(MuxRun(packet, of_configuration(config), 0), "configuration", [])


def explain_live(packet: ClientPacket, place: ControlTarget) -> Explanation:
    """Explain what the mux at ``place`` would do now.

    Raise ControlError, or SetupError if its configuration keeps changing.
    """
    for _ in range(TRIES):
        copy = LiveCopy.of(place, str(packet.vip))
        copy.read_configuration()
        run = MuxRun(packet, copy.snapshot, now_ticks(), copy.interfaces)
        if run.service_row >= 0:
            copy.read_service(run.service_row, run.result("hash"), run.result("sources"))
            for offset in run.buckets():
                copy.read_bucket(offset)
            run.dry_run()
        health = ControlClient(place).whole(GetHealth()).health
        if copy.is_current():
            return _explanation(run, "mux", health)
    raise SetupError(str(target_name(place)), "its configuration kept changing while it was read", "try again later")


def _explanation(run: MuxRun, source: str, health: Sequence[BackendHealth]) -> Explanation:
    """Run the packet and describe its path.  ``health``: the mux's health list of all backends."""
    service, outcome = run.service(), run.forward()
    states = states_of(service, run.snapshot, health) if service else []
    is_sent = outcome.verdict.kind == "send"
    return Explanation(
        run.packet, source, [*MuxSteps(run, outcome, states).steps()], outcome.verdict,
        service=service.name if service else None, backend=run.backend_name(outcome.target),
        hint="" if is_sent else hint(run, outcome.verdict, outcome.target, states),
        outer=outcome.frame if is_sent else b"",
    )  # fmt: skip
