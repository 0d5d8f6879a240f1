"""Asks the live nodes about a change before it is made: muxes plan it, agents count the connections of their hosts,
and edges do both.

Nodes that are connected to another manager are asked through it, with this manager's certificate.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import aiohttp

from lbmux.api.protocol import VERSION, from_plain
from lbmux.api.requests import CountConnections, GetCounters, GetHealth, PlanRevision, Request
from lbmux.errors import LbmuxError
from lbmux.manager.canary import Sample, sample
from lbmux.manager.documents import NodeReport, StoredOverrides
from lbmux.manager.impact import Connections, Plans
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_messages import pack_file
from lbmux.manager.relay import Relay

ANSWER_S, AT_ONCE = 3.0, 64
"""Time for each node's answer, in seconds; how many nodes are asked at a time."""
Result = TypeVar("Result")


@dataclass
class Answers(Generic[Result]):
    """What nodes answered, why some refused the request, and who did not answer."""

    results: dict[str, list[Result]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)


class NodeSurvey:
    """``relay`` returns the way to a node that is connected to this manager, or raises RelayError."""

    def __init__(self, manager: Manager, relay: Callable[[str], Relay]) -> None:
        self._manager, self._relay = manager, relay

    async def connections(self) -> Connections:
        """Count the live connections of the hosts of all agents and edges."""
        answers = await self._ask(("agent", "edge"), CountConnections())
        counts = Counter[tuple[str, str]]()
        for (answer,) in answers.results.values():
            for service, backend, number in answer.connections:
                counts[service, backend] += number
        return Connections(counts, (*answers.refused, *answers.silent))

    async def plans(self, text: bytes, stored: StoredOverrides) -> Plans:
        """Let all muxes and edges plan a file with overrides."""
        overrides = [one.model_dump(mode="json") for one in stored.overrides]
        answers = await self._ask(("mux", "edge"), PlanRevision(await asyncio.to_thread(pack_file, text), overrides))
        slots = dict[str, float]()
        for (answer,) in answers.results.values():
            for service, share in answer.slots_moved.items():
                slots[service] = max(share, slots.get(service, 0.0))
        return Plans(slots, answers.refused, tuple(answers.silent))

    async def samples(self) -> dict[str, Sample]:
        """Return the counters of all muxes that answer."""
        counters, health = await asyncio.gather(self._ask(("mux",), GetCounters()), self._ask(("mux",), GetHealth()))
        return {
            node: sample(answer, (line for part in health.results[node] for line in part.health))
            for node, (answer,) in counters.results.items() if node in health.results
        }  # fmt: skip

    async def _ask(self, roles: Collection[str], request: Request[Result]) -> Answers[Result]:
        """Ask all connected nodes of some roles."""
        line = json.dumps({"command": request.command, "version": VERSION, **vars(request)}) + "\n"
        nodes = [one for one in self._manager.nodes.values() if one.connected and one.role in roles]
        answers, limit, tls = Answers[Result](), asyncio.Semaphore(AT_ONCE), self._manager.identity.client_context()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=AT_ONCE)) as session:

            async def ask(report: NodeReport) -> None:
                async with limit:
                    try:
                        async with asyncio.timeout(ANSWER_S):
                            is_here = report.manager == self._manager.url
                            text = await (
                                self._here(report.node, line) if is_here else _elsewhere(session, report, line)
                            )
                        _take(report.node, text, request, answers)
                    except (TimeoutError, LbmuxError, aiohttp.ClientError, OSError, ValueError, KeyError):
                        answers.silent.append(report.node)

            await asyncio.gather(*map(ask, nodes))
        answers.silent.sort()
        return answers

    async def _here(self, node: str, line: str) -> str:
        async with aclosing(self._relay(node).ask(line)) as lines:
            return "".join([line async for line in lines])


async def _elsewhere(session: aiohttp.ClientSession, report: NodeReport, line: str) -> str:
    async with session.post(f"{report.manager}/v1/nodes/{report.node}/ask", data=line) as response:
        return await response.text()


def _take(node: str, text: str, request: Request[Result], answers: Answers[Result]) -> None:
    """Add a node's answers; raise ValueError or KeyError if they are not those of this version."""
    results = list[Result]()
    for answer in map(json.loads, text.splitlines()):
        if not answer["ok"]:
            answers.refused[node] = "; ".join([answer["error"], *answer.get("problems", ())])
            return
        if not answer.get("end"):
            results.append(from_plain(request.answer, answer["result"]))
    if not results:
        raise ValueError("no answer")
    answers.results[node] = results
