"""Replies are read strictly; recipes and settings are checked."""

import json

import numpy as np
import pytest
import yaml
from helpers import refuse

from perspective.errors import DataError
from perspective.synthesis.brainstorm import is_edited, load_tasks, pool_tasks
from perspective.synthesis.forms import FORMS, TYPES, make_pair, read_reply, response_format
from perspective.synthesis.questions import Prompter, plan_free, plan_grounded
from perspective.synthesis.recipe import RECIPE, load_recipe, sample_values, seed_generator, share_out
from perspective.synthesis.settings import SynthesisSettings


@pytest.fixture(scope="module")
def recipe():
    return load_recipe()


GOOD = {"query": "how are arrays sorted", "positive": "Call sort on it.", "hard_negative": "Arrays hold numbers."}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (json.dumps(GOOD), ""),
        (f"```json\n{json.dumps(GOOD)}\n```", ""),
        ("", "no reply"),
        ("Sure! Here is an example.", "not JSON"),
        (f"Here it is: {json.dumps(GOOD)}", "not JSON"),
        (json.dumps(GOOD)[:-4], "JSON that is cut off"),
        (json.dumps([GOOD]), "not an object"),
        (json.dumps({"query": "a", "positive": "b"}), "a field is missing"),
        (json.dumps({**GOOD, "title": "x"}), "an unknown field"),
        (json.dumps({**GOOD, "positive": 3}), "not a text"),
        (json.dumps({**GOOD, "positive": " \u200b"}), "an empty field"),
        (json.dumps({**GOOD, "positive": "How are arrays SORTED?"}), "the same text twice"),
        (json.dumps({**GOOD, "positive": "A shown text."}), "copied from the prompt"),
        ('{"query": "\\ud83d", "positive": "b", "hard_negative": "c"}', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_reply_is_kept_or_its_fault_is_named(reply, fault):
    texts, found = read_reply("short_long", reply, {"a shown text"})
    assert found == fault
    assert texts == ([] if fault else list(GOOD.values()))


def test_every_form_becomes_a_pair():
    for kind in TYPES:
        texts = [f"text {name}" for name in FORMS[kind].model_fields]
        pair = make_pair(kind, texts, "the document" if kind == "grounded" else None)
        assert pair.query == texts[0] and pair.source == kind
        assert pair.document == ("the document" if kind == "grounded" else texts[1])
        assert pair.hard_negatives == tuple(texts[2:])
        schema = response_format(kind)["json_schema"]["schema"]
        assert schema["additionalProperties"] is False and schema["required"] == list(FORMS[kind].model_fields)


def test_the_recipe_has_the_published_shares(recipe):
    counts = share_out(recipe, TYPES, 500_000, equal=False)
    assert {kind: round(n / 1000) for kind, n in counts.items()} == {
        **{"short_long": 165, "long_short": 120, "sts": 98, "bitext": 88, "long_long": 17, "short_short": 13}
    }  # 507,000 in the paper's figures, rounded to 500,000
    assert share_out(recipe, ("sts", "bitext"), 5, equal=True) == {"sts": 3, "bitext": 2}
    assert len(recipe.languages) == 93
    rng = np.random.default_rng(0)
    drawn = [sample_values(recipe, "sts", list(recipe.languages), rng)["language"] for _ in range(2000)]
    assert drawn.count("en") / 2000 == pytest.approx(0.43, abs=0.03)


def test_both_languages_of_a_translation_differ(recipe):
    for number in range(50):
        values = sample_values(recipe, "bitext", ["en", "ko"], seed_generator(number))
        assert {values["language"], values["target_language"]} == {"en", "ko"}


def test_more_examples_keep_the_earlier_ones(recipe):
    tasks = {"short_long": ["one task that is there", "another task that is there"]}
    few, many = (plan_free(recipe, ["short_long"], n, True, ["en"], tasks, 0) for n in (10, 40))
    assert many[:10] == few and many[10] not in few
    passages = {str(row): f"passage {row}" for row in range(6)}
    few, many = (plan_grounded(recipe, passages, n, ["en"], 0) for n in (6, 12))
    assert many[:6] == few and {question.passage for question in few} == set(passages)


def test_every_prompt_is_filled(recipe):
    tasks = {kind: one.tasks for kind, one in recipe.types.items()}
    questions = plan_free(recipe, list(recipe.types)[1:], 60, True, ["en", "fr"], tasks, 0)
    questions += plan_grounded(recipe, {"a": "The cat sat. <|im_end|>", "b": "b"}, 2, ["ko"], 0)
    for question in questions:
        chat = "".join(Prompter(recipe, True).split(question))
        shots = Prompter(recipe, False).split(question)
        assert "{" not in chat.replace('{"', "") and all(
            f'"{name}"' in chat for name in FORMS[question.kind].model_fields
        )
        assert shots[1].endswith("JSON:") and shots[0].count("JSON: {") == len(recipe.types[question.kind].shots)
        assert "<|im_end|>" not in chat + shots[1]
    assert "Korean" in chat


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{query_form} of", "{query_frm} of", r'grounded: placeholder "query_frm": did you mean query_form'),
        ("Write three texts in", "{task} in", r'sts: placeholder "task": known: '),
        ("into\n      {target_language}", "on {document}", r'bitext: placeholder "document": known: '),
        ("    share: 167", "    share: -1", r"types.short_long.share: input should be greater"),
        ("  sts:", "  stss:", "types.stss"),
        ("{clear: 0.34,", "{clear: [", r"recipe.yaml:\d+: bad YAML"),
        ("{sentence: 0.6, phrase: 0.2, passage: 0.2}", "{sentence: 0}", "unit: the probabilities must not all be 0"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, old, new, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"languages": ["xx"]}, '--languages "xx": unknown code'),
        ({"languages": ["english"]}, '--languages "english": unknown code; did you mean en'),
        ({"types": ["short_longs"]}, "did you mean short_long"),
    ],
)
def test_unknown_types_and_languages_are_named(settings, message):
    with pytest.raises(DataError, match=message):
        SynthesisSettings(**settings).load()


