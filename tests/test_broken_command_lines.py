"""Any command line: it is done, or one message says what is wrong with it, with status 2."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.unlearning.own import Request
from mtopt import cli
from mtopt.cli import _parser
from tests.broken import FEW_OR_MANY, run_command

WORDS = sorted(
    {
        *_parser().commands,
        *(
            option
            for command in _parser().commands.values()
            for each in command.given
            for option in each.option_strings
        ),
    }
)


@pytest.fixture
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command would do is left out: what is tried is how it is read."""
    for name in ("_compare", "_report", "_export", "_merge", "_list", "_doctor", "_completion", "unlearn"):
        monkeypatch.setattr(cli, name, lambda options: 0)


word = (
    st.sampled_from(WORDS) | st.text(max_size=6) | st.sampled_from(["--", "-", "=", "1", "-1", "a=b", "--seed", "%s"])
)
lines = st.lists(word, max_size=6) | st.builds(
    lambda command, rest: [command, *rest], st.sampled_from(sorted(_parser().commands)), st.lists(word, max_size=6)
)


@FEW_OR_MANY
@pytest.mark.usefixtures("nothing_is_run")
def test_any_line(draws: int) -> None:
    @settings(max_examples=8 * draws)
    @given(lines)
    @example(["report", "--"])
    @example(["--seeds=%(prog)s"])
    @example(["compare", "a", "--seeds", "9" * 5000])
    @example(["unlearn", "--evaluate", "="])
    @example(["list", "\ud800"])
    def check(line: list[str]) -> None:
        status, out, told = run_command(*line)
        assert status in (0, 2)
        asked = {"-h", "--help", "--version"} & set(line)
        assert (status == 2) == bool(told)
        assert not told or told.splitlines()[-1].startswith("mtopt")
        assert "Traceback" not in told
        assert bool(out) <= bool(asked)

    check()


numbers = st.integers(-2, 3) | st.floats() | st.none()


@FEW_OR_MANY
def test_any_request_to_unlearn(draws: int) -> None:
    """A request is made, or refused in words, before any file is read."""
    names = st.sampled_from(["NPO+KL", "NGDiff+GeN", "npo", "kl", "mgda", "none", "rmu", "", "\ud800"])
    fields = {
        **dict.fromkeys(("method", "forget_loss", "retain_loss", "rule"), names),
        **dict.fromkeys(("learning_rate", "epochs", "batch_size", "accumulate", "evaluate_every"), numbers),
        "evaluate": st.dictionaries(names, names, max_size=2),
    }

    @settings(max_examples=draws)
    @given(st.fixed_dictionaries({}, optional=fields))
    def check(given: dict[str, Any]) -> None:
        try:
            request = Request("model", "forget", "retain", "out", **given)
        except (ValueError, LookupError) as error:
            assert len(str(error)) > 20  # noqa: PT017
        else:
            assert request.recipe().forget

    check()
