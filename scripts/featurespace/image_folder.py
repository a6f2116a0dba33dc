"""How a folder of images is laid out: class subfolders, or `train` and `test` with class subfolders each.

Plain Python: the Snakefile asks for it too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from featurespace.errors import FeaturespaceError
from featurespace.inventory import shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
SPLITS = ("train", "test")


class ImageFile(NamedTuple):
    """One image: its name below the folder, its class, and whether it is held out for testing (None: not said)."""

    name: str
    class_name: str
    is_test: bool | None


def is_image(name: str) -> bool:
    """Say whether a file counts as an image, by its name alone."""
    return name.lower().endswith(SUFFIXES)


def arrange(root: Path, names: Iterable[str]) -> list[ImageFile]:
    """Put the images of a folder into their order: the training split, then the test split; by class, then by name.

    Names are ordered by their code points, as Python does.

    Parameters
    ----------
    root
        The folder, for errors.
    names
        Of its images, relative to it, with slashes.

    Raises
    ------
    FeaturespaceError
        If there are no images, or fewer than two classes, or an image is in no class; if there are other folders
        beside `train` and `test`; if the test images have a class that the training images have not.
    """
    parts = [name.split("/") for name in sorted(names)]
    if not parts:
        raise FeaturespaceError(f"{shown(root)}: there is no image in it (of {', '.join(SUFFIXES)})")
    tops = sorted({part[0] for part in parts if len(part) > 1})
    is_split = set(SPLITS) <= set(tops)
    if is_split and len(tops) > 2:
        other = next(top for top in tops if top not in SPLITS)
        raise FeaturespaceError(
            f"{shown(root)}: beside train and test there is {shown(other)}; move it out of the folder"
        )
    n_folders = 2 if is_split else 1
    for part in parts:
        if len(part) <= n_folders:
            raise FeaturespaceError(
                f"{shown(root)}: {shown('/'.join(part))} is in the folder of no class; put it into one"
            )
    files = [ImageFile("/".join(part), part[n_folders - 1], part[0] == "test" if is_split else None) for part in parts]
    classes = {file.class_name for file in files if not file.is_test}
    if strange := sorted({file.class_name for file in files} - classes):
        raise FeaturespaceError(f"{shown(root)}: test/{shown(strange[0])} has images, and train/ has none of it")
    if len(classes) < 2:
        raise FeaturespaceError(
            f"{shown(root)}: all images are of the class {classes.pop()!a}; a folder for each is needed"
        )
    return sorted(files, key=lambda file: (bool(file.is_test), file.class_name, file.name))


def describe(root: Path, names: list[str]) -> dict[str, Any]:
    """Return what the plan of a study needs to know of a folder: how many images each class has, by split."""
    files = arrange(root, names)
    classes = sorted({file.class_name for file in files})
    counts: dict[str, dict[str, int]] = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for file in files:
        counts["test" if file.is_test else "train"][file.class_name] += 1
    is_split = files[0].is_test is not None
    return {"train": [*counts["train"].values()], "test": [*counts["test"].values()] if is_split else None}
