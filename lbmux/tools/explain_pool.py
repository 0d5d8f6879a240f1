"""Explain a packet in the whole pool: what each mux would do with it, and then the agent of the backend's host."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lbmux.api.channel import Channel
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetRuntime
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import ControlError
from lbmux.slowpath.tunnels import IANA_PORTS
from lbmux.tools.explain_agent import Passage, explain_at_agent
from lbmux.tools.explain_mux import explain_live
from lbmux.tools.explanation import Explanation, Step
from lbmux.tools.packet_text import ClientPacket
from lbmux.tracing.header_summary import HeaderSummary

TIMEOUT_S = 10.0


def explain_in_pool(packet: ClientPacket, muxes: Sequence[Channel], agents: Sequence[Channel]) -> Explanation:
    """Explain by the mux that has the packet's flow, else by the first that answers, and by the agent it sends to.

    Raise ControlError if no mux answers.
    """
    explanations: dict[str, Explanation] = {}
    silent: dict[str, ControlError] = {}
    for mux in muxes:
        try:
            explanations[mux.name] = explain_live(packet, mux)
        except ControlError as error:
            silent[mux.name] = error
    if not explanations:
        raise next(iter(silent.values()))
    chosen = next((one for one in explanations.values() if one.has_flow), next(iter(explanations.values())))
    first, *others = chosen.steps
    at_agent = _agent_steps(chosen.outer, agents) if chosen.outer else []
    *others, verdict = others
    return replace(chosen, steps=[first, _mux_step(explanations, silent, chosen), *others, *at_agent, verdict])


def _mux_step(explanations: Mapping[str, Explanation], silent: Mapping[str, ControlError], chosen: Explanation) -> Step:
    """Return which muxes agree, and which mux the other steps describe."""
    by_choice: dict[str, list[str]] = {}
    for name, one in explanations.items():
        by_choice.setdefault(one.backend or one.verdict.label, []).append(name)
    lines = [f"{' and '.join(names)}: {choice}" for choice, names in by_choice.items()]
    lines += [f"{name}: unknown, {error.reason}" for name, error in silent.items()]
    own = next(name for name, one in explanations.items() if one is chosen)
    why = f"{own}, which has the flow" if chosen.has_flow else f"{own}; no mux has the flow"
    data = {"muxes": {name: one.backend for name, one in explanations.items()}, "shown": own}
    return Step("muxes", f"{'; '.join(lines)} (steps of {why})", data)


def _agent_steps(outer: bytes, agents: Sequence[Channel]) -> list[Step]:
    """Return what the agent that has the outer destination would do with the frame."""
    host = str(HeaderSummary.read(outer).destination)
    for agent in agents:
        try:
            if host not in ControlClient(agent, TIMEOUT_S).ask(GetRuntime()).addresses:
                continue
            steps = explain_at_agent(Passage(outer, Verdict.DELIVERED, None, False, IANA_PORTS), agent)
        except ControlError as error:
            return [Step("agent", str(error), {"agent": agent.name})]
        return [Step("agent", agent.name, {"agent": agent.name}), *(_at_agent(step) for step in steps)]
    return [Step("agent", f"no agent of {host} is connected to the manager", {"agent": None})]


def _at_agent(step: Step) -> Step:
    return replace(step, step=f"agent {step.step.removeprefix('outer ')}")
