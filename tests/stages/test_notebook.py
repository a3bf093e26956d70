import json

import pytest
from helpers import ROOT, copy_repository


@pytest.mark.slow
@pytest.mark.real
def test_notebook_runs_whole_on_the_demo(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    repository = tmp_path / "EMB with LLM"
    repository.mkdir()
    copy_repository(repository)
    for name, value in {"DATASETS": "demo", "PYTHONPATH": str(repository)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # streamlit, in tests before, sets one without pictures
    notebook = nbformat.read(repository / "run.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(repository)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the bar chart and the two-dimensional picture
    text = "".join(output.get("text", "") for output in outputs)
    assert "answer states trusted with weight" in text and "minilm    smollm2  ACC" in text


def test_notebook_is_committed_executed_and_small():
    """A visitor sees the table, the chart and the picture of banking77 without running anything."""
    path = ROOT / "run.ipynb"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    shown = "".join("".join(output.get("text", "")) for output in outputs)
    assert "banking77  minilm    smollm2  ACC" in shown and str(ROOT) not in path.read_text()
    assert path.stat().st_size < 1_500_000
