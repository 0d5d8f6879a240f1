"""Coroutines that end together."""

import asyncio

import pytest

from lbmux.manager.first_ended import until_one_ends


def test_the_others_end_with_the_first() -> None:
    ended = []

    async def long(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def short() -> None:
        await asyncio.sleep(0)

    asyncio.run(until_one_ends(long("a"), short(), long("b")))
    assert ended == ["a", "b"]


def test_the_error_of_the_first_is_raised_and_the_others_have_ended() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
            raise ValueError("while it is cancelled")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(until_one_ends(long(), fails()))
    assert ended == [True]


def test_all_end_when_the_caller_is_cancelled() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def cancelled() -> None:
        task = asyncio.create_task(until_one_ends(long(), long()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ended == [True, True]
