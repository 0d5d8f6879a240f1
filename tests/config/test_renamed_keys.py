"""Old keys of the configuration are refused with their new names."""

from pathlib import Path

import pytest

from lbmux.config.field_types import Model
from lbmux.config.loader import parse
from lbmux.config.renamed_keys import RENAMED
from lbmux.config.slowpath_models import SlowPath
from lbmux.config.table_models import Idle
from lbmux.errors import ConfigError

SECTIONS: dict[str, type[Model]] = {"slowpath": SlowPath, "idle": Idle}
SERVICE = "  - name: web\n    vip: 192.0.2.1\n    protocol: tcp\n    port: 80\n    backends: [{dip: 10.1.1.2}]\n"
RENAMINGS = [
    ("slowpath", "hosts_help", "second_chance"),
    ("slowpath", "hosts_asked", "second_chance_max_hosts"),
    ("idle", "trusted_s", "tcp_s"),
    ("idle", "closing_s", "fin_s"),
]


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), Path("lbmux.yaml"))
    return str(caught.value)


@pytest.mark.parametrize(("section", "old", "new"), RENAMINGS)
def test_an_old_key_is_refused_with_its_new_name(section: str, old: str, new: str) -> None:
    assert new in SECTIONS[section].model_fields and old not in SECTIONS[section].model_fields
    error = refusal(f"{section}:\n  {old}: 2\nservices:\n{SERVICE}")
    assert f"lbmux.yaml:2: {section}.{old}: was renamed to `{new}`" in error


@pytest.mark.parametrize(("old", "new"), [("trusted_s", "tcp_s"), ("closing_s", "fin_s")])
def test_an_old_idle_key_of_a_service_is_refused_too(old: str, new: str) -> None:
    error = refusal(f"services:\n{SERVICE}    idle:\n      {old}: 2\n")
    assert f"lbmux.yaml:8: services[0].idle.{old}: was renamed to `{new}`" in error


def test_every_renamed_key_is_tried() -> None:
    assert {old for _, old, _ in RENAMINGS} == RENAMED.keys()
