"""`lbmux simulate`: its options, what it prints and writes."""

import json
from pathlib import Path

import pytest

from lbmux.cli.main import run

SERVICES = Path(__file__).parents[3] / "pcaps" / "services.yaml"
SMALL = {
    "change": ("-c", str(SERVICES), "--drain", "h1"),
    "balance": ("--size", "211", "--backends", "10", "--views", "20", "--repeats", "2"),
    "resilience": ("--size", "211", "--backends", "10", "--failures", "1", "--failures", "2", "--repeats", "2"),
    "jet": ("--servers", "20", "--horizon", "4", "--connections", "2000", "--seconds", "60", "--size", "251"),
    "flows": ("planned", "--policy", "base", "--policy", "newest", "--repeats", "1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_table_a_csv_file_and_a_plot(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "x.csv", tmp_path / "x.png"]
    assert run(["simulate", name, *SMALL[name], "--csv", str(files[0]), "--plot", str(files[1])]) == 0
    assert "%" in capsys.readouterr().out
    assert len(files[0].read_text().splitlines()) > 1 and files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_json_is_what_plot_reads(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", name, *SMALL[name], "-j"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["simulation"], answer["parameters"]["seed"]) == (1, name, 1)
    (tmp_path / "x.json").write_text(json.dumps(answer))
    assert run(["plot", str(tmp_path / "x.json"), "-o", str(tmp_path / "x.svg")]) == 0
    assert (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["balance", "--size", "65536"], "65536 is not a prime number"),
        (["balance", "--size", "many"], "'many' is not a number"),
        (["balance", "--repeats", "0"], "--repeats"),
        (["balance", "--plot", "x.jpeg"], "should end in .png"),
        (["change", "-c", str(SERVICES)], "needs a change"),
        (["change", "-c", str(SERVICES), "--weight", "h1"], "should be BACKEND=WEIGHT"),
        (["change", "-c", str(SERVICES), "--add", "web"], "should be SERVICE=DIP[:PORT]"),
        (["jet", "--servers", "20"], "more than half of the servers would leave"),
        (["flows", "unplanned"], "'unplanned' is not one of planned, all"),
        (["flows", "--policy", "none"], "'none' is not one of: every; all"),
        (["resilience", *SMALL["resilience"], "--failures", "10"], "from 1 to 9"),
    ],
)
def test_wrong_usage(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *arguments]) == 2
    assert why in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, file in (("--csv", "x.csv"), ("--plot", "x.png")):
        assert run(["simulate", "balance", *SMALL["balance"], option, str(tmp_path / "none" / file)]) == 1
        assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("edit", [("--drain", "nope"), ("--add", "web=10.1.9"), ("--weight", "h1=70000")])
def test_an_edit_that_does_not_apply(edit: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "change", "-c", str(SERVICES), *edit]) == 1
    assert capsys.readouterr().err.startswith("lbmux: ")


def test_a_change_that_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "change", "-c", str(SERVICES), "--to", str(SERVICES)]) == 0
    assert "without a change" in capsys.readouterr().out


def test_edits_may_name_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["simulate", "change", "-c", str(SERVICES), "--weight", "web/h1=3", "--add", "web=10.1.9.2:81", "-j"]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["service"] == "web" and row["need_entries"] > 0
