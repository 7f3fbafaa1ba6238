"""The flags of a config: how values are written on the command line, and what is said of one that no setting has."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile
from typing import Any, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from tljax.config import Config, Recipe

# How values of a type are read and shown, beside what tyro has.
VALUES = ConstructorRegistry()
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
# The least likeness of two names, from 0 to 1, for one to be taken for the other; that of difflib's close matches.
ALIKE = 0.6


@VALUES.primitive_rule
def read_switches(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
    """`--config.X=True`, `--config.X True` and `--config.X` alone turn a setting on, `--config.X=False` turns it
    off."""
    if info.type is not bool:
        return None
    return PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[{True,False}]",
        instance_from_str=to_switch,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def to_switch(values: list[str]) -> bool:
    """The value of a setting that is on or off; a flag without one turns it on.

    Raises:
      ValueError: for any other value.
    """
    if not values:
        return True
    if len(values) > 1 or values[0].lower() not in SWITCHES:
        raise ValueError(f"{' '.join(values)!r} is neither True nor False")
    return SWITCHES[values[0].lower()]


@VALUES.primitive_rule
def read_several(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[Any, ...]] | None:
    """Any number of values behind one flag. That there are none by default is a word in the help text."""
    if get_origin(info.type) is not tuple:
        return None
    kind = get_args(info.type)[0]
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{kind.__name__.upper()} ...]",
        instance_from_str=lambda values: tuple(map(kind, values)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(map(str, value)) or ["empty"],
    )


def spell_out(argument: str) -> str:
    """`--config.X.no_Y`, which turns a setting off, as `--config.X.Y=False`; any other argument as it is."""
    return re.sub(r"^(--(?:[^=]+\.)?)no[_-]([^=.]+)$", r"\1\2=False", argument)


def list_settings(settings: Any, prefix: str = "") -> Iterator[str]:
    """The names of all settings that a dataclass holds, with dots between nested ones."""
    rows = settings if isinstance(settings, dict) else vars(settings)
    for name, value in rows.items():
        nested = [value, *value.values()] if isinstance(value, dict) else [value]
        if any(map(dataclasses.is_dataclass, nested)):
            yield from list_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def describe_unknown(arguments: Sequence[str], flags: Any, name: str) -> str:
    """What is wrong with the first of some `arguments` that no setting of the config `name` has, and what to type.
    `flags` holds all that there are, the config as `config`."""
    words = [arguments[0], *takewhile(lambda word: not word.startswith("-"), arguments[1:])]
    flag, value = re.fullmatch(r"([^=]*)(.*)", " ".join(words), re.DOTALL).groups()  # type: ignore[union-attr]
    flag, _, behind = flag.partition(" ")
    value = f" {behind}{value}" if behind else value
    typed = flag.lstrip("-").replace("-", "_").removeprefix("config.")
    said = f"{flag}{value}: there is no such setting"
    best = find_nearest(typed, list(list_settings(flags)))
    stages = getattr(flags.config, "stages", {})
    if best is None and isinstance(flags.config, Recipe) and find_nearest(typed, list(list_settings(Config()))):
        return f"{said}; a recipe chooses it itself, and the other configs that main.py --help lists let you set it"
    if best is None:
        return f"{said}; settings are --config.NAME=VALUE, and main.py --config {name} --help lists them"
    own = best.split(".", 3)[-1]
    names_stage = any(get_close_matches(part, stages) for part in typed.split(".")[:-1])
    if best.startswith("config.stages.") and (typed == own or not names_stage):
        return (
            f"{said} of a whole lesson, each stage has its own; type --config.stages.STAGE.{own}{value}, with one of "
            f"{', '.join(stages)} as STAGE"
        )
    return f"{said}; the nearest is --{best}{value}"


def find_nearest(typed: str, names: Sequence[str]) -> str | None:
    """The name of a setting that is most like what was `typed`, which may lack its first parts or have others; the
    last part may be initials (lr). None if there is none like it."""
    best = max(names, key=lambda name: _likeness(typed, name))
    return best if _likeness(typed, best)[0] >= ALIKE else None


def _likeness(typed: str, name: str) -> tuple[float, float]:
    """How alike two dotted names are at most without their first parts, and as they are: from 0 to 1."""
    last = name.rpartition(".")[2]
    initials = "".join(word[0] for word in last.split("_")) if "_" in last else last
    pairs = [(left, right) for left in _ends(typed) for right in _ends(name)]
    found = max(_ratio(left, right) for left, right in pairs)
    same = initials == typed.rpartition(".")[2]
    return max(found, float(same)), _ratio(typed, name)


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right).ratio()
