"""docs/api.md runs: each block continues the one before, and says what it prints."""

import doctest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "api.md"


def test_every_block_prints_what_the_page_says() -> None:
    text = "\n".join(blocks(PAGE, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert results.attempted > 20 and results.failed == 0, "".join(said)
