"""Every input that the fuzzer kept for a parser is parsed, or refused with the parser's own error."""

from pathlib import Path

import pytest

from tests.fuzz.parser_seeds import seeds
from tests.fuzz.parsers import PARSERS, judge

CORPUS = Path(__file__).parent / "parsers_corpus"


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus_is_parsed_or_refused(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        judge(name, path.read_bytes())


@pytest.mark.parametrize("name", PARSERS)
def test_well_formed_and_truncated_inputs_are_parsed_or_refused(name: str) -> None:
    for data in seeds()[name]:
        for length in {len(data), len(data) // 2, max(0, len(data) - 1), 1, 0}:
            judge(name, data[:length])


def test_another_exception_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setitem(PARSERS, "bird", (broken, (ValueError,)))
    with pytest.raises(KeyError):
        judge("bird", b"")
