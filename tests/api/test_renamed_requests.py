"""Old requests of the control socket are refused with their new names."""

import asyncio
from pathlib import Path

import pytest

from lbmux.api.control_server import ControlServer
from lbmux.api.renamed_requests import RENAMED
from lbmux.errors import ControlError
from tests.api.asking import ask


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_request_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "mux.sock"

    async def asked() -> None:
        async with ControlServer(path, {}):
            with pytest.raises(ControlError, match=f"`{old}` was renamed to `{new}`"):
                await asyncio.to_thread(ask, path, old)

    asyncio.run(asked())
