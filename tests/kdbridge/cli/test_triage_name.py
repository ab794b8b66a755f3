"""kdbridge triage-name: one word, the same wherever it is read from and wherever images were loaded."""

from __future__ import annotations

from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home


def test_one_word_the_same_everywhere(home: Home) -> None:
    answers = [call("triage-name", source) for source in (sim(), home.complete, home.small, home.snapshot)]
    words = {answer.out for answer in answers}
    assert len(words) == 1 and {answer.code for answer in answers} == {0}
    (word,) = words
    assert word.startswith("D1_mydrv+") and word.endswith("\n") and " " not in word
    assert call("triage-name", home.complete, "--json").document["bucket"] == word.strip()
    assert call("analyze", home.complete, "--json").document["bucket"] == word.strip()
