import pytest

from perspective.description.settings import CRITERIA
from perspective.leaderboard.pages import cluster_tables


@pytest.fixture
def counted(monkeypatch):
    def result(n_classes, use, chosen, **estimates):
        numbers = dict.fromkeys(CRITERIA) | estimates
        found = {name: {"n_clusters": number, "seconds": 1.5} for name, number in numbers.items()}
        return {"n_texts": 1000, "n_classes": n_classes, "use": use, "chosen": chosen, "criterion": "views",
                "estimates": found}  # fmt: skip

    results = {
        "one": result(10, "tuning", 20, views=20, words=9),
        "two": result(40, "tuning", 20, views=20, words=None),
        "three": result(50, "confirmation", 50, views=50, words=60),
    }
    monkeypatch.setattr(cluster_tables, "load", lambda _: results)


def test_estimates_are_compared_by_their_ratio(counted):
    rows = {line.split(" | ")[0].strip("| "): line.strip("|").split(" | ") for line in
            cluster_tables.tabulate_counting().splitlines()}  # fmt: skip
    assert [cell.strip() for cell in rows["one"][2:6]] == ["10", "20 (`views`)", "20", "9"]
    assert rows["two"][5].strip() == "none"
    tuning = [cell.strip() for cell in rows["off by a factor of, tuning"][3:6]]
    assert tuning == ["2.00", "2.00", "1.11 (1 of 2)"]
    assert [cell.strip() for cell in rows["within 10%, of 3"][3:6]] == ["1", "1", "1"]
    assert [cell.strip() for cell in rows["within 25%, of 3"][3:6]] == ["1", "1", "2"]


def test_scores_are_shown_over_seeds(monkeypatch):
    runs = [
        {
            "assigned": {"ACC": acc, "NMI": 80.0},
            "clustered_again": {"ACC": 60.0, "NMI": 81.0},
            "nowhere_of_known_classes": 0.1,
            "nowhere_of_unknown_classes": 0.5,
            "unknown_classes": 15,
            "clusters_added": added,
            **({"in_added": 0.4, "known_in_added": 0.01} if added else {}),
        }
        for acc, added in ((60.0, 14), (62.0, 0))
    ]
    found = {"datasets": {"mine": runs}}
    monkeypatch.setattr(cluster_tables, "load", lambda _: found)
    assert "| mine | assigned | 61.00 ± 1.00 | 80.00 ± 0.00 |" in cluster_tables.tabulate_unseen()
    assert "| mine | 10% ± 0 | 50% ± 0 | 14 0 of 15 | 20% ± 20 | 0% ± 0 |" in cluster_tables.tabulate_unknown()
