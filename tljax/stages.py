"""The four stages, each a straight line from a config to a report; the only place that calls `jax.jit`."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tljax import checkpoint, convert, data, features, imagenet, loop, partition, pretrained, report, steps
from tljax.batches import Examples, map_batches, order, place
from tljax.config import ZERO_SHOT_MAX_IMAGES, Config, FourStages, stage_config, validate
from tljax.data import Dataset, Split
from tljax.optim import partitioned_adam
from tljax.preprocess import CAFFE, Preprocessing
from tljax.pretrained import Source
from tljax.resnet import UNITS, VARIANTS, ResNet, fold

Row = dict[str, Any]
Embeds = tuple[steps.Embed, steps.Embed]
SAMPLES = 18


def run(
    config: Config | FourStages, workdir: Path, *, overwrite: bool = False, network: Mapping[str, Any] | None = None
) -> None:
    """Runs one stage in `workdir`, or all four in its subfolders named like the stages.

    `network` holds further arguments of `ResNet` for a from_scratch run (tests make a tiny one); the other stages
    have the network of their source weights.

    Raises:
      ValueError, FileNotFoundError: if the config, the weights or the data cannot be used; `workdir` is then as it
        was, unless earlier ones of the four stages have run.
      FileExistsError: if `workdir` holds a run and `overwrite` is false.
    """
    network = network or {}
    if isinstance(config, FourStages):
        _run_four_stages(config, workdir, overwrite, network)
        return
    _check(config)
    _check_workdir(config.pretrained, workdir, overwrite)
    source = _load_source(config)
    run_stage(config, workdir, source, _load_data(config), network)


def _check(config: Config) -> None:
    validate(config)
    if partition.find_cut(config.cut) != UNITS[0] and config.stage == "from_scratch":
        raise ValueError(f"config.cut={config.cut!r}: from_scratch has nothing to freeze, its cut is {UNITS[0]!r}")


def _check_workdir(weights: str | None, workdir: Path, overwrite: bool) -> None:
    if not overwrite:
        report.refuse_run(workdir)
    elif weights is not None and Path(weights).resolve() == workdir.resolve():
        raise ValueError(f"--overwrite would delete config.pretrained={weights!r}; give another --workdir")


def _run_four_stages(config: FourStages, workdir: Path, overwrite: bool, network: Mapping[str, Any]) -> None:
    weights = config.pretrained
    if config.source_classes:
        if weights is not None:
            raise ValueError(
                f"config.source_classes makes source weights, so config.pretrained={weights!r} must be None"
            )
        weights = str(workdir / "source")
    configs = {"source": stage_config(config, "source", None)} if config.source_classes else {}
    configs |= {
        "zero_shot": stage_config(config, "zero_shot", weights),
        "feature_extraction": stage_config(config, "feature_extraction", weights),
        "fine_tune": stage_config(config, "fine_tune", str(workdir / "feature_extraction")),
        "from_scratch": stage_config(config, "from_scratch", None),
    }
    for name, stage in configs.items():
        _check(stage)
        _check_workdir(config.pretrained, workdir / name, overwrite)
    _check_workdir(config.pretrained, workdir, overwrite)
    # Whatever is there already is read before anything is trained: a mistake shows at once.
    if not config.source_classes:
        pretrained.load(str(weights))
    shared = _load_data(configs["feature_extraction"])
    if config.source_classes:
        _check_head(len(config.source_classes), shared.class_names, "config.source_classes")
    datasets = {name: _load_data(stage) for name, stage in configs.items() if name in ("source", "zero_shot")}

    tuned = partition.find_cut(config.stages.fine_tune.cut)
    frozen_first = partition.is_frozen(tuned, partition.find_cut(config.stages.feature_extraction.cut))
    through = {"feature_extraction": (tuned,)} if frozen_first else {}

    report.begin_run(workdir, config)
    summaries = {
        name: run_stage(
            stage, workdir / name, _load_source(stage), datasets.get(name, shared), network, through.get(name, ())
        )
        for name, stage in configs.items()
    }
    table = report.stages_table([summary for name, summary in summaries.items() if name != "source"])
    transfer = report.read_rows(workdir / "feature_extraction") + report.read_rows(workdir / "fine_tune")
    runs = {"transfer": transfer, "from_scratch": report.read_rows(workdir / "from_scratch")}
    report.draw_curves(workdir / "figures" / "curves.png", runs)
    report.write_text(workdir / "report.md", f"# The four stages\n\n{table}\n\n![curves](figures/curves.png)\n")
    print(f"\n{table}\n\nwritten to {workdir}: report.md, figures/curves.png and a folder a stage")


def _load_source(config: Config) -> Source | None:
    source = None if config.pretrained is None else pretrained.load(config.pretrained)
    if config.stage == "fine_tune" and source is not None and not source.is_run:
        raise ValueError(
            f"config.pretrained={config.pretrained!r}: fine_tune goes on from a run: "
            "--config.pretrained=RUN/feature_extraction"
        )
    return source


def _check_head(outputs: int, class_names: tuple[str, ...], name: str) -> None:
    """Zero-shot's loss takes a label for an output of the source's head."""
    if outputs == 0:
        raise ValueError(f"{name} has no head, which zero_shot needs; choose weights with one")
    if len(class_names) > outputs:
        raise ValueError(
            f"label {outputs} ({class_names[outputs]!r}) lies beyond the {outputs} outputs of the head of {name}: it "
            "has no zero-shot loss; choose weights with a larger head, or fewer classes with --config.data.classes"
        )


def _load_data(config: Config) -> Dataset:
    if config.stage != "zero_shot":
        return data.load(config.data, seed=config.seed, disk_bytes=config.cache.disk_bytes)
    bounded = replace(config.data, max_images=config.data.max_images or ZERO_SHOT_MAX_IMAGES)
    return data.load(bounded, seed=config.seed, training=False, disk_bytes=config.cache.disk_bytes)


def run_stage(
    config: Config,
    workdir: Path,
    source: Source | None,
    dataset: Dataset,
    network: Mapping[str, Any],
    through: tuple[str, ...] = (),
) -> Row:
    """One stage on a data set that is in memory; returns what `summary.json` holds.

    `source` holds the weights, None for from_scratch; `through` are earlier cuts whose activations a later stage needs.
    """
    started = time.perf_counter()
    print(f"\n== {config.stage} in {workdir}")
    if config.stage == "zero_shot":
        assert source is not None
        summary = _zero_shot(config, workdir, dataset, source)
    else:
        summary = _train(config, workdir, dataset, source, network, through)
    summary = {"stage": config.stage, **summary, "seconds": round(time.perf_counter() - started, 2)}
    report.write_json(workdir / "summary.json", summary)
    print(report.summary_line(summary))
    return summary


def _zero_shot(config: Config, workdir: Path, dataset: Dataset, source: Source) -> Row:
    """The source's own head on the target's images; nothing trains."""
    split, names = dataset.validation, dataset.class_names
    _check_head(len(source.labels), names, source.name)
    model = ResNet(len(source.labels), VARIANTS[source.variant], **source.network)
    target = partition.flatten(checkpoint.abstract_variables(model))
    variables = partition.unflatten(convert.merge(target, source.variables, name=source.name))
    report.begin_run(workdir, config)
    print(report.model_summary(**variables, units=model.units, cut=None, batch_norm=config.batch_norm))

    folded = jax.jit(partial(fold, model))(variables)
    classify = jax.jit(partial(steps.classify, model=model, preprocessing=source.preprocessing, size=source.input_size))
    arrays = split.images, split.labels
    batches = map_batches(partial(classify, folded), arrays, config.batch_size, name="zero_shot")
    probabilities, losses = map(np.concatenate, zip(*(outputs for _, outputs in batches), strict=True))
    groups = imagenet.map_classes(names, source.labels)
    mapped = imagenet.predict_mapped(probabilities, groups)
    unmapped = [name for name, found in groups.items() if not found]
    accuracy = None if len(unmapped) == len(names) else float(np.mean(mapped.predicted == split.labels))
    top5 = imagenet.top_k(probabilities, source.labels)

    report.write_predictions(workdir, split.ids, split.labels, losses, top5)
    chosen = ["" if i < 0 else f"{names[i]}: " for i in mapped.predicted]
    guesses = [f"{name}{best[0][1]} {best[0][2]:.0%}" for name, best in zip(chosen, top5, strict=True)]
    _draw_samples(config, workdir, split, names, mapped.predicted, guesses)
    return {
        "loss": float(np.mean(losses, dtype=np.float64)),
        "accuracy": accuracy,
        "images": len(split.labels),
        "class_names": list(names),
        "mapping": {name: [source.labels[i][1] for i in found] for name, found in groups.items()},
        "unmapped_classes": unmapped,
        "unmapped_mass": float(mapped.unmapped_mass.mean()),
        "params": partition.count(variables["params"], variables["batch_stats"], None)._asdict(),
    }


def _train(
    config: Config,
    workdir: Path,
    dataset: Dataset,
    source: Source | None,
    network: Mapping[str, Any],
    through: tuple[str, ...],
) -> Row:
    """Trains the units from the cut on, keeps the best epoch, proves the others unmoved."""
    validation, names = dataset.validation, dataset.class_names
    cut = partition.find_cut(config.cut)
    if source is None:
        variant, preprocessing, model = "v1", CAFFE, ResNet(len(names), **network)
    else:
        variant, preprocessing = source.variant, source.preprocessing
        model = ResNet(len(names), VARIANTS[variant], **source.network)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    if source is None:
        variables = jax.jit(model.init)(init_key, np.zeros((1, 32, 32, 3), np.float32))
    else:
        target = checkpoint.abstract_variables(model)
        averages = np.zeros((1, target["params"]["head"]["kernel"].shape[0]), np.float32)
        head = jax.jit(partial(model.init, cut="head", method="suffix"))(init_key, averages)
        target = target | {"params": target["params"] | head["params"]}
        variables = pretrained.replace(target, source, names, keep_head=config.stage == "fine_tune")
    before = partition.digest(**variables, cut=cut)
    report.begin_run(workdir, config)
    print(report.model_summary(**variables, units=model.units, cut=cut, batch_norm=config.batch_norm))

    tx = partitioned_adam(config.optimizer, cut)
    variables = jax.device_put(variables)
    examples, embeds = _find_examples(config, dataset, model, preprocessing, variables, before, (*through, cut))
    batch_norm = config.batch_norm == "training"
    train_steps = jax.jit(
        partial(steps.train_steps, model=model, tx=tx, cut=cut, embed=embeds[0], train_batch_norm=batch_norm),
        donate_argnums=0,
    )
    eval_steps = jax.jit(partial(steps.eval_steps, model=model, cut=cut, embed=embeds[1]))

    # The epochs of a fine-tuning go on where those of its source ended.
    history = list(source.history) if source is not None and config.stage == "fine_tune" else []
    earlier = len(history)
    meta = {
        "stage": config.stage,
        "cut": cut,
        "network": checkpoint.describe_network(model, variant),
        "preprocessing": preprocessing._asdict(),
        "image_size": dataset.image_size,
        "class_names": names,
    }
    with checkpoint.open_checkpoints(workdir) as manager:
        checkpoint.save_frozen(manager, **variables, cut=cut)
        state = steps.create_state(**variables, tx=tx, cut=cut)
        stopper = loop.EarlyStopper()
        for epoch in range(earlier + 1, earlier + config.epochs + 1):
            state, row = loop.run_epoch(
                state,
                examples["train"],
                examples["validation"],
                order(len(examples["train"]), seed=config.seed, epoch=epoch),
                train_steps=train_steps,
                eval_steps=eval_steps,
                key=step_key,
                name=f"epoch {epoch}/{earlier + config.epochs}",
            )
            stopper = loop.update_stopper(stopper, epoch=epoch, val_loss=row["val_loss"], patience=config.patience)
            learning_rate = config.optimizer.learning_rate
            history.append({"stage": config.stage, "epoch": epoch, **row, "learning_rate": learning_rate})
            report.append_row(workdir, history[-1])
            checkpoint.save(manager, epoch, state, before, meta | {"stopper": stopper._asdict(), "history": history})
            checkpoint.prune(manager, keep={epoch, stopper.best_epoch})
            if stopper.stopped:
                break
        if math.isinf(stopper.best):
            raise ValueError(
                f"no epoch had a finite validation loss: the training diverged; try a smaller "
                f"--config.optimizer.learning_rate than {config.optimizer.learning_rate}"
            )
        partition.verify_frozen(before, partition.digest(state.params, state.batch_stats, cut))
        best, _ = checkpoint.restore_variables(manager, stopper.best_epoch)
    frozen = partition.verify_frozen(before, partition.digest(**best, cut=cut))
    if frozen:
        print(f"{frozen} frozen leaves (parameters and statistics before {cut}) proved unchanged to the bit")

    state = state._replace(**best)
    measured, predicted = loop.evaluate(state, examples["validation"], eval_steps, step_key)
    _draw_samples(config, workdir, validation, names, predicted, [names[i] for i in predicted])
    report.draw_curves(workdir / "figures" / "curves.png", {"transfer" if earlier else config.stage: history})
    summary = {
        **measured,
        "last": {"loss": history[-1]["val_loss"], "accuracy": history[-1]["val_accuracy"]},
        "best_epoch": stopper.best_epoch,
        "epochs": len(history) - earlier,
        "params": partition.count(**variables, cut=cut)._asdict(),
        "frozen_leaves_unchanged": frozen,
        "class_names": list(names),
    }
    if "test" in examples:
        summary["test"], _ = loop.evaluate(state, examples["test"], eval_steps, step_key)
    return summary


def _find_examples(
    config: Config,
    dataset: Dataset,
    model: ResNet,
    preprocessing: Preprocessing,
    variables: dict[str, Any],
    weights: dict[str, str],
    cuts: tuple[str, ...],
) -> tuple[dict[str, Examples], Embeds]:
    """Each split as the steps read it, activations at the last of `cuts` if that can be and else images, and what
    leads from there to the cut, in training and in evaluation. `weights` are the digests of the frozen leaves."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    present = {name: split for name, split in splits.items() if split is not None}
    inputs = {name: split.images for name, split in present.items()}
    cut = cuts[-1]
    embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=preprocessing)
    embeds: Embeds = partial(embed, augmentation=config.data.augment), embed
    if weights:
        frozen = {name: partition.split(tree, cut)[0] for name, tree in variables.items()}
        folded = jax.jit(partial(fold, model))(frozen)

        @cache
        def prefix(start: str | None, cut: str) -> Callable[[Any], Any]:
            run = partial(steps.run_prefix, model=model, cut=cut, preprocessing=preprocessing, start=start)
            return partial(jax.jit(run), folded)

        shape = {"stage_sizes": model.stage_sizes, "width": model.width}
        about = {"network": shape | model.variant._asdict(), "preprocessing": preprocessing._asdict()}
        activations = features.compute(inputs, cuts, weights, about, prefix, config)
        if activations is not None:
            inputs, embeds = activations, (steps.pass_activations, steps.pass_activations)
    memory = config.cache.memory_bytes
    placed = {name: place(inputs[name], split.labels, config.batch_size, memory) for name, split in present.items()}
    return placed, embeds


def _draw_samples(
    config: Config, workdir: Path, split: Split, names: tuple[str, ...], predicted: np.ndarray, guesses: list[str]
) -> None:
    """Pictures with what was predicted: as a label, which may be right, and in words."""
    chosen = np.asarray(order(len(split.labels), seed=config.seed, epoch=0)[:SAMPLES])
    labels = [names[split.labels[i]] for i in chosen]
    right = predicted[chosen] == split.labels[chosen]
    report.draw_samples(workdir / "figures", split.images[chosen], labels, [guesses[i] for i in chosen], right)
