"""A checkpoint gives back, to the bit, what was saved, or is named as damaged.

Values that an older version did not save are filled in.
"""

import json
import shutil
from itertools import product
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import TINY

from tljax.config import OPTIMIZER_USES, Optimizer
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, describe_network
from tljax.runs import checkpoints, readers
from tljax.runs.checkpoints import complete, open_checkpoints
from tljax.runs.integrity import CHECKSUMS, Damaged
from tljax.training.optimizers import make_optimization
from tljax.training.state import TrainState, create_state

MODEL = ResNet(3, architecture=TINY)
CUT = Cut(MODEL.units, "conv5_block1")
ABOUT = {"stage": "fine_tune", "cut": CUT.start, "network": describe_network(MODEL)}


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))


@pytest.fixture(scope="module")
def state(variables) -> TrainState:
    """A state after three steps, whose optimizer's means are not zero."""
    tx = make_optimization(Optimizer(), CUT, 1, 1).tx
    state = create_state(variables, tx, CUT)
    moved = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.int32 else x + 0.5, state.opt_state)
    return state._replace(step=jnp.int32(3), opt_state=moved)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory, state):
    folder, frozen = tmp_path_factory.mktemp("saved") / "run", CUT.digest(state.variables)
    with open_checkpoints(folder, own=True) as kept:
        kept.keep_frozen(state.variables, CUT, frozen)
        for number in (1, 2, 3):
            kept.save(number, state._replace(step=jnp.int32(number)), CUT, frozen, ABOUT | {"best": min(number, 2)})
    return folder, frozen


@pytest.fixture
def saved(tmp_path, saved_once):
    """The folder of a run with checkpoints 1 to 3, 2 being the best, and the digests of its frozen half."""
    folder, frozen = saved_once
    return shutil.copytree(folder, tmp_path / "run"), frozen


def shapes_of(state: TrainState) -> TrainState:
    return jax.eval_shape(lambda: state)


def restore(folder, state, frozen, about=ABOUT):
    with open_checkpoints(folder, own=True) as kept:
        return kept.restore_newest(shapes_of(state), CUT, frozen, about)


def assert_equal(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_newest_comes_back_to_the_bit(saved, state):
    folder, frozen = saved
    restored, meta = restore(folder, state, frozen)
    assert int(restored.step) == 3 and meta["best"] == 2
    assert_equal(restored.opt_state, state.opt_state)
    assert_equal(restored.variables, CUT.split(state.variables)[1])
    assert meta["digest"].keys() >= frozen.keys()


def optimizers() -> list[Optimizer]:
    """One for each shape that an optimizer's state can have."""
    choices = product(
        get_args(get_type_hints(Optimizer)["name"]), ("constant", "cosine"), (0, 0.1), (None, 1.0), (1, 0.5)
    )
    return [
        Optimizer(name, schedule=schedule, weight_decay=decay, clip_norm=clip, layer_decay=slower)
        for name, schedule, decay, clip, slower in choices
        if (decay or name != "adamw") and ("weight_decay" in OPTIMIZER_USES[name] or not decay)
    ]


def is_plain_or_full(optimizer: Optimizer) -> bool:
    chosen = optimizer.schedule, optimizer.clip_norm, optimizer.layer_decay
    return chosen in (("constant", None, 1), ("cosine", 1.0, 0.5))


# Each optimizer with none of the settings and with all; the long form takes all of them.
@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(o, marks=() if is_plain_or_full(o) else pytest.mark.long) for o in optimizers()],
    ids=lambda o: f"{o.name} {o.schedule} {o.weight_decay} {o.clip_norm} {o.layer_decay}",
)
def test_the_state_of_every_optimizer_comes_back(tmp_path, optimizer, variables):
    optimizer.check()
    state = create_state(variables, make_optimization(optimizer, CUT, 2, 3).tx, CUT)
    frozen = CUT.digest(state.variables)
    with open_checkpoints(tmp_path, own=True) as kept:
        kept.keep_frozen(state.variables, CUT, frozen)
        kept.save(1, state, CUT, frozen, ABOUT | {"best": 1})
    restored, _ = restore(tmp_path, state, frozen)
    assert_equal(restored.opt_state, state.opt_state)


def test_the_whole_network_comes_back_from_both_halves(saved, state):
    with open_checkpoints(saved[0]) as kept:
        variables, meta = kept.restore_variables(2)
        assert kept.numbers == {1, 2, 3}
    assert_equal(variables, state.variables)
    assert {name: meta[name] for name in ABOUT} == ABOUT


def test_what_is_not_kept_is_deleted_but_for_the_frozen_half(saved):
    with open_checkpoints(saved[0], own=True) as kept:
        kept.prune({3})
        assert kept.numbers == {3}
    assert sorted(path.name for path in (saved[0] / "checkpoints").iterdir()) == ["0", "3"]


