"""The four stages, each a straight line from a config to a report; the only place that calls `jax.jit`."""

import math
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax import ShapeDtypeStruct as Shape
from jax.sharding import Mesh

from tljax import checkpoint, convert, features, imagenet, loop, partition, preemption, pretrained, report, steps
from tljax.batches import Chunk, Examples, laid_shape, map_batches, place
from tljax.config import Config
from tljax.data import Dataset
from tljax.loop import Progress
from tljax.mesh import (
    by_column,
    by_row,
    compute_dtype,
    gather,
    largest,
    make_mesh,
    own_rows,
    put,
    round_up,
    whole,
)
from tljax.optim import partitioned_adam, whole_outside
from tljax.preprocess import CAFFE, Preprocessing
from tljax.pretrained import Source
from tljax.resnet import VARIANTS, ResNet, abstract_variables, describe_network, fold
from tljax.state import TrainState, place_state, shard
from tljax.workdir import begin_run, go_on, write_json, write_predictions, write_rows

Row = dict[str, Any]
Embeds = tuple[steps.Embed, steps.Embed]


def run_stage(
    config: Config,
    workdir: Path,
    source: Source | None,
    dataset: Dataset,
    network: Mapping[str, Any],
    through: tuple[str, ...] = (),
    *,
    overwrite: bool = False,
) -> Row:
    """One stage on a data set, from its newest checkpoint on if there is one; returns what `summary.json` holds.

    `source` holds the weights, None for from_scratch; `through` are earlier cuts whose activations a later stage needs;
    `overwrite` deletes first what `workdir` holds of an earlier run.
    """
    started = time.perf_counter()
    print(f"\n== {config.stage} in {workdir}")
    if config.stage == "zero_shot":
        assert source is not None
        summary = _zero_shot(config, workdir, dataset, source, overwrite)
    else:
        summary = _train(config, workdir, dataset, source, network, through, overwrite)
    summary = {"stage": config.stage, **summary, "seconds": round(time.perf_counter() - started, 2)}
    write_json(workdir / "summary.json", summary)
    print(report.summary_line(summary))
    return summary


