"""Verdicts: three kinds, by number."""

from lbmux.datapath.verdicts import VERDICTS, Verdict


def test_kinds() -> None:
    assert {verdict.label for verdict in Verdict if verdict.kind == "send"} == {
        "forwarded", "delivered", "replied", "hairpin",
    }  # fmt: skip
    assert {verdict.label for verdict in Verdict if verdict.kind == "drop"} == {
        "no_backend", "denied", "congested", "no_headroom", "not_a_mux", "no_local_backend", "unsent", "out_of_table",
        "reset_suppressed", "over_packet_rate", "over_flow_rate", "over_flow_share", "black_holed",
    }  # fmt: skip
    assert Verdict.NOT_VIP.kind == Verdict.NO_NEIGHBOUR.kind == Verdict.TOO_BIG.kind == Verdict.TTL.kind == "pass"


def test_every_verdict_has_a_counter() -> None:
    assert max(Verdict) < VERDICTS
    assert VERDICTS & (VERDICTS - 1) == 0
