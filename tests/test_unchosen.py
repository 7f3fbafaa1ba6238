"""The accuracy of the best epoch on pictures that did not choose it, beside the same in plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.config import Config, Monitor
from tljax.stages.conclusion import Outcome, count_choices, describe_unchosen
from tljax.training import metrics
from tljax.training.calibration import accuracy_interval
from tljax.training.progress import Progress
from tljax.training.unchosen import Judged, draw_bags, judge_pictures, undo_choice


def draw_epochs(pictures: int, epochs: int, seed: int, accuracy: float = 0.8) -> list[Judged]:
    """Epochs that are alike; losses have few values, so that ties are common."""
    rng = np.random.default_rng(seed)
    right = rng.random((epochs, pictures)) < accuracy
    losses = (rng.integers(0, 3, right.shape) + 2 * ~right).astype(np.float32)
    return [Judged(*epoch) for epoch in zip(losses, right, strict=True)]


def choose(judged: list[Judged], counts: list[int], monitor: Monitor) -> Judged:
    """The first epoch with the least loss or the most right predictions, where each picture counts so often."""
    scores = []
    for losses, right in judged:
        values = losses if monitor == "val_loss" else [-int(one) for one in right]
        scores.append(sum(count * float(value) for count, value in zip(counts, values, strict=True)))
    return judged[scores.index(min(scores))]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize(("pictures", "epochs"), [(2, 3), (7, 4), (30, 2)])
def test_an_epoch_is_chosen_in_each_bag_and_measured_outside(pictures, epochs, monitor):
    judged, right, outside = draw_epochs(pictures, epochs, seed=pictures), 0, 0
    for counts in draw_bags(pictures).tolist():
        best = choose(judged, counts, monitor)
        right += sum(int(best.right[i]) for i in range(pictures) if not counts[i])
        outside += counts.count(0)
    accuracy = float(choose(judged, [1] * pictures, monitor).right.mean())
    found = undo_choice(judged, monitor, accuracy)
    assert found is not None and found.accuracy == right / outside
    pairs = [accuracy_interval(value, pictures) for value in (accuracy, found.accuracy)]
    assert (found.low, found.high) == (min(low for low, _ in pairs), max(high for _, high in pairs))


def test_all_pictures_choose_and_those_that_count_are_measured():
    judged, counted, right, outside = draw_epochs(12, 4, seed=3), np.arange(12) % 3 > 0, 0, 0
    for counts in draw_bags(12).tolist():
        best = choose(judged, counts, "val_loss")
        right += sum(int(best.right[i]) for i in range(12) if not counts[i] and counted[i])
        outside += sum(not counts[i] for i in np.flatnonzero(counted))
    found = undo_choice(judged, "val_loss", 0.75, worth=8, counted=counted)
    assert found is not None and found.accuracy == right / outside
    assert found.low == min(accuracy_interval(value, 8)[0] for value in (0.75, found.accuracy))
    assert undo_choice(judged, "val_loss", 0.75, counted=np.zeros(12, bool)) is None


def test_what_chance_chose_is_undone():
    """The best of 30 epochs that all have 0.8 has 0.9 on the 50 pictures that chose it."""
    chosen, undone = [], []
    for seed in range(100):
        judged = draw_epochs(50, 30, seed)
        chosen.append(max(epoch.right.mean() for epoch in judged))
        found = undo_choice(judged, "val_accuracy", chosen[-1])
        assert found is not None
        undone.append(found.accuracy)
    assert np.mean(chosen) > 0.89
    assert abs(np.mean(undone) - 0.8) < 0.015


def test_what_copies_of_training_pictures_add_is_undone():
    """Epochs that have 0.8 on new pictures have 0.9 where half of the pictures are known to them."""
    copies, whole, others = np.arange(60) < 30, [], []
    for seed in range(100):
        judged = [each._replace(right=each.right | copies) for each in draw_epochs(60, 10, seed)]
        right = max((epoch.right for epoch in judged), key=np.sum)
        whole.append(undo_choice(judged, "val_accuracy", right.mean()).accuracy)
        others.append(undo_choice(judged, "val_accuracy", right[~copies].mean(), None, 30, ~copies).accuracy)
    assert abs(np.mean(whole) - 0.9) < 0.015 and abs(np.mean(others) - 0.8) < 0.02


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_an_epoch_that_is_better_on_every_picture_needs_no_luck(monitor):
    bad, good = (Judged(np.full(9, loss, np.float32), np.full(9, loss < 1)) for loss in (2.0, 0.5))
    found = undo_choice([bad, good, bad], monitor, 1.0)
    assert found is not None and found.accuracy == 1.0 and found.low == accuracy_interval(1.0, 9)[0]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_an_epoch_without_a_finite_loss_is_never_chosen(monitor, loss):
    judged = draw_epochs(20, 3, seed=0)
    diverged = Judged(np.full(20, -9, np.float32), np.full(20, True))
    diverged.losses[4] = loss
    assert undo_choice([*judged, diverged], monitor, 0.5) == undo_choice(judged, monitor, 0.5)


def test_a_single_picture_says_nothing():
    assert undo_choice(draw_epochs(1, 5, seed=0), "val_loss", 1.0) is None


def test_each_picture_has_the_loss_that_training_means():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 30, (50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    judged = judge_pictures(logits, labels)
    sums = metrics.sum_examples(jnp.asarray(logits), jnp.asarray(labels), jnp.full(50, True))
    assert judged.losses.dtype == np.float32 and judged.right.sum() == float(sums.correct)
    np.testing.assert_allclose(judged.losses.sum(), float(sums.loss), rtol=1e-6)
    np.testing.assert_allclose(judged.losses, metrics.cross_entropy(logits, jnp.asarray(labels)), rtol=1e-5, atol=1e-6)


def make_rows(stage: str, cut: str, epochs: range) -> tuple[dict, ...]:
    return tuple({"stage": stage, "cut": cut, "epoch": epoch} for epoch in epochs)


HEAD = make_rows("feature_extraction", "head", range(1, 3))
LAST = make_rows("fine_tune", "conv5_block1", range(3, 6))
OWN = make_rows("fine_tune", "conv4_block1", range(6, 8))


def test_bags_are_of_whole_groups():
    judged, groups, right, outside = draw_epochs(12, 3, seed=1), np.arange(12) % 4 * 5, 0, 0
    for counts in draw_bags(4).tolist():
        best = choose(judged, [counts[group // 5] for group in groups], "val_loss")
        right += sum(int(best.right[i]) for i in range(12) if not counts[groups[i] // 5])
        outside += 3 * counts.count(0)
    found = undo_choice(judged, "val_loss", 0.75, groups, worth=4.5)
    assert found is not None and found.accuracy == right / outside
    assert found.low == min(accuracy_interval(value, 4.5)[0] for value in (0.75, found.accuracy))
    # One group is in every bag.
    assert undo_choice(judged, "val_loss", 0.75, np.zeros(12, int)) is None


def test_stages_with_several_epochs_have_chosen():
    solved = make_rows("feature_extraction", "head", range(1))
    found = [count_choices(rows) for rows in ((), solved, HEAD, HEAD + LAST, solved + LAST[:1])]
    assert found == [0, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("earlier", "kept", "own", "said"),
    [
        ((), 2, 2, True),
        (HEAD, 2, 2, True),
        (HEAD + LAST, 2, 2, False),
        # It began under an older version.
        ((), 1, 2, False),
        ((), 1, 1, False),
    ],
)
def test_nothing_is_said_where_it_would_not_hold(earlier, kept, own, said):
    judged = draw_epochs(20, kept, seed=0)
    progress = Progress(earlier + OWN[:own], judged=tuple(judged))
    outcome = Outcome(None, 1, 0, progress, earlier, None)
    found = describe_unchosen(outcome, Config(), {"validation": {"accuracy": 0.5}})
    undone = undo_choice(judged, "val_loss", 0.5)
    assert undone and found == ({"unchosen": undone._asdict()} if said else {})


def test_without_copies_of_training_pictures_it_is_measured_on_the_others():
    judged, copies = draw_epochs(20, 3, seed=0), np.arange(20) < 5
    outcome = Outcome(None, 1, 0, Progress(OWN[:3] + HEAD[:1], judged=tuple(judged)), (), None)
    rest = {"pictures": 5, "left": 15, "accuracy": 0.6}
    found = describe_unchosen(outcome, Config(), {"validation": {"accuracy": 0.5, "in_train": rest}}, None, copies)
    whole, others = undo_choice(judged, "val_loss", 0.5), undo_choice(judged, "val_loss", 0.6, None, 15, ~copies)
    assert found == {"unchosen": whole._asdict(), "in_train": rest | {"unchosen": others._asdict()}} and whole != others
    none = {"pictures": 20, "left": 0, "accuracy": None}
    judged_so = {"validation": {"accuracy": 0.5, "in_train": none}}
    assert describe_unchosen(outcome, Config(), judged_so, None, copies | True) == {"unchosen": whole._asdict()}
