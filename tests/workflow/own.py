"""A study of data and features of one's own, made of scikit-learn's digits: images, arrays, a function, PCA scores."""

from pathlib import Path
from typing import Any

import numpy as np
from harness import Workflow
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

FUNCTION = '''"""Rows of digits."""

from .chosen import WANTED


def load(levels):
    """Return the rows of some digits, with grey levels divided."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    some = np.isin(digits.target, WANTED)
    rows, labels = digits.data[some] / levels, digits.target[some]
    return {"x": rows[:200], "y": labels[:200], "x_test": rows[200:300], "y_test": labels[200:300]}


import numpy as np  # noqa: E402
'''

STUDY: dict[str, Any] = {
    "study": "own",
    "device": "cpu",
    "seeds": 1,
    "datasets": {
        "photos": {"kind": "images", "folder": "photos", "side": 8, "colour": False, "sample_set": {"limit": 120}},
        "rows": {
            "kind": "function",
            "function": "mine.digits:load",
            "arguments": {"levels": 16},
            "classes": 3,
            "shape": [64],
            "train": 200,
            "test": 100,
        },
        "table": {"kind": "arrays", "file": "table.npz", "sample_set": {"limit": 100}},
    },
    "recipes": {
        "mlp": {
            "dataset": "photos",
            "model": {"kind": "mlp", "widths": [16]},
            "schedule": {"epochs": 2, "batch_size": 64},
        },
        "line": {"dataset": "rows", "model": {"kind": "mlp", "widths": [8]}, "schedule": {"epochs": 1}},
    },
    "features": {
        "pca": {"dataset": "photos", "source": "pca", "control": True},
        "random": {"dataset": "table", "source": "random.npz"},
    },
    "analysis": {
        "angles": {"permutations": 19},
        "subspaces": {"dimensions": [1, 2], "null_draws": 10},
    },
    "figures": ["angle_dynamics", "angle_matrix", "spectra", "layers", "training", "sensitivity", "similarity"],
}
N_CLASSES, N_EACH = 3, 60  # of the images


def photos() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits that are written as images, (n, 8, 8) uint8, in the order of the data set; and their labels."""
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == label)[:N_EACH] for label in range(N_CLASSES)])
    return (15 * digits.images[rows]).astype(np.uint8), digits.target[rows]


def write_sources(root: Path) -> None:
    """Write the files that the study is of."""
    images, labels = photos()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / "photos" / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    (root / "mine").mkdir()
    (root / "mine/__init__.py").write_text("")
    (root / "mine/chosen.py").write_text("WANTED = (3, 5, 8)\n")
    (root / "mine/digits.py").write_text(FUNCTION)
    digits = load_digits()
    np.savez(root / "table.npz", x=digits.data[:400], y=digits.target[:400], split=np.arange(400) >= 300)
    (root / "pca").mkdir()
    scores = PCA(6, random_state=0).fit_transform(images.reshape(len(images), -1) / 255)
    np.save(root / "pca/scores.npy", scores)
    np.save(root / "pca/whitened.npy", scores / scores.std(axis=0))
    projections = np.random.default_rng(0).normal(size=(2, 64, 5))
    np.savez(root / "random.npz", projection=digits.data[:400] @ projections)


def own_workflow(root: Path) -> Workflow:
    """Make the study in a directory; nothing is run."""
    workflow = Workflow(root, STUDY)
    write_sources(root)
    return workflow
