"""Recognizes the layout of a folder of pictures: which subfolders are splits, which are classes, which are neither.

Only names and the kinds of directory entries count here; no picture is opened.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

Role = Literal["train", "val", "test", "unlabelled"]

# Endings of the formats that are read; several are other spellings of JPEG.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
# Formats of pictures that are not read.
OTHER_PICTURES = (".heic", ".heif", ".avif", ".jp2", ".svg", ".raw", ".cr2", ".nef", ".dng", ".psd")
# Folders that operating systems, file servers and notebooks leave behind.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "__pycache__"}
# Reasons for which files are left out.
BESIDE, ENDING, NO_SPLIT = "beside the folders of the classes", "with the ending ", ", which is no split"
TO_CONVERT = ", which is not read: convert them to JPEG"
# So many of a kind of reasons are named, and how the others are counted.
MOST_REASONS = 5
MANY_REASONS = {
    f"{ENDING}.*(?<!{TO_CONVERT})": "with {:,} other endings",
    f"in .*{NO_SPLIT}": "in {:,} other folders that are no splits",
}

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "holdout"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "unlabelled", "unlabeled", "unsup"), "unlabelled"),
}
_AFFIX = "sets?|data|datasets?|images?|imgs?|pics?|pictures?|photos?|folder|dir|split|seg|new|final|sample|samples"
_GLUED = re.compile(f"({'|'.join(sorted(_ROLES, key=len, reverse=True))})(?:{_AFFIX})?")


def split_role(name: str) -> Role | None:
    """The split that a folder's name stands for: `Training`, `training_set`, `test1`, `seg_train`, `valImages`, `dev`.
    None if the name is not a split's with nothing but usual additions."""
    words = [word for word in re.findall("[a-z]+", name.lower()) if not re.fullmatch(_AFFIX, word)]
    match = _GLUED.fullmatch(words[0]) if len(words) == 1 else None
    return _ROLES[match[1]] if match else None


def fold_name(name: str) -> str:
    """A class name for comparisons between splits: composed and decomposed letters, upper and lower case are alike."""
    return unicodedata.normalize("NFC", name).casefold().strip()


class Found(NamedTuple):
    """The layout of a folder.

    `base` is the folder to which all paths are relative. `splits` maps `train`, `val`, `test` to class name -> paths of
    the class's pictures; a folder of classes has the one split `all`. Every split has the same class names. `left_out`
    counts the files that are not read, by reason. `notes` are lines about what was understood, `warnings` lines about
    what may be wrong. `groups` maps paths to the cells of the table's column that says which belong together.
    """

    base: Path
    splits: dict[str, dict[str, list[str]]]
    left_out: Counter[str]
    notes: list[str]
    warnings: list[str]
    groups: Mapping[str, str] = MappingProxyType({})


class Contents(NamedTuple):
    """The entries of one directory: names of subfolders, names of pictures, and the other files by reason."""

    folders: list[str]
    pictures: list[str]
    others: Counter[str]


