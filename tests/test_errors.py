import pytest

from perspective.errors import suggest_name


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("bankin77", ["mtop_domain", "banking77"], "did you mean banking77?"),
        ("--max_qurey", ["--max_query", "--seed"], "did you mean --max_query?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", {"only": 1}, "known: only"),
    ],
)
def test_the_nearest_known_name_is_suggested(name, known, hint):
    assert suggest_name(name, known) == hint
