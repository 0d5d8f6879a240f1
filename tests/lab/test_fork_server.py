"""A fork is the process that `python -m` starts: its surroundings, its end, and what is left of the server in it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.errors import LabError
from lbmux.lab.fork_server import ForkedProcess, ForkServer
from tests.frames.pair import Pair

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.lab.forked_program"]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "output", tmp_path / "errors"


def started(server: ForkServer, files: tuple[Path, Path], *arguments: str, **options: Any) -> ForkedProcess:
    with files[0].open("w") as output, files[1].open("w") as errors:
        return server.start([*PROGRAM, *arguments], stdout=output, stderr=errors, **options)


def said(server: ForkServer, files: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    assert started(server, files, "say", **options).wait(30) == 0, files[1].read_text()
    return dict(json.loads(files[0].read_text()))


def interrupted(server: ForkServer, files: tuple[Path, Path], number: signal.Signals) -> int:
    """Send a signal to a program that waits, and return its exit code."""
    process = started(server, files, "wait")
    deadline = time.monotonic() + 30
    while not files[0].read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(30)


def test_it_runs_the_module_with_its_arguments(server: ForkServer, files: tuple[Path, Path]) -> None:
    output = said(server, files)
    assert output["arguments"] == ["say"]
    assert output["command"] == " ".join([*PROGRAM, "say"])


def test_output_and_errors_go_to_their_files(server: ForkServer, files: tuple[Path, Path]) -> None:
    said(server, files)
    assert json.loads(files[0].read_text())
    assert files[1].read_text() == "an error\n"


def test_it_has_only_its_own_streams(server: ForkServer, files: tuple[Path, Path]) -> None:
    other = started(server, files, "wait")
    output = said(server, (files[0].with_name("second"), files[1]))
    assert output["descriptors"] == [0, 1, 2]
    assert output["input"] == "/dev/null"
    other.kill()
    assert other.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("session", [False, True])
def test_its_session(server: ForkServer, files: tuple[Path, Path], session: bool) -> None:
    assert said(server, files, start_new_session=session)["leads_session"] == session


def test_its_environment_is_the_one_given(server: ForkServer, files: tuple[Path, Path]) -> None:
    assert said(server, files, env={"COLOUR": "blue", "ODD": "\udcff"})["environment"] == {
        "COLOUR": "blue",
        "ODD": "\udcff",
    }


def test_its_environment_directory_and_modules_are_the_clients(
    server: ForkServer, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "beside_it.py").write_text((ROOT / "tests/lab/forked_program.py").read_text())
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.chdir(tmp_path)
    with files[0].open("w") as output, files[1].open("w") as errors:
        command = [sys.executable, "-m", "beside_it", "say"]
        assert server.start(command, stdout=output, stderr=errors).wait(30) == 0, files[1].read_text()
    process = json.loads(files[0].read_text())
    assert process["environment"] == dict(os.environ)
    assert process["directory"] == str(tmp_path)


@pytest.mark.root
def test_it_enters_a_network_namespace(server: ForkServer, files: tuple[Path, Path], pair: Pair) -> None:
    own = os.stat("/proc/self/ns/net").st_ino
    there = pair.inside("a", lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    assert said(server, files)["network"] == own
    assert said(server, files, namespace=pair.namespace("a"))["network"] == there != own


@pytest.mark.parametrize("code", [0, 3])
def test_its_exit_code(server: ForkServer, files: tuple[Path, Path], code: int) -> None:
    process = started(server, files, "exit", str(code))
    assert process.wait(30) == code == process.poll()
    process.kill()  # does nothing


def test_it_ends_after_threads_and_exit_functions_and_leaves_its_modules(
    server: ForkServer, files: tuple[Path, Path]
) -> None:
    assert started(server, files, "end").wait(30) == 0
    assert files[0].read_text() == "thread\nexit function\n"


def test_an_exception_is_printed_and_ends_it_with_1(server: ForkServer, files: tuple[Path, Path]) -> None:
    assert started(server, files, "fail").wait(30) == 1
    assert files[1].read_text().endswith("ValueError: failed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(server: ForkServer, files: tuple[Path, Path], number: signal.Signals) -> None:
    assert interrupted(server, files, number) == -number


def test_sigint_raises_keyboard_interrupt(server: ForkServer, files: tuple[Path, Path]) -> None:
    assert said(server, files)["interrupt"]
    assert interrupted(server, files, signal.SIGINT) != 0
    assert files[1].read_text().endswith("KeyboardInterrupt\n")


def test_waiting_ends_after_the_given_time(server: ForkServer, files: tuple[Path, Path]) -> None:
    process = started(server, files, "wait")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert process.poll() is None
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_a_command_that_runs_no_module_is_refused(server: ForkServer, files: tuple[Path, Path]) -> None:
    with files[0].open("w") as output, pytest.raises(ValueError, match="does not run a module"):
        server.start(["sleep", "1"], stdout=output, stderr=output)


def test_a_process_has_one_server_even_if_threads_use_it_first_at_the_same_time() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from lbmux.errors import LabError
from lbmux.lab.fork_server import shared
with ThreadPoolExecutor(8) as pool:
    print(len({id(made) for made in pool.map(lambda _: shared(), range(8))}))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).stdout == b"1\n"


@pytest.mark.slow
def test_a_process_runs_on_when_the_server_has_ended(files: tuple[Path, Path]) -> None:
    server = ForkServer()
    process = started(server, files, "wait")
    server.close()
    with pytest.raises(LabError, match="the fork server has ended"):
        process.wait(30)
    os.kill(process.pid, signal.SIGKILL)  # raises if it has ended too


def test_the_server_has_one_thread(server: ForkServer, files: tuple[Path, Path]) -> None:
    """A fork has only the thread that called fork, and locks of others would stay locked."""
    parent = said(server, files)["parent"]
    assert re.search(r"^Threads:\t1$", Path(f"/proc/{parent}/status").read_text(), re.MULTILINE)
