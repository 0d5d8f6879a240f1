import time
from pathlib import Path

import pytest

from lbmux.manager.api_client import ApiError
from lbmux.steering.inputs import read
from lbmux.steering.steering_plan import Plan, plan
from lbmux.tools.manager_maps import ManagerMaps
from tests.manager.running import running_manager
from tests.steering.steering_files import write_files


def planned(directory: Path) -> Plan:
    inputs = read(write_files(directory), time.time())
    return plan(inputs.steering, inputs.groups, inputs.latency, None, inputs.now)


def test_a_map_is_proposed_and_read(tmp_path: Path) -> None:
    wanted = planned(tmp_path)
    with running_manager(tmp_path / "manager") as manager:
        maps = ManagerMaps(manager.client())
        assert maps.number() == 0 and maps.current() is None
        assert maps.propose(wanted, 0, dry_run=True).number == 1
        assert maps.number() == 0
        assert maps.propose(wanted, 0, "begin").users == wanted.users
        assert maps.number() == 1
        assert (current := maps.current()) is not None
        assert (current[0].number, current[0].restores) == (1, None)
        assert current[1].to_json() == wanted.steering_map.to_json()
        with pytest.raises(ApiError, match="map 1 is current"):
            maps.propose(wanted, 0)