def read_contents(folder: Path) -> Contents:
    """Reads one directory. Links to folders count as folders, links to files as files.

    Raises:
      PermissionError: if the directory cannot be read.
    """
    folders, pictures, others = [], [], Counter[str]()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError as error:
        raise PermissionError(f"{folder} cannot be read: permission denied; give yourself the right to it") from error
    for entry in entries:
        if entry.name.startswith("."):
            others["hidden"] += 1
        elif _leads_nowhere(entry):
            others["broken links"] += 1
        elif entry.is_dir():
            if entry.name.lower() in SYSTEM_FOLDERS:
                others["in folders of the system"] += 1
            else:
                folders.append(entry.name)
        elif not entry.is_file():
            others["no regular files"] += 1
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            pictures.append(entry.name)
        else:
            ending = os.path.splitext(entry.name)[1].lower()
            advice = TO_CONVERT if ending in OTHER_PICTURES else ""
            others[f"{ENDING}{ending or '(none)'}{advice}"] += 1
    return Contents(folders, pictures, others)


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to nothing, or to itself."""
    try:
        entry.stat()
    except OSError:
        return entry.is_symlink()
    return False


def list_pictures(folder: Path) -> tuple[list[str], Counter[str]]:
    """The pictures at any depth below `folder`, as paths relative to it in sorted order, and what else is there by
    reason. Links to folders are not followed."""
    pictures: list[str] = []
    others = Counter[str]()
    for parent, contents in _walk(folder, ""):
        pictures += [f"{parent}{name}" for name in contents.pictures]
        others += contents.others
    # The order of `sorted` over paths, which compares their parts: the held-out tenth follows from it.
    return sorted(pictures, key=lambda path: path.split("/")), others


def _walk(folder: Path, parent: str) -> Iterator[tuple[str, Contents]]:
    """The contents of `folder` and of all folders below it, each with its path below `folder`, which begins with
    `parent`."""
    left = [parent]
    while left:
        parent = left.pop()
        contents = read_contents(folder / parent)
        links = [name for name in contents.folders if (folder / parent / name).is_symlink()]
        yield parent, contents._replace(others=contents.others + Counter({"in linked folders": len(links)}))
        left += [f"{parent}{name}/" for name in reversed(contents.folders) if name not in links]


def recognize(folder: Path, classes: Sequence[str] = ()) -> Found:
    """The layout of `folder`. If `classes` are given, only these are checked for pictures.

    Raises:
      ValueError: if the subfolders look like splits but cannot be used as such, or a class has no picture; the message
        says what to do.
      PermissionError: if a folder cannot be read.
    """
    base, top, notes, left_out = _descend(folder)
    roles = {name: role for name in top.folders if name not in classes and (role := split_role(name))}
    found = Found(base, {}, left_out, notes, [])
    if _are_splits(base, top.folders, roles):
        _read_splits(found, top.folders, roles, classes)
    else:
        _refuse_hidden_splits(base, [name for name in top.folders if name not in classes])
        _read_classes(found, top.folders, classes)
    if classes:
        for split in found.splits.values():
            left_out["of other classes"] += sum(len(paths) for name, paths in split.items() if name not in classes)
    return found._replace(left_out=+left_out)


def _descend(folder: Path) -> tuple[Path, Contents, list[str], Counter[str]]:
    """Sees through a single top folder, as archives have it, and through `train/` alone: the folder with the classes or
    splits, its contents, notes, and what was left out on the way."""
    base, contents, notes = folder, read_contents(folder), list[str]()
    left_out = Counter(contents.others)
    # An archive's folder, and train/ in it.
    for _ in range(2):
        if len(contents.folders) != 1 or contents.pictures:
            break
        (name,) = contents.folders
        inner, role = read_contents(base / name), split_role(name)
        several = len(inner.folders) > 1 or any(split_role(n) == "train" for n in inner.folders)
        if role in ("val", "test") or not (several or (role == "train" and inner.folders)):
            break
        base, contents = base / name, inner
        notes.append(f"everything is in {base.relative_to(folder)}: read from there")
        left_out += inner.others
    if contents.pictures:
        left_out[BESIDE] += len(contents.pictures)
    return base, contents, notes, left_out


def _are_splits(root: Path, folders: Sequence[str], roles: dict[str, Role]) -> bool:
    """Whether the folders are splits: all of them by name or, among other folders, train and another split, or train
    if nothing else holds pictures."""
    if not roles:
        return False
    others = [name for name in folders if name not in roles]
    found = set(roles.values())
    if not others:
        return found != {"unlabelled"}
    return "train" in found and (len(found - {"unlabelled"}) > 1 or not any(_has_pictures(root / n) for n in others))


def _has_pictures(folder: Path) -> bool:
    return any(contents.pictures for _, contents in _walk(folder, ""))


def _refuse_hidden_splits(root: Path, folders: Sequence[str]) -> None:
    """Refuses classes whose names all contain the word of a split, such as cats_train and cats_test."""
    words = [{_ROLES[w] for w in re.findall("[a-z]+", name.lower()) if w in _ROLES} for name in folders]
    if len(folders) > 1 and all(words) and len(set.union(*words)) > 1:
        raise ValueError(
            f"{root}: the folders {join_names(folders)} look like splits, not classes: rename them train, val and "
            "test, or name them in config.data.classes if they are classes"
        )


def _read_splits(found: Found, folders: Sequence[str], roles: dict[str, Role], classes: Sequence[str]) -> None:
    by_role: dict[Role, str] = {}
    for name, role in roles.items():
        if role in by_role and role != "unlabelled":
            raise ValueError(
                f"{found.base}: the folders {by_role[role]} and {name} both look like the split {role}: rename or "
                "remove one"
            )
        by_role[role] = name
    renamed = [f"{name} is {role}" for role, name in by_role.items() if name != role and role != "unlabelled"]
    found.notes.extend([f"splits by their names: {join_names(renamed)}"] * bool(renamed))
    for name in (name for name in folders if roles.get(name, "unlabelled") == "unlabelled"):
        pictures, others = list_pictures(found.base / name)
        found.left_out.update(others)
        found.left_out[f"in {name}{NO_SPLIT}"] += len(pictures)
    for role in ("train", "val", "test"):
        if role in by_role:
            _read_split(found, role, by_role[role])
    _align(found, by_role, classes)
    check_splits(found, {str(role): str(found.base / name) for role, name in by_role.items()}, classes)


def _read_split(found: Found, role: str, name: str) -> None:
    """Adds the classes of one split to `found`."""
    contents = read_contents(found.base / name)
    if len(contents.folders) == 1 and not contents.pictures and split_role(contents.folders[0]) == role:
        found.left_out.update(contents.others)
        name = f"{name}/{contents.folders[0]}"
        found.notes.append(f"the split {role} is in {name}")
        contents = read_contents(found.base / name)
    found.left_out.update(contents.others)
    if contents.pictures and not contents.folders and role != "test":
        raise ValueError(
            f"{found.base / name} has {len(contents.pictures)} pictures but no folders of classes: put the pictures of "
            f"each class into a folder of its own, such as {name}/cat{suggest_table(found.base)}"
        )
    found.left_out[f"in {name} without a class"] += len(contents.pictures)
    if contents.folders:
        found.splits[role] = {}
    for label, folders in unite_names(contents.folders, found).items():
        found.splits[role][label] = _list_class(found, [f"{name}/{folder}" for folder in folders])


def _align(found: Found, by_role: dict[Role, str], classes: Sequence[str]) -> None:
    """Gives all splits the classes of train (without train: of all splits), matched by `fold_name`."""
    names = sorted(found.splits.get("train") or {name for split in found.splits.values() for name in split})
    folded = {fold_name(name): name for name in names}
    for role, split in found.splits.items():
        aligned: dict[str, list[str]] = {name: [] for name in names}
        for name, paths in split.items():
            target = name if name in aligned else folded.get(fold_name(name))
            if target is not None:
                aligned[target] += paths
            elif not paths or role == "test" or (classes and name not in classes):
                found.left_out[f"in {role} of classes that train does not have"] += len(paths)
            else:
                raise ValueError(
                    f"{found.base / by_role['val']} has the class {name!r}, which {by_role['train']} does not have: "
                    "add its pictures there, or remove it"
                )
        found.splits[role] = aligned


def check_splits(found: Found, places: Mapping[str, str], classes: Sequence[str]) -> None:
    """Warns of a class without a picture in another split than train. Leaves out a test without any picture.

    `places` says where the pictures of each split are, for messages.

    Raises:
      ValueError: if a class of train, or all of another split, has no picture.
    """
    for role in list(found.splits):
        split = {name: paths for name, paths in found.splits[role].items() if not classes or name in classes}
        empty = [name for name, paths in split.items() if not paths]
        if role == "test" and len(empty) == len(split) and len(found.splits) > 1:
            del found.splits[role]
        elif empty and (role == "train" or len(empty) == len(split)):
            raise ValueError(_no_picture(places[role], empty))
        elif empty and "train" in found.splits:
            found.warnings.append(
                f"{os.path.basename(places[role])} has no picture of {join_names(empty)}: that class is not measured "
                "there"
            )


def _list_class(found: Found, folders: Sequence[str]) -> list[str]:
    """The pictures of a class; what else lies in its `folders` is counted as left out."""
    listed = []
    for folder in folders:
        pictures, others = list_pictures(found.base / folder)
        found.left_out.update(others)
        listed += [f"{folder}/{path}" for path in pictures]
    return listed


def unite_names(names: Sequence[str], found: Found) -> dict[str, list[str]]:
    """The names of classes as they are written, by class: what is equal in letters is one class, in whatever Unicode
    form. Adds a note of that to `found`, and a warning of names that differ in case alone."""
    united: dict[str, list[str]] = {}
    for composed, forms in _group(names, [unicodedata.normalize("NFC", name) for name in names]).items():
        # A name that is there in one form alone keeps it.
        united[composed if len(forms) > 1 else forms[0]] = forms
    several = [name for name, forms in united.items() if len(forms) > 1]
    if several:
        found.notes.append(f"one class in two Unicode forms: {join_names(several)}")
    alike = [same for same in _group(list(united), list(map(fold_name, united))).values() if len(same) > 1]
    if alike:
        pairs = join_names(" and ".join(same) for same in alike)
        found.warnings.append(f"classes whose names differ in case alone are read as two: {pairs}")
    return united


def _group(names: Sequence[str], keys: Sequence[str]) -> dict[str, list[str]]:
    """The names with each key."""
    groups: dict[str, list[str]] = {}
    for name, key in zip(names, keys, strict=True):
        groups.setdefault(key, []).append(name)
    return groups


def _no_picture(place: str, names: Sequence[str]) -> str:
    what = f"class {names[0]}" if len(names) == 1 else f"classes {join_names(names)}"
    return f"{place} has no picture of the {what}: add some, or remove it ({' '.join(EXTENSIONS)} are read)"


def _read_classes(found: Found, folders: Sequence[str], classes: Sequence[str]) -> None:
    found.splits["all"] = {}
    hints: dict[str, list[str]] = {}
    for name, alike in unite_names(folders, found).items():
        pictures = found.splits["all"][name] = _list_class(found, alike)
        parts = sorted({path.split("/")[1] for path in pictures if path.count("/") > 1})
        hints |= {name: parts} if any(split_role(part) in ("train", "val", "test") for part in parts) else {}
    empty = [name for name, paths in found.splits["all"].items() if not paths and (not classes or name in classes)]
    if empty:
        raise ValueError(_no_picture(str(found.base), empty))
    if hints:
        name, parts = next(iter(hints.items()))
        found.warnings.append(
            f"the class {name} has the folders {join_names(parts)}: all pictures of a class are read as one; for "
            "splits, put the classes into train/ and val/"
        )


def join_names(names: Iterable[str], separator: str = ", ", most: int = 10) -> str:
    """Names as a list for a reader: at most `most` of them, and the number of the others."""
    names = list(names)
    shown = separator.join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} others"


def suggest_table(folder: Path) -> str:
    """What to write if the labels of a folder's pictures stand in a table; empty where none lies in it."""
    tables = sorted(folder.glob("*.csv"))
    return f", or csv:{tables[0]} if the labels are in that table" if tables else ""


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """The files that are not read, by reason: the most frequent ones of the reasons that may be many."""
    parts = {why: f"{count:,} {why}" for why, count in left_out.items() if count}
    for kind, others in MANY_REASONS.items():
        alike = sorted((why for why in parts if re.fullmatch(kind, why, re.S)), key=lambda why: -left_out[why])
        # One more is named, too.
        if len(rest := alike[MOST_REASONS:]) > 1:
            count = sum(left_out[why] for why in rest)
            parts = {why: part for why, part in parts.items() if why not in rest}
            parts[kind] = f"{count:,} {others.format(len(rest))}"
    return ", ".join(parts.values())
