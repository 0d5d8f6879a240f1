"""A backup of either store goes into an empty one of either kind, with a higher epoch."""

import asyncio
import itertools
from pathlib import Path

import pytest

from lbmux.manager.store import backup
from lbmux.manager.store.backup import BackupError, back_up, restore
from lbmux.manager.store.election import campaign, resign
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import Store, Write
from tests.manager.etcd_server import Etcd

roots = itertools.count()


@pytest.mark.parametrize("back", [False, True], ids=["sqlite to etcd", "etcd to sqlite"])
def test_a_store_moves(back: bool, tmp_path: Path, etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "MOST_WRITES", 3)
    in_etcd, in_file = open_store(f"etcd://{etcd.endpoint}/backup{next(roots)}", etcd.tls), open_store(str(tmp_path))
    old, new = (in_etcd, in_file) if back else (in_file, in_etcd)

    async def scenario() -> None:
        async with old, new:
            wanted = {f"a/{number}": b"\x00%d" % number for number in range(10)} | {"pool/id": b"mine"}
            await old.commit([], [Write(key, value) for key, value in wanted.items()])
            before = await campaign(old, b"m1")
            assert await restore(new, await back_up(old), 1000.0) == 11
            entries = (await new.read("")).entries
            assert {key: one.value for key, one in entries.items()} == wanted | {"pool/generation": b"1000"}
            after = await campaign(new, b"m2")
            assert after.epoch > before.epoch
            again = await back_up(new)
            await resign(new, after)
            with pytest.raises(BackupError, match="not empty"):
                await restore(new, again, 1000.0)

    asyncio.run(scenario())


async def restored(store: Store, text: bytes, now: float) -> int:
    async with store:
        await restore(store, text, now)
        return (await campaign(store, b"")).epoch


def test_a_clock_that_went_back_does_not_lower_the_epoch(tmp_path: Path) -> None:
    text = b'{"lbmux_backup": 1, "entries": 1}\n["pool/generation", "OTk5"]\n'  # 999
    assert asyncio.run(restored(open_store(str(tmp_path / "a")), text, 5.0)) >> 32 == 1000
    assert asyncio.run(restored(open_store(str(tmp_path / "b")), text, 5000.0)) >> 32 == 5000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not a backup"),
        (b"\xff", "not a backup"),
        (b"[]\n", "not a backup"),
        (b'{"lbmux_backup": 2, "entries": 0}\n', "has format 2; this version reads 1"),
        (b'{"lbmux_backup": 1, "entries": 2}\n["a", ""]\n', "incomplete: 1 of 2"),
        (b'{"lbmux_backup": 1, "entries": 1}\n["a", "?"]\n', "not a backup"),
    ],
)
def test_a_file_that_is_not_a_whole_backup(text: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=reason):
        asyncio.run(restored(open_store(str(tmp_path)), text, 0.0))
