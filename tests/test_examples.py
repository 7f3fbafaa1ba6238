"""The notebook in examples/ runs from top to bottom, here with a tiny network, few pictures and one epoch."""

import json
from pathlib import Path

from tiny_runs import TINY, drawing

from tljax.networks.architectures import NETWORKS, Network
from tljax.runs.learned import find_learned

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "resnet50", Network(TINY, keras_md5=""))
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "digits.ipynb").read_text("utf-8"))
    shorter = {
        "epochs=6, batch_size=32": "epochs=1, batch_size=16",
        '"digits"\n': '"digits"; config.data.max_images = 60\n',
    }
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for long, short in shorter.items():
        assert long in cells[0]
        cells[0] = cells[0].replace(long, short)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names: dict = {}
    with drawing():
        for cell in cells:
            exec(compile(cell, "digits.ipynb", "exec"), names)
    assert names["summary"]["epochs"] == 1 and names["summary"]["data"]["splits"]["train"]["images"] == 60
    assert len(names["answer"].top) == 2 and names["answer"].label in names["answer"].set
    drawn = {path.name for path in (tmp_path / "runs" / "notebook" / "figures").iterdir()}
    assert drawn == {"samples.png", "predictions.png", "curves.png"}
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-6:]]
    assert printed == [str(label) for label in names["held_out"].labels[:6]]
    learned, _ = find_learned(tmp_path / "runs" / "notebook")
    held_out = names["held_out"]
    assert len(learned.pixels) == 60 and not learned.has(held_out.all_digests(), of_files=False).any()
