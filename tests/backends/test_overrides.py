from typing import Any

from lbmux.backends.overrides import Override, Overrides, Removal, with_overrides
from lbmux.config.models import Backend, Config


def configured(*backends: dict[str, Any], **more: Any) -> Config:
    """One service, and another beside it."""
    web = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": [*backends]} | more
    mail = {"name": "mail", "vip": "192.0.2.1", "protocol": "tcp", "port": 25, "backends": [backend(1)]}
    return Config.model_validate({"services": [web, mail]})


def backend(n: int, **more: Any) -> dict[str, Any]:
    return {"name": f"b{n}", "dip": f"10.0.2.{n}", "port": 8080} | more


def weights(config: Config, service: str = "web") -> dict[str, int]:
    (matching,) = (one for one in config.services if one.name == service)
    return {backend.name: backend.weight for backend in matching.backends}


TWO = configured(backend(1), backend(2, weight=2))
B9 = Backend.model_validate(backend(9))
WEB1 = ("web", "b1")


def test_without_overrides_it_is_the_file() -> None:
    assert with_overrides(TWO, Overrides()) == TWO
    assert with_overrides(TWO, Overrides()).services[0] is TWO.services[0]


def test_a_draining_or_disabled_backend_keeps_its_settings() -> None:
    assert with_overrides(TWO, Overrides({WEB1: Override(0, "drain"), ("web", "b2"): Override(0, "disable")})) == TWO


def test_removed_added_and_weighed() -> None:
    overridden = with_overrides(
        TWO,
        Overrides(
            {WEB1: Override(0, "remove"), ("web", "b2"): Override(0, weight=7), ("web", "b9"): Override(0, added=B9)}
        ),
    )
    assert weights(overridden) == {"b2": 7, "b9": 1}
    assert weights(overridden, "mail") == {"b1": 1}


def test_added_with_another_weight() -> None:
    assert weights(with_overrides(TWO, Overrides({("web", "b9"): Override(0, weight=5, added=B9)}))) == {
        "b1": 1,
        "b2": 2,
        "b9": 5,
    }


def test_backends_being_removed_have_no_weight_and_are_not_wanted() -> None:
    overrides = Overrides({}, {("web", "b9"): Removal(0, B9.model_copy(update={"weight": 0}), "")})
    assert weights(with_overrides(TWO, overrides)) == {"b1": 1, "b2": 2, "b9": 0}
    assert with_overrides(TWO, overrides.without_removals()) == TWO
    assert overrides.admin_states == {("web", "b9"): "removing"}


def test_an_override_for_a_missing_service() -> None:
    assert with_overrides(TWO, Overrides({("gone", "b9"): Override(0, added=B9)})) == TWO
