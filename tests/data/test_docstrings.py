"""The retrieval set of docstrings: what is taken, what is left out."""

import sys

import pytest

from perspective.data.docstring_text import MAX_DOCUMENT_CHARACTERS, clean_text, split_docstring
from perspective.data.docstrings import DocsSettings, make_docs_set, read_packages
from perspective.errors import DataError

BODY = "Rows that hold no value are not counted unless the caller asks for them by name, in which case they are all."
LETTERS = "abcdefghijklmnopqrs"


def make_body(number):
    """Words that no other number has."""
    return " ".join(f"{letter}{number}" for letter in LETTERS * 2)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Write a package of functions with given docstrings; importing it fails."""

    def write(name, docstrings):
        folder = tmp_path / name
        (folder / "tests").mkdir(parents=True)
        source = "\n".join(f"def {key}():\n    {text!r}\n" for key, text in docstrings.items())
        (folder / "__init__.py").write_text('raise RuntimeError("imported")\n')
        (folder / "part.py").write_text(source)
        (folder / "tests" / "test_part.py").write_text(source.replace("def ", "def test_"))
        (folder / "broken.py").write_text("def {{ name }}(:\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("perspective.data.docstrings.find_version", lambda name: "1")
    return write


def test_numpydoc_sections_directives_and_doctests_are_dropped():
    docstring = f"""Count the rows of one table.

    .. versionadded:: 1.2
       With a word on why.

    {BODY}

    .. note::
       A note stays.

    Parameters
    ----------
    table : array_like
        What is counted.

    See Also
    --------
    count_columns : Count the columns.

    Notes
    -----
    It is fast [1]_.

    Examples
    --------
    >>> count_rows(3)
    """
    summary, body = split_docstring(docstring)
    assert summary == "Count the rows of one table."
    assert body == (f"{BODY} A note stays. Parameters table : array_like What is counted. Notes It is fast .")


def test_google_examples_are_dropped_and_arguments_kept():
    example = "Example:\n\n    ```py\n    x\n    ```\n\nEnd."
    docstring = f"Count the rows of a table.\n\nArgs:\n    table (`Table`): {BODY}\n\n{example}"
    assert split_docstring(docstring)[1] == f"Args: table (Table): {BODY} End."


@pytest.mark.parametrize(
    "docstring",
    [
        "Count the rows of a table.",  # no body
        "Count the rows of a table.\n\nShort.",
        f"Count the rows.\n\n%(params)s {BODY}",
        f"Count the rows.\n\n{{inputs}} {BODY}",
        f"Count the rows of a table.\n\nDeprecated since 1.0. {BODY}",
        f"Count rows well.\n\n{BODY} Count rows well. It repeats the query.",
    ],
)
def test_docstrings_that_make_no_document(docstring):
    assert split_docstring(docstring) is None


@pytest.mark.parametrize(
    "summary",
    ["Rows.", "count_rows(table, axis)", "rank (int): The rank of all the matrices.", "Alias of another one here."],
)
def test_summaries_that_make_no_query(summary):
    assert split_docstring(f"{summary}\n\n{BODY}")[0] == ""


def test_long_bodies_are_cut_between_words():
    body = split_docstring("Count the rows of a table.\n\n" + "wordy " * 500)[1]
    assert len(body) <= MAX_DOCUMENT_CHARACTERS
    assert body.endswith("wordy")


def test_markup_is_removed():
    text = "`~a.b.C` and `.D`, *x* of **kwargs, [link](http://x), `text <http://y>`_ <Added version='1'/> x < y"
    assert clean_text(text) == "C and D, x of **kwargs, link, text x < y"


def test_a_set_is_made_by_package_without_importing(packages):
    packages("teach", {f"learn_{n}": f"Learn the trade number {n} of{n} all{n}.\n\n{make_body(n)}" for n in range(3)})
    packages(
        "exam",
        {
            "one": f"Find the first answer quickly.\n\n{make_body(10)}",
            "copy_of_one": f"Fetch another answer some day.\n\n{make_body(10)}",  # the same document
            "two": f"Count what remains of it.\n\n{make_body(11)}",
            "two_again": f"Count what remains of it.\n\n{make_body(12)}",  # the same query
            "_private": f"Hide whatever nobody should see.\n\n{make_body(13)}",
        },
    )
    packages("more", {"copied": f"Search the best reply slowly.\n\n{make_body(10)}"})  # a test document
    pairs, collection = make_docs_set(DocsSettings(["teach", "more"], ["exam"]))
    assert [(pair.query, pair.source) for pair in pairs] == [
        (f"Learn the trade number {n} of{n} all{n}.", "teach") for n in range(3)
    ]
    assert list(collection.corpus) == ["exam.part.one", "exam.part.two", "exam.part.two_again", "exam.part._private"]
    assert collection.queries == {"q-exam.part.one": "Find the first answer quickly."}
    assert collection.qrels == {"q-exam.part.one": {"exam.part.one": 1}}
    assert not {"teach", "exam", "more"} & set(sys.modules)
    assert [entry.key for entry in read_packages(["exam"], public=True)] == [
        f"exam.part.{key}" for key in ("one", "copy_of_one", "two", "two_again")
    ]


def test_packages_must_be_there_and_on_one_side():
    with pytest.raises(DataError, match="--train_packages and --test_packages share numpy"):
        DocsSettings(["numpy", "scipy"], ["numpy"])
    with pytest.raises(DataError, match="no_such_package: not installed"):
        read_packages(["no_such_package"])
    with pytest.raises(DataError, match="no_such_package: not installed"):
        DocsSettings(["no_such_package"], ["numpy"]).made_from()


def test_a_module_of_one_file_is_read_alone(packages, tmp_path):
    docstring = f"Count the rows.\n\n{BODY}"
    (tmp_path / "single.py").write_text(f"def one():\n    {docstring!r}\n")
    packages("beside", {"other": docstring})
    assert [entry.key for entry in read_packages(["single"])] == ["single.one"]
    packages("empty", {})
    with pytest.raises(DataError, match="empty: no docstrings usable as queries"):
        make_docs_set(DocsSettings(["beside"], ["empty"]))
