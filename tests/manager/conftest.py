"""One etcd member for all tests of the manager that ask for it."""

from collections.abc import Iterator

import pytest

from tests.manager.etcd_server import Etcd, etcd_server


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    with etcd_server() as server:
        yield server
