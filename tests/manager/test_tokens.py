"""Tokens: their stored form, and the requests that they allow."""

import pytest

from lbmux.manager.tokens import (
    AccessError,
    AccessRole,
    ca_fingerprint_in,
    check_role,
    check_secret,
    check_service,
    new_join_token,
    new_token,
    token_id,
)

NOW = 1000.0


def test_the_store_does_not_know_the_secret() -> None:
    stored, text = new_token("alice", "operator", NOW)
    assert text.rpartition("_")[2] not in stored.model_dump_json() and token_id(text) == stored.id
    assert stored.digest not in repr(stored)
    check_secret(text, stored, NOW)


@pytest.mark.parametrize("wrong", ["", "lbmux_", "lbmux_0_0", f"lbmux_{'0' * 12}_{'g' * 64}"])
def test_a_text_that_is_not_a_token(wrong: str) -> None:
    with pytest.raises(AccessError, match="not one of lbmux"):
        token_id(wrong)


def test_another_secret_is_refused() -> None:
    (stored, text), (_, other) = new_token("alice", "viewer", NOW), new_token("bob", "admin", NOW)
    join, join_text = new_join_token("mux1", "node", NOW + 60, "0" * 64)
    for presented, known in [(other, stored), (text, None), (join_text, stored), (text, join)]:
        with pytest.raises(AccessError, match="unknown"):
            check_secret(presented, known, NOW)
    check_secret(join_text, join, NOW)


def test_a_token_ends() -> None:
    stored, text = new_token("alice", "viewer", NOW, until=NOW + 10)
    check_secret(text, stored, NOW + 9.9)
    with pytest.raises(AccessError, match="expired"):
        check_secret(text, stored, NOW + 10)


@pytest.mark.parametrize(
    ("has", "may"),
    [("viewer", ["viewer"]), ("operator", ["viewer", "operator"]), ("admin", ["viewer", "operator", "admin"])],
)
def test_roles(has: AccessRole, may: list[AccessRole]) -> None:
    token, _ = new_token("alice", has, NOW)
    needs: AccessRole
    for needs in ("viewer", "operator", "admin"):
        if needs in may:
            check_role(token, needs)
        else:
            with pytest.raises(AccessError, match=f"needs the role {needs}"):
                check_role(token, needs)


def test_services() -> None:
    anywhere, limited = new_token("a", "operator", NOW)[0], new_token("b", "operator", NOW, ("web",))[0]
    for service in (None, "web", "mail"):
        check_service(anywhere, service)
    check_service(limited, "web")
    for service in (None, "mail"):
        with pytest.raises(AccessError, match="may change only service web"):
            check_service(limited, service)


def test_services_that_share_a_pool() -> None:
    anywhere, limited = new_token("a", "operator", NOW)[0], new_token("b", "operator", NOW, ("web", "tls"))[0]
    check_service(anywhere, "web", ["web", "mail"])
    check_service(limited, "web", ["web", "tls"])
    with pytest.raises(AccessError, match="may not change mail and 1 more, which shares the pool of web"):
        check_service(limited, "web", ["web", "mail", "dns"])


def test_a_join_token_names_the_ca() -> None:
    _, text = new_join_token("mux1", "node", NOW, "ab" * 32)
    assert ca_fingerprint_in(text) == "ab" * 32
    with pytest.raises(AccessError, match="join-token"):
        ca_fingerprint_in(new_token("alice", "admin", NOW)[1])
