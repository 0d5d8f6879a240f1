"""Which reports of black holes a mux sends again."""

import asyncio
import logging
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbmux.manager import black_hole_reports
from lbmux.manager.api_models import BlackHoleRequest
from lbmux.manager.black_hole_reports import MOST, BlackHoleReports

PLAIN: Any = False
"""The server has no TLS."""


def report(number: int) -> BlackHoleRequest:
    return BlackHoleRequest(vip=ip_address("192.0.2.1"), begins=True, reason=str(number))


def sent(statuses: list[int], *reports: BlackHoleRequest) -> list[str]:
    """Return the reasons of the reports as a manager got them, which answered with these statuses in turn."""
    received, left = list[str](), [*statuses]

    async def answer(request: web.Request) -> web.Response:
        received.append(BlackHoleRequest.model_validate_json(await request.read()).reason)
        return web.Response(status=left.pop(0))

    async def send() -> None:
        application = web.Application()
        application.router.add_post("/v1/black-holes", answer)
        async with TestServer(application) as server:
            url = ["", str(server.make_url("")).rstrip("/")]  # it is not connected at first
            sender = BlackHoleReports(lambda: url[0] if len(url) == 1 else url.pop(0), lambda: PLAIN)
            for one in reports:
                sender.add(one)
            task = asyncio.create_task(sender.run())
            while left:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(send(), 60))
    return received


def test_a_report_is_sent_until_a_primary_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_hole_reports, "AGAIN_S", 0.01)
    assert sent([503, 200, 200], report(1), report(2)) == ["1", "1", "2"]


def test_a_report_that_is_refused_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(black_hole_reports, "AGAIN_S", 0.01)
    with caplog.at_level(logging.WARNING):
        assert sent([404, 200], report(1), report(2)) == ["1", "2"]
    assert "did not take the report about VIP 192.0.2.1: 404" in caplog.text


def test_the_oldest_reports_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_hole_reports, "AGAIN_S", 0.01)
    assert sent([200] * MOST, *map(report, range(MOST + 2))) == [str(number) for number in range(2, MOST + 2)]
