"""The notebook in examples/ runs from top to bottom, here with a tiny network."""

import json
from pathlib import Path

from tiny_runs import TINY

from tljax.networks.resnet import NETWORKS, Network

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "resnet50", Network(TINY, keras_md5=""))
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "digits.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names: dict = {}
    for cell in cells:
        exec(compile(cell, "digits.ipynb", "exec"), names)
    assert names["summary"]["accuracy"] > 0.2
    assert len(names["answer"].top) == 2 and names["answer"].label in names["answer"].set
    assert (tmp_path / "runs" / "notebook" / "figures" / "predictions.png").is_file()
    assert capsys.readouterr().out.splitlines()[-1].startswith("5 ")
