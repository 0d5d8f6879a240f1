"""A reload reports the overrides that take precedence over the file."""

from lbmux.backends.override_precedence import precedences
from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Config
from tests.linux.inside import CONFIG

FILE = Config.model_validate(CONFIG)
H1, H2 = ("web", "h1"), ("web", "h2")
WEIGHT = next(one.weight for service in FILE.services if service.name == "web" for one in service.backends)


def test_a_backend_that_the_file_has_serving_and_a_command_has_not() -> None:
    overrides = Overrides({H1: Override(1.0, admin_state="drain"), H2: Override(1.0, admin_state="remove")})
    assert precedences(FILE, overrides) == [
        "override: service web: backend h1: drained by command (`lbmux enable h1` reverts it)",
        "override: service web: backend h2: removed by command (`lbmux enable h2` reverts it)",
    ]


def test_another_weight_than_the_file_s() -> None:
    text = f"weight 9 by command, not the file's {WEIGHT} (`lbmux weight h1` reverts it)"
    assert precedences(FILE, Overrides({H1: Override(1.0, weight=9)})) == [f"override: service web: backend h1: {text}"]
    both = precedences(FILE, Overrides({H1: Override(1.0, admin_state="disable", weight=9)}))
    assert len(both) == 1 and "disabled by command" in both[0] and text in both[0]


def test_overrides_that_the_file_repeats_or_lacks_are_not_listed() -> None:
    overrides = Overrides({H1: Override(1.0, weight=WEIGHT), ("web", "gone"): Override(1.0, admin_state="drain")})
    assert precedences(FILE, overrides) == []
