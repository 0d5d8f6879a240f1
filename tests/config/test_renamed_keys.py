"""Old keys of the configuration are refused with their new names."""

from pathlib import Path

import pytest

from lbmux.config.loader import parse
from lbmux.config.models import SlowPath
from lbmux.config.renamed_keys import RENAMED
from lbmux.errors import ConfigError


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_refused_with_its_new_name(old: str, new: str) -> None:
    assert new in SlowPath.model_fields and old not in SlowPath.model_fields
    text = f"slowpath:\n  {old}: 2\nservices: []\n"
    with pytest.raises(ConfigError, match=f"lbmux.yaml:2: slowpath.{old}: was renamed to `{new}`"):
        parse(text.encode(), Path("lbmux.yaml"))
