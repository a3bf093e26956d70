"""What stage 3 knows about clusters, as files between its scripts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NOWHERE = -1  # cluster of a text that belongs to none
GIVEN = "given"  # criterion of a number that a person chose


class Estimate(BaseModel):
    """A criterion's estimate of the number of clusters.

    Attributes:
        n_clusters: The estimate; None where the criterion gives none for these vectors.
        seconds: CPU time that it took.
        scores: Value of the criterion by number of clusters, where it tries several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_clusters: int | None = Field(ge=1)
    seconds: float = Field(ge=0)
    scores: dict[int, float] = {}


class Count(BaseModel):
    """The number of clusters.

    Attributes:
        n_clusters: The chosen number.
        criterion: The criterion that it is from; `GIVEN` if a person chose it.
        estimates: What each criterion estimates, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_clusters: int = Field(ge=1)
    criterion: str
    estimates: dict[str, Estimate] = {}


class Cluster(BaseModel):
    """One cluster.

    Attributes:
        id: Its number; never reused, and kept by reruns, edits and updates.
        size: Number of its texts.
        cohesion: Mean cosine of its texts to its centre, -1 to 1.
        representatives: Rows of its most central texts, the most central first.
        contrasts: Rows of texts of the nearest other clusters, for naming by difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0)
    size: int = Field(ge=0)
    cohesion: float
    representatives: list[int]
    contrasts: list[int] = []


class Branch(BaseModel):
    """One merge of the hierarchy over the clusters.

    Attributes:
        id: Its number, above those of all clusters; the same wherever a branch holds the same clusters.
        children: Ids of the two clusters or branches that it joins.
        height: Distance at which they join.
        size: Number of its texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    children: tuple[int, int]
    height: float = Field(ge=0)
    size: int = Field(ge=0)


class Clusters(BaseModel):
    """All clusters of a corpus.

    Attributes:
        method: How they were made: "kmeans" or "hdbscan".
        clusters: In the order of their ids; row i of the file of centres belongs to cluster i of this list.
        tree: Merges from the leaves up; the last one is the root. Empty for a single cluster.
        outlier_cosine: Cosine to the nearest centre below which a new text belongs nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["kmeans", "hdbscan"]
    clusters: list[Cluster]
    tree: list[Branch] = []
    outlier_cosine: float


class Name(BaseModel):
    """The name of a cluster or a branch.

    Attributes:
        id: Of the cluster or branch.
        name: Two to four words.
        sentence: One sentence on what its texts share; empty if nobody wrote one.
        keywords: Terms by class-based TF-IDF, the most typical first.
        source: Who named it: the LLM, the keywords where the LLM failed, or a person's edit.
        n_checked: Number of texts by which the name was checked.
        n_nearest: How many of them are nearer to this name than a text of another cluster is.
        merge_with: Ids of clusters that got the same name even when asked again; proposed for merging.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    name: str
    sentence: str = ""
    keywords: list[str] = []
    source: Literal["llm", "keywords", "edit"]
    n_checked: int = 0
    n_nearest: int = 0
    merge_with: list[int] = []


class Names(BaseModel):
    """Names of all clusters and branches, and the perspective and LLM that they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perspective: str
    llm: str
    names: list[Name]