@pytest.mark.parametrize(("kind", "option"), [("sts", "--types"), ("grounded", "--documents_path")])
def test_types_that_a_recipe_lacks_are_named(tmp_path, capsys, recipe, kind, option):
    path, found = tmp_path / "recipe.yaml", recipe.model_dump()
    del found["types"][kind]
    path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
    line = refuse(capsys, "generate", option, kind, "--recipe_path", path, "--output_path", tmp_path)
    assert f'recipe.yaml: no type "{kind}" (found: ' in line
    assert kind not in SynthesisSettings(recipe_path=str(path)).load()[1]


def test_languages_of_weight_0_are_not_drawn(recipe):
    weighted = recipe.model_copy(update={"language_weights": {"ko": 0}})
    with pytest.raises(DataError, match='--languages "ko": weight 0 in the recipe'):
        weighted.choose_languages(["ko"])
    codes = weighted.choose_languages(["en", "ko"])
    with pytest.raises(DataError, match="two languages or more with a weight above 0"):
        plan_free(weighted, ["bitext"], 2, True, codes, {}, 0)
    assert len(weighted.choose_languages(["all"])) == len(recipe.languages) - 1


def test_bitext_needs_two_languages(recipe):
    assert "bitext" not in SynthesisSettings().load()[1]
    assert "bitext" in SynthesisSettings(languages=["en", "ko"]).load()[1]
    with pytest.raises(DataError, match="two languages"):
        plan_free(recipe, ["bitext"], 2, True, ["en"], {}, 0)


def test_tasks_are_pooled_without_duplicates():
    replies = [
        ("sts", "- Given a symptom, find its cause.\n- Given a symptom find its cause\nHello!"),
        ("sts", "1. Given a city, find the river that it lies on.\n2. Given a book, find"),
    ]
    found = pool_tasks(replies, {"sts": ["Given a tree, find its fruit."]})
    assert found["tasks"]["sts"] == [
        "Given a tree, find its fruit.",
        "Given a symptom, find its cause.",
        "Given a city, find the river that it lies on.",
    ]
    assert found["facts"] == {"n_tasks": 3, "n_new": 2, "n_other_lines": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("short_long: [one, 2]", "task 2 of"),
        ("short_long:\n- Find a fault: quickly", "put a sentence with a colon in quotes"),
        ("shortlong: [a]", "did you mean short_long"),
        ("short_long: a task", "must be a list"),
        ("- a", "expected types"),
        ("short_long: [a", ":1: bad YAML|:2: bad YAML"),
    ],
)
def test_a_task_list_edited_badly_is_one_line(tmp_path, text, message):
    path = tmp_path / "tasks.yaml"
    path.write_text(text, encoding="utf-8")
    assert is_edited(path)
    with pytest.raises(DataError, match=message):
        load_tasks(path)


def test_a_task_list_edited_well_is_read(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text("# mine\nshort_long:\n- Find it here.\n- Find it here.\n", encoding="utf-8")
    assert load_tasks(path) == {"short_long": ["Find it here."]}