def test_a_damaged_one_is_put_aside_and_the_one_before_is_taken(saved, state, capfd):
    folder, frozen = saved
    shutil.rmtree(folder / "checkpoints" / "3" / "progress")
    restored, _ = restore(folder, state, frozen)
    assert int(restored.step) == 2
    assert "checkpoints/3 is damaged" in capfd.readouterr().err
    assert (folder / "checkpoints" / "3.damaged").is_dir()


def test_a_damaged_meta_is_named(saved):
    path = saved[0] / "checkpoints" / "3" / "meta" / "metadata"
    path.write_text(path.read_text().replace("fine_tune", "fine-tune"))
    with pytest.raises(ValueError, match="checkpoints/3 is damaged: meta differs"):
        readers.read_run(saved[0])


def test_a_damaged_frozen_half_is_named(saved, state, tmp_path):
    params = state.variables["params"]
    other = state.variables | {"params": params | {"conv4_block1": jax.tree.map(jnp.negative, params["conv4_block1"])}}
    with open_checkpoints(tmp_path / "other", own=True) as kept:
        kept.keep_frozen(other, CUT, CUT.digest(other))
    shutil.rmtree(saved[0] / "checkpoints" / "0" / "variables")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "0" / "variables", saved[0] / "checkpoints/0/variables")
    with pytest.raises(Damaged, match=r"is damaged: .*conv4_block1"):
        readers.read_run(saved[0])


def test_a_state_that_is_not_finite_is_not_saved(saved, state):
    folder, frozen = saved
    wrong = state._replace(opt_state=jax.tree.map(lambda x: x * jnp.nan if x.ndim else x, state.opt_state))
    with open_checkpoints(folder, own=True) as kept:
        with pytest.raises(ValueError, match="is not finite any more after step 3 of this run"):
            kept.save(4, wrong, CUT, frozen, ABOUT | {"best": 2})
        assert kept.numbers == {1, 2, 3}


def test_other_frozen_weights_are_refused(saved, state):
    folder, frozen = saved
    with pytest.raises(ValueError, match="this run began with other source weights"):
        restore(folder, state, frozen | {next(iter(frozen)): "another"})


def test_a_run_about_something_else_is_refused(saved, state):
    folder, frozen = saved
    with pytest.raises(ValueError, match=r"began with another stage \(fine_tune\) than now \(from_scratch\)"):
        restore(folder, state, frozen, ABOUT | {"stage": "from_scratch"})


def test_an_older_run_on_pictures_that_are_read_otherwise_now_is_refused(saved, state):
    folder, frozen = saved
    assert restore(folder, state, frozen, ABOUT | {"read_anew": {}}) is not None
    with pytest.raises(ValueError, match=r"began with TIFFs that were turned twice or not inverted.*\(train: 2\)"):
        restore(folder, state, frozen, ABOUT | {"read_anew": {"train": 2}})


def test_what_an_older_meta_lacks_is_what_behaves_as_then(saved, state, monkeypatch):
    folder, frozen = saved
    monkeypatch.setitem(checkpoints.META_BEFORE, "views", 1)
    assert restore(folder, state, frozen, ABOUT | {"views": 1}) is not None
    with pytest.raises(ValueError, match=r"began with another views \(1\) than now \(2\)"):
        restore(folder, state, frozen, ABOUT | {"views": 2})


def test_a_state_that_an_older_version_did_not_save_has_its_first_value(saved, state):
    """As if this version had added an average of the weights to the optimizer's state."""
    folder, frozen = saved
    inner = state.opt_state.inner_states["train"]

    def with_more(state: TrainState, average: jax.Array) -> TrainState:
        states = state.opt_state.inner_states | {"average": optax.TraceState(average)}
        return state._replace(opt_state=state.opt_state._replace(inner_states=states))

    newer = with_more(state, jnp.full((2,), 7.0))
    restored, _ = restore(folder, newer, frozen)
    assert isinstance(restored.opt_state.inner_states["average"].trace, jax.ShapeDtypeStruct)
    whole = complete(restored, lambda: newer)
    np.testing.assert_array_equal(whole.opt_state.inner_states["average"].trace, [7.0, 7.0])
    assert_equal(whole.opt_state.inner_states["train"], inner)
    # If no leaf is missing, no fresh state is made.
    assert complete(whole, lambda: pytest.fail("not needed")) is whole


def test_the_files_of_each_are_listed_for_sha256sum(saved):
    lines = (saved[0] / "checkpoints" / "3" / CHECKSUMS).read_text().splitlines()
    assert any(line.endswith("  meta/metadata") for line in lines)
    assert json.loads((saved[0] / "checkpoints" / "3" / "meta" / "metadata").read_text())["content"]["best"] == 2


def test_other_types_are_not_damage(saved, state):
    folder, frozen = saved
    halved = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, state)
    with pytest.raises(ValueError, match="was saved as float32 and is read as bfloat16") as error:
        restore(folder, halved, frozen)
    assert not isinstance(error.value, Damaged)
    restored, _ = restore(folder, state, frozen)
    assert int(restored.step) == 3 and not list(folder.rglob("*.damaged"))
