"""Removed backends keep their connections, and go with the last one."""

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import running
from tests.daemons.slow_lab import balanced, configuration
from tests.daemons.web_lab import (
    DRIVERS,
    OUT_S,
    SHORT,
    TRUSTED_S,
    agent,
    echo,
    hosts,
    in_kernel,
    line,
    rows,
    server,
    states,
    tell,
    to_host,
    wait,
    wait_for_rows,
    wait_until,
    web,
)

pytestmark = pytest.mark.root


@DRIVERS
@pytest.mark.parametrize("how", ["by command", "by configuration"])
def test_removed_backend_keeps_its_connections_and_goes_with_the_last(lab: Lab, kernel: bool, how: str) -> None:
    both = web() | SHORT
    with server(lab, 1), server(lab, 2), balanced(lab, services=[both], **in_kernel(kernel)) as mux:
        kept, why = to_host(lab, 1), "no longer in the configuration"
        if how == "by command":
            why = "removed by command"
            done = tell(mux, "remove", "h1", "--control", str(agent(lab, 1)))
            assert done.stdout.splitlines() == [
                f"{agent(lab, 1)}: web/h1: removing: {why}", f"{mux.control}: web/h1: removing: {why}"
            ], done.stderr  # fmt: skip
        else:
            lab.write_config(configuration(services=[both | {"backends": both["backends"][1:]}]))
            lines = tell(mux, "config", "diff", str(lab.config)).stdout.splitlines()
            assert lines[0].startswith("service web: changed: ") and lines[1] == "  backend h1: removed"
            assert lines[-1].startswith("0 of ") and lines[-1].endswith(" with removed backends")
            for control in (agent(lab, 1), agent(lab, 2), mux.control):
                ask(control, "reload")
        for control in (agent(lab, 1), mux.control):
            status = line(control, "h1")
            assert (status["state"], status["reason"], status["drained"]) == ("removing", why, False)
            assert status["since"]
        assert hosts(lab) == {2}
        echo(kept, TRUSTED_S + 2)
        assert rows(mux.control) == {"h1", "h2"} and rows(agent(lab, 1)) == {"h1"}
        kept.close()
        wait(lambda: rows(mux.control) == {"h2"}, mux)
        wait(lambda: not rows(agent(lab, 1)), mux)
        mux.wait_for("backend h1 of service web is removed")
        assert states(mux) == ({"h1": "removed", "h2": "up"} if how == "by command" else {"h2": "up"})
        assert hosts(lab) == {2}


def test_a_removed_backend_can_be_enabled_during_and_after_its_removal(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web() | SHORT]) as mux, to_host(lab, 1) as kept:
        where = ("--control", str(agent(lab, 1)))
        assert tell(mux, "remove", "h1", *where).returncode == 0
        assert hosts(lab) == {2}
        assert tell(mux, "enable", "h1", *where).returncode == 0
        assert hosts(lab) == {1, 2}
        echo(kept)
        tell(mux, "remove", "h1", *where)
        assert tell(mux, "disable", "h1").stdout == "web/h1: removed: by command\n"  # do not wait for it
        assert rows(mux.control) == {"h2"}
        assert tell(mux, "enable", "h1", *where).returncode == 0
        assert hosts(lab) == {1, 2}


def test_a_backend_that_dies_during_its_removal_is_gone(lab: Lab) -> None:
    with server(lab, 2), balanced(lab, services=[web(kind="tcp") | SHORT]) as mux:
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            kept = to_host(lab, 1)
            assert tell(mux, "remove", "h1").returncode == 0
            assert states(mux)["h1"] == "removing"
            echo(kept)
        wait_until(mux, "h1", "removed", OUT_S + 2)
        assert rows(mux.control) == {"h2"}


@DRIVERS
def test_removed_backend_keeps_its_connections_over_a_restart_of_the_mux(lab: Lab, kernel: bool) -> None:
    options = ("--driver", "xdp") if kernel else ()
    with server(lab, 1), server(lab, 2), balanced(lab, options=options, services=[web() | SHORT]) as mux:
        kept = to_host(lab, 1)
        assert tell(mux, "remove", "h1").returncode == 0
        assert mux.end() == 0
        with running(lab, "mux1", "mux", *in_kernel(kernel)["options"]) as again:
            assert line(again.control, "h1")["state"] == "removing"
            echo(kept)
            assert hosts(lab) == {2}
            kept.close()
            wait(lambda: rows(again.control) == {"h2"}, again)
