import pytest

from perspective.errors import DataError, JudgeError, ModelError, PerspectiveError, suggest_name


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("bankin77", ["mtop_domain", "banking77"], "did you mean banking77?"),
        ("--max_qurey", ["--max_query", "--seed"], "did you mean --max_query?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", {"only": 1}, "known: only"),
    ],
)
def test_suggest_name(name, known, hint):
    assert suggest_name(name, known) == hint


def test_every_user_error_has_one_base():
    assert all(issubclass(kind, PerspectiveError) for kind in (DataError, ModelError, JudgeError))
