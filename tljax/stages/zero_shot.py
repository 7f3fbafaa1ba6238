"""Zero-shot: the source network with its own head classifies the target's images. Nothing is trained."""

from functools import partial
from pathlib import Path

import numpy as np

from tljax.config import Config
from tljax.data.batches import map_batches
from tljax.data.datasets import Dataset
from tljax.devices.mesh import gather, make_mesh, own_rows, put, whole
from tljax.networks.resnet import abstract_variables
from tljax.report import figures
from tljax.report.printed import Printed
from tljax.report.worst import Guesses
from tljax.runs.files import write_rows
from tljax.runs.predictions import PREDICTIONS, choose_rows, describe_pictures
from tljax.runs.workdir import begin_run, mark_running
from tljax.stages.programs import describe_setup, make_setup
from tljax.training.calibration import balanced_accuracy, count_confusions
from tljax.training.grouped import describe_worth
from tljax.training.inference import classify, start_inference
from tljax.trees import Row, flatten, unflatten
from tljax.weights import convert, imagenet
from tljax.weights.pretrained import Weights


def zero_shot(
    config: Config,
    workdir: Path,
    dataset: Dataset,
    weights: Weights,
    *,
    before: Printed | None = None,
    overwrite: bool = False,
) -> Row:
    """Classifies the validation split and returns its part of `summary.json`. `before` is that of `describe_setup`.

    With several processes each reads all images and classifies its share.

    Raises:
      ValueError: if the head does not fit the classes, or the weights do not fit the network.
    """
    split, names = dataset.shown, dataset.class_names
    imagenet.check_head(len(weights.labels), names, weights.name)
    setup = make_setup(config, weights, len(weights.labels), make_mesh())
    model, mesh = setup.model, setup.mesh
    variables = unflatten(convert.match_leaves(flatten(abstract_variables(model)), weights.leaves, name=weights.name))
    begin_run(workdir, config, overwrite=overwrite)
    mark_running(workdir, config)
    print(describe_setup(setup, variables, before))

    inference = start_inference(model, setup.preprocessing, put(variables, whole(mesh)), mesh)
    classifier = partial(classify, size=weights.input_size, resizing=weights.resizing)
    run = partial(inference.program(classifier), inference.folded)
    own, arrays = own_rows(mesh, config.batch_size, split.count), (split.images, split.labels)
    batches = map_batches(run, arrays, config.batch_size, mesh, name="zero_shot", rows=own)
    outputs = map(np.concatenate, zip(*(outputs for _, outputs in batches), strict=True))
    probabilities, losses = (gather(output, own, split.count) for output in outputs)

    groups = imagenet.map_classes(names, weights.labels)
    mapped = imagenet.predict_mapped(probabilities, groups)
    unmapped = [name for name, found in groups.items() if not found]
    accuracy = None if len(unmapped) == len(names) else float(np.mean(mapped.predicted == split.labels))
    # The last column is for pictures without a class of theirs, whose number is -1.
    confusions = count_confusions(np.asarray(split.labels), mapped.predicted, len(names) + 1)
    top5 = imagenet.top_k(probabilities, weights.labels)

    pictures = list(describe_pictures(split.ids, split.labels, mapped.predicted, losses, top5))
    write_rows(workdir / PREDICTIONS["validation"], (pictures[row] for row in choose_rows(len(pictures))))
    chosen = ["" if i < 0 else f"{names[i]}: " for i in mapped.predicted]
    guessed = [f"{name}{best[0][1]}" for name, best in zip(chosen, top5, strict=True)]
    guesses = Guesses(mapped.predicted, guessed, np.array([best[0][2] for best in top5]))
    kind = "validation" if dataset.validation is not None else "training"
    figures.draw_predictions(workdir / "figures", split, kind, names, guesses)
    return {
        "loss": float(np.mean(losses, dtype=np.float64)),
        "accuracy": accuracy,
        "balanced_accuracy": None if accuracy is None else balanced_accuracy(confusions),
        **describe_worth(mapped.predicted == split.labels, split.all_groups()),
        "images": len(split.labels),
        "class_names": list(names),
        "mapping": {name: [weights.labels[i][1] for i in found] for name, found in groups.items()},
        "unmapped_classes": unmapped,
        "unmapped_mass": float(mapped.unmapped_mass.mean()),
        "params": setup.cut.count(variables)._asdict(),
        "labels": {"train": 0, "validation": 0},
    }
