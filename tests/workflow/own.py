"""A study of data and features of one's own, made of scikit-learn's digits: images, arrays, a function, PCA scores."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
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
    },
    "recipes": {
        "mlp": {
            "dataset": "photos",
            "model": {"kind": "mlp", "widths": [16]},
            "schedule": {"epochs": 2, "batch_size": 64},
        },
    },
    "features": {"elsewhere": {"dataset": "photos", "source": "elsewhere", "layers": ["turned", "pca"]}},
    "analysis": {"angles": {"permutations": 19}},
    "figures": ["angle_matrix", "layers"],
}
# Others, of which only the stores are made.
MORE: dict[str, Any] = {
    "datasets": {
        "threes": {
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
    "features": {
        "random": {"dataset": "table", "source": "random.npz", "control": True},
        "same": {"dataset": "threes", "source": "stored"},
    },
}
N_CLASSES, N_EACH = 3, 60  # of the images


def photos() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits that are written as images, (n, 8, 8) uint8, in the order of the data set; and their labels."""
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == label)[:N_EACH] for label in range(N_CLASSES)])
    return (15 * digits.images[rows]).astype(np.uint8), digits.target[rows]


def write_sources(root: Path) -> None:
    """Write the files that the studies are of: images, modules, and features as plain arrays."""
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
    (root / "elsewhere").mkdir()
    rows = images.reshape(len(images), -1) / 255
    # turned about the origin, rows keep their lengths and angles, and so all singular values and left vectors
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))[0]
    np.save(root / "elsewhere/turned.npy", rows @ turn)
    np.save(root / "elsewhere/pca.npy", PCA(6, random_state=0).fit_transform(rows))
    projections = np.random.default_rng(0).normal(size=(2, 64, 5))
    np.savez(root / "random.npz", projection=digits.data[:400] @ projections, epoch=[0.0, 0.5])
    some = np.flatnonzero(np.isin(digits.target, (3, 5, 8)))[:300][::-1]  # in another order, with ids
    group = zarr.open_group(str(root / "stored"), mode="w")
    group.create_array("pixels", data=digits.data[some].astype(np.float32), chunks=(70, 64))
    group.create_array("sample", data=np.arange(300)[::-1].copy())
    group.create_array("label", data=np.searchsorted([3, 5, 8], digits.target[some]), chunks=(300,))


def own_workflow(root: Path) -> Workflow:
    """Make the study in a directory; nothing is run."""
    workflow = Workflow(root, STUDY)
    write_sources(root)
    return workflow
