import json

from helpers import ROOT


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