def _zero_shot(config: Config, workdir: Path, dataset: Dataset, source: Source, overwrite: bool) -> Row:
    """The source's own head on the target's images; nothing trains. Of several processes each reads all of them."""
    split, names = dataset.validation, dataset.class_names
    imagenet.check_head(len(source.labels), names, source.name)
    mesh = make_mesh()
    dtype = compute_dtype(mesh, config.compute.precision)
    model = ResNet(len(source.labels), VARIANTS[source.variant], **source.network, dtype=dtype)
    target = partition.flatten(abstract_variables(model))
    variables = partition.unflatten(convert.merge(target, source.variables, name=source.name))
    begin_run(workdir, config, overwrite=overwrite)
    go_on(workdir, config)
    print(report.model_summary(**variables, units=model.units, cut=None, batch_norm=config.batch_norm))

    folded = jax.jit(partial(fold, model), out_shardings=whole(mesh))(put(variables, whole(mesh)))
    classify = partial(steps.classify, model=model, preprocessing=source.preprocessing, size=source.input_size)
    run = partial(jax.jit(classify, out_shardings=by_row(mesh)), folded)
    own, arrays = own_rows(mesh, config.batch_size, split.count), (split.images, split.labels)
    batches = map_batches(run, arrays, config.batch_size, mesh, name="zero_shot", rows=own)
    outputs = map(np.concatenate, zip(*(outputs for _, outputs in batches), strict=True))
    probabilities, losses = (gather(output, own, split.count) for output in outputs)
    groups = imagenet.map_classes(names, source.labels)
    mapped = imagenet.predict_mapped(probabilities, groups)
    unmapped = [name for name, found in groups.items() if not found]
    accuracy = None if len(unmapped) == len(names) else float(np.mean(mapped.predicted == split.labels))
    top5 = imagenet.top_k(probabilities, source.labels)

    write_predictions(workdir, split.ids, split.labels, losses, top5)
    chosen = ["" if i < 0 else f"{names[i]}: " for i in mapped.predicted]
    guesses = [f"{name}{best[0][1]} {best[0][2]:.0%}" for name, best in zip(chosen, top5, strict=True)]
    report.draw_samples(workdir / "figures", config.seed, split, names, mapped.predicted, guesses)
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
    overwrite: bool,
) -> Row:
    """Trains the units from the cut on, keeps the best epoch, proves the others unmoved."""
    validation, names = dataset.validation, dataset.class_names
    cut, mesh = partition.find_cut(config.cut), make_mesh()
    dtype = compute_dtype(mesh, config.compute.precision)
    if source is None:
        variant, preprocessing, model = "v1", CAFFE, ResNet(len(names), **network, dtype=dtype)
    else:
        variant, preprocessing = source.variant, source.preprocessing
        model = ResNet(len(names), VARIANTS[variant], **source.network, dtype=dtype)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    if source is None:
        init = jax.jit(model.init, out_shardings=whole(mesh))
        variables = init(init_key, np.zeros((1, 32, 32, 3), np.float32))
    else:
        target = abstract_variables(model)
        averages = np.zeros((1, target["params"]["head"]["kernel"].shape[0]), np.float32)
        head = jax.jit(partial(model.init, cut="head", method="suffix"))(init_key, averages)
        target = target | {"params": target["params"] | head["params"]}
        variables = pretrained.replace(target, source, names, keep_head=config.stage == "fine_tune")
    before = partition.digest(**variables, cut=cut)
    begin_run(workdir, config, overwrite=overwrite)
    print(report.model_summary(**variables, units=model.units, cut=cut, batch_norm=config.batch_norm))

    tx = partitioned_adam(config.optimizer, cut)
    variables = put(variables, whole(mesh))
    examples, embeds = _find_examples(config, dataset, model, preprocessing, variables, before, (*through, cut), mesh)
    create = partial(steps.create_state, tx=tx, cut=cut)
    abstract = jax.eval_shape(create, **variables)
    shardings = shard(abstract, mesh, config.compute.shard_optimizer)
    train_steps, eval_steps = compile_steps(config, model, tx, embeds, shardings, mesh)
    programs = {"train_steps": train_steps, "eval_steps": eval_steps, "key": step_key}
    data = examples["train"], examples["validation"]

    # The epochs of a fine-tuning go on where those of its source ended.
    earlier = source.history if source is not None and config.stage == "fine_tune" else ()
    last, numbers = len(earlier) + config.epochs, data[0].steps + 1
    meta = {
        "stage": config.stage,
        "cut": cut,
        "network": describe_network(model, variant),
        "preprocessing": preprocessing._asdict(),
        "image_size": dataset.image_size,
        "class_names": names,
        "data": {name: split.identity() for name, split in dataset.splits.items()},
    }

    def number(progress: Progress) -> tuple[int, int]:
        """Of the checkpoint, and of its best epoch's."""
        epochs, best = (max(0, n - len(earlier)) for n in (len(progress.history), progress.stopper.best_epoch))
        return epochs * numbers + progress.begun.steps, best * numbers

    kept: set[int] = set()
    with checkpoint.open_checkpoints(workdir, own=True) as manager:

        def record(state: TrainState, progress: Progress) -> None:
            nonlocal kept
            now, best = number(progress)
            checkpoint.save(manager, now, state, before, meta | loop.progress_to_json(progress) | {"best": best})
            write_rows(workdir / "metrics.jsonl", progress.history[len(earlier) :])
            checkpoint.prune(manager, {now, best} | kept)
            kept = {now, best}

        found = checkpoint.restore_newest(manager, abstract, before, meta)
        progress = Progress(earlier) if found is None else loop.progress_from_json(found[1])
        if repr(progress.history[: len(earlier)]) != repr(earlier):
            raise ValueError(f"{config.pretrained} is another run than when {workdir} began; give another --workdir")
        go_on(workdir, config)
        checkpoint.keep_frozen(manager, **variables, cut=cut, digests=before)
        write_rows(workdir / "metrics.jsonl", progress.history[len(earlier) :])
        kept = set(number(progress))
        if found is None:
            state = jax.jit(create, out_shardings=shardings, donate_argnames=("params", "batch_stats"))(**variables)
        else:
            state = place_state(found[0], variables, cut, shardings)
            print(f"goes on after epoch {len(progress.history)}, step {progress.begun.steps} of the next")
        if not loop.is_done(progress, last):
            state = loop.warm_up(state, *data, **programs)
        with preemption.deferred():
            interrupted = lambda: largest(preemption.noted())  # noqa: E731
            state, progress = loop.run_epochs(
                state, progress, *data, config, last=last, record=record, interrupted=interrupted, **programs
            )
            if signal := interrupted():
                raise preemption.Stopped(signal, together=True)
        stopper, history = progress.stopper, progress.history
        if math.isinf(stopper.best):
            raise ValueError(
                f"no epoch had a finite validation loss: the training diverged; try a smaller "
                f"--config.optimizer.learning_rate than {config.optimizer.learning_rate}"
            )
        partition.verify_frozen(before, partition.digest(state.params, state.batch_stats, cut))
        best, _ = checkpoint.restore_variables(manager, number(progress)[1])
        checkpoint.prune(manager, set(number(progress)))
    frozen = partition.verify_frozen(before, partition.digest(**best, cut=cut))
    if frozen:
        print(f"{frozen} frozen leaves (parameters and statistics before {cut}) proved unchanged to the bit")

    state = state._replace(**put(best, whole(mesh)))
    measured, predicted = loop.evaluate(state, examples["validation"], eval_steps, step_key)
    report.draw_samples(workdir / "figures", config.seed, validation, names, predicted, [names[i] for i in predicted])
    report.draw_curves(workdir / "figures" / "curves.png", {"transfer" if earlier else config.stage: history})
    summary = {
        **measured,
        "last": {"loss": history[-1]["val_loss"], "accuracy": history[-1]["val_accuracy"]},
        "best_epoch": stopper.best_epoch,
        "epochs": len(history) - len(earlier),
        "params": partition.count(**variables, cut=cut)._asdict(),
        "frozen_leaves_unchanged": frozen,
        "class_names": list(names),
    }
    if "test" in examples:
        summary["test"], _ = loop.evaluate(state, examples["test"], eval_steps, step_key)
    return summary


