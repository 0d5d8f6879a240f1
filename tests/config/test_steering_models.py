from typing import Any

import pytest
from pydantic import ValidationError

from tests.steering.pool import steering


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"default": "par"}, "is not the name of a PoP"),
        ({"pops": {"fra": {"name": "ams"}}}, "two PoPs have the same name"),
        ({"pops": {"fra": {"load": 5}}}, "for all PoPs or for none"),
        ({"pops": {"fra": {"capacity": 0}}}, "greater than 0"),
        ({"pops": {"fra": {"addresses": []}}}, "at least 1 item"),
        ({"name": "x y"}, "pattern"),
        ({"lambda": 5}, "Extra inputs"),
    ],
)
def test_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        steering(**more)
