"""A coroutine that runs beside a block."""

import asyncio

import pytest

from lbmux.daemons.background_task import background_task


class Work:
    """Work without an end, which notes where it is."""

    def __init__(self) -> None:
        self.began, self.state = asyncio.Event(), "waiting"

    async def run(self) -> None:
        self.state = "running"
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.state = "ended"


def test_it_runs_beside_the_block_and_has_ended_after_it() -> None:
    async def run() -> None:
        work = Work()
        async with background_task(work.run()):
            await work.began.wait()
            assert work.state == "running"
        assert work.state == "ended"

    asyncio.run(run())


def test_an_error_of_the_block_ends_it_too() -> None:
    async def run() -> None:
        work = Work()
        with pytest.raises(ValueError, match="in the block"):
            async with background_task(work.run()):
                await work.began.wait()
                raise ValueError("in the block")
        assert work.state == "ended"

    asyncio.run(run())


def test_an_error_of_its_own_is_logged_and_does_not_reach_the_block(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("in the background")

    async def run() -> None:
        async with background_task(fail()):
            await asyncio.sleep(0)

    asyncio.run(run())
    (record,) = caplog.records
    assert "fail" in record.message and record.exc_info and str(record.exc_info[1]) == "in the background"