def compile_steps(
    config: Config,
    model: ResNet,
    tx: optax.GradientTransformation,
    embeds: Embeds,
    shardings: TrainState,
    mesh: Mesh,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`steps.train_steps` and `steps.eval_steps` of a stage, compiled when they are first called."""
    cut, train_batch_norm = partition.find_cut(config.cut), config.batch_norm == "training"
    tx = whole_outside(tx, whole(mesh)) if config.compute.shard_optimizer else tx
    train = partial(steps.train_steps, model=model, tx=tx, cut=cut, embed=embeds[0], train_batch_norm=train_batch_norm)
    evaluate = partial(steps.eval_steps, model=model, cut=cut, embed=embeds[1])
    return (
        jax.jit(train, donate_argnums=0, out_shardings=(shardings, whole(mesh))),
        jax.jit(evaluate, out_shardings=whole(mesh)),
    )


def abstract_programs(
    config: Config, image_size: int, num_classes: int, mesh: Mesh
) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]]:
    """The jitted programs of a stage, abstract arguments, and the images that a device has of each: as a run on `mesh`
    would compile them for Keras's ResNet50, without data or weights.

    What is on the devices of images and activations is one batch. Where nothing random stands before the cut,
    activations are taken to fit the limits of `config.cache`.
    """

    def describe_whole(tree: Any) -> Any:
        return jax.tree.map(lambda x: Shape(x.shape, x.dtype, sharding=whole(mesh)), tree)

    cut = partition.find_cut(config.cut)
    size = round_up(config.batch_size, mesh.size)
    model = ResNet(num_classes, dtype=compute_dtype(mesh, config.compute.precision))
    variables = describe_whole(abstract_variables(model))
    images: Any = Shape((size, image_size, image_size, 3), np.uint8, sharding=by_row(mesh))
    if config.stage == "zero_shot":
        folded = describe_whole(jax.eval_shape(partial(fold, model), variables))
        classify = partial(steps.classify, model=model, preprocessing=CAFFE, size=image_size)
        arguments = folded, images, Shape((size,), np.int32, sharding=by_row(mesh))
        return {"classify": (jax.jit(classify, out_shardings=by_row(mesh)), arguments, size // mesh.size)}
    programs: dict[str, Any] = {}
    embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=CAFFE)
    embeds: Embeds = partial(embed, augmentation=config.data.augment), embed
    frozen = {name: partition.split(tree, cut)[0] for name, tree in variables.items()}
    if frozen["params"] and config.cache.features and config.data.augment == "none":
        folded = describe_whole(jax.eval_shape(partial(fold, model), frozen))
        run = partial(steps.run_prefix, model=model, cut=cut, preprocessing=CAFFE)
        prefix = jax.jit(run, out_shardings=by_row(mesh))
        at_once = round_up(features.batch_size(config, image_size, mesh), mesh.size)
        few = Shape((at_once, *images.shape[1:]), images.dtype, sharding=by_row(mesh))
        programs["frozen units, once"] = prefix, (folded, few), at_once // mesh.size
        images, embeds = jax.eval_shape(prefix, folded, images), (steps.pass_activations, steps.pass_activations)
    tx = partitioned_adam(config.optimizer, cut)
    shapes = jax.eval_shape(partial(steps.create_state, tx=tx, cut=cut), **variables)
    shardings = shard(shapes, mesh, config.compute.shard_optimizer)
    state = jax.tree.map(lambda x, sharding: Shape(x.shape, x.dtype, sharding=sharding), shapes, shardings)
    labels: Any = Shape((1, size), np.int32, sharding=by_column(mesh))
    scalar: Any = Shape((), np.int32, sharding=whole(mesh))
    laid: Any = Shape((1, size, *laid_shape(images.shape[1:])), images.dtype, sharding=by_column(mesh))
    chunk = Chunk(laid, labels, labels, scalar, images.shape[1:], mesh)
    key = describe_whole(jax.random.key(0))
    train, evaluate = compile_steps(config, model, tx, embeds, shardings, mesh)
    step = (state, chunk, scalar, scalar, key), size // mesh.size
    return programs | {"training step": (train, *step), "evaluation step": (evaluate, *step)}


def _find_examples(
    config: Config,
    dataset: Dataset,
    model: ResNet,
    preprocessing: Preprocessing,
    variables: dict[str, Any],
    weights: dict[str, str],
    cuts: tuple[str, ...],
    mesh: Mesh,
) -> tuple[dict[str, Examples], Embeds]:
    """Each split as the steps read it, activations at the last of `cuts` if that can be and else images, and what
    leads from there to the cut, in training and in evaluation. `weights` are the digests of the frozen leaves."""
    inputs: dict[str, Any] = {name: split.images for name, split in dataset.splits.items()}
    cut = cuts[-1]
    embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=preprocessing)
    embeds: Embeds = partial(embed, augmentation=config.data.augment), embed
    if weights:
        frozen = {name: partition.split(tree, cut)[0] for name, tree in variables.items()}
        folded = jax.jit(partial(fold, model), out_shardings=whole(mesh))(frozen)

        @cache
        def prefix(start: str | None, cut: str) -> Callable[[Any], Any]:
            run = partial(steps.run_prefix, model=model, cut=cut, preprocessing=preprocessing, start=start)
            return partial(jax.jit(run, out_shardings=by_row(mesh)), folded)

        shape = {"stage_sizes": model.stage_sizes, "width": model.width}
        about = {
            "network": shape | model.variant._asdict(),
            "preprocessing": preprocessing._asdict(),
            "compute": "float32" if model.dtype is None else np.dtype(model.dtype).name,
        }
        activations = features.compute(inputs, cuts, weights, about, prefix, config, mesh)
        if activations is not None:
            inputs, embeds = activations, (steps.pass_activations, steps.pass_activations)
    placed = {
        name: place(inputs[name], split.labels, split.count, config.batch_size, config.cache.memory_bytes, mesh)
        for name, split in dataset.splits.items()
    }
    return placed, embeds
