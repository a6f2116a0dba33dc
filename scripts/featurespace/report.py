"""The report: one HTML file that needs no network and reads from the question down to how to run it again.

Every number in it is computed from the tables behind the figures; nothing is judged here beyond what they say.
"""

import base64
import hashlib
import importlib.metadata
import io
import os
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from docutils.core import publish_parts
from docutils.utils import SystemMessage
from markupsafe import Markup

from featurespace.errors import FeaturespaceError
from featurespace.explorer import embedded_json
from featurespace.figures.series import CONTROLS, datasets_of
from featurespace.rules import headings_of
from featurespace.tables import is_false

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE, STYLE, SCRIPT = (TEMPLATES / f"report.{kind}" for kind in ("html.j2", "css", "js"))
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "zarr", "xarray", "matplotlib", "snakemake")
CENTRINGS = ("raw", "centred")
# What a figure shows in a few words, for those who cannot see it; its caption says the rest.
ALTERNATIVES = {
    "angle_dynamics": "Line plots of the P-vector's angle to four references against epoch, raw beside centred.",
    "angle_matrix": "Heat maps of the cosine, the raw and centred angle and the correlation of entries between the "
    "P-vectors of every two recipes.",
    "reference_angles": "Line plots of the angle to three reference networks against epoch, by family of the network "
    "being trained, raw and centred.",
    "early_angles": "Line plots of the P-vector's angle to its own end and to the references against iterations of "
    "the first two epochs.",
    "mean_control": "Line plots of the P-vector's angle to the ones vector and to X·mean, of its angle to its own end "
    "with and without the ones vector, and dots for the share of the change along it.",
    "permutation_null": "Scatter plots of the permutation null against its formula, and histograms of observed angles "
    "and null means by kind of pair.",
    "training_effect": "Dots with intervals for the change of the angle between two networks from the first to the "
    "last step, raw and centred.",
    "shuffled_labels": "Dot plots of the angles from networks with shuffled and with true labels to groups of "
    "networks and to the data.",
    "spectra": "Line plots of singular values by component, and of the first one's share against epoch.",
    "layer_theory": "Compression, discrimination and the ratio of compression between neighbouring layers of deep "
    "linear networks against depth, with what theory predicts, its law and its bounds.",
    "law_sweep": "Measured ratios of compression against those of the law over all settings, and their deviations.",
    "assumptions": "Distance from the minimum norm, balance and variance of singular values against depth and against "
    "width, with what theory predicts.",
    "layer_probes": "Numerical rank and the accuracy of linear probes against the depth of a layer, before and after "
    "training.",
    "normalisation_modes": "Compression, discrimination and numerical rank against depth in both modes of batch "
    "normalisation.",
    "collapse": "The four measures of neural collapse against the depth of a layer, before and after training.",
    "embeddings": "Maps of the samples in several layers of each network, coloured by class.",
    "linear_depth": "Test and training accuracy and compression against the number of linear layers.",
    "transfer": "Accuracy on unseen classes, compression and accuracy on seen ones against the layers of the head.",
    "layers": "Plots of compression and discrimination against the depth of a layer, with fitted lines.",
    "training": "Line plots of loss and accuracy against epoch.",
    "explained_variance": "Share of the squared norm in the first k directions at the first and last step of each "
    "network, raw and centred, and the error of the rank-one approximation over training.",
    "entry_densities": "Densities of the P-vector's entries at up to four points of training for the data and each "
    "network, raw and centred, with the coefficient of variation and the angle to the ones vector.",
    "entry_samples": "Images of the samples with the lowest and the highest entries of the P-vector, for the data and "
    "each network, raw and centred, with their classes.",
    "subspace_angles": "Angles of the first six singular vectors to their last step over training, and principal "
    "angles between the leading subspaces against their dimension, beside those of random subspaces.",
    "data_angle_accuracy": "Test accuracy against the angle between a network's P-vector and the data's over many "
    "settings, raw and centred, on linear and logarithmic axes, with rank correlations.",
    "indicators": "Absolute rank correlation and out-of-sample skill, with intervals, of the angle to the data and "
    "simpler indicators of test accuracy and generalisation gap.",
    "similarity": "Cosine between P-vectors, raw and centred, against CKA, deconfounded CKA, SVCCA and Procrustes "
    "distance over pairs of networks, at first and last steps.",
    "sensitivity": "Angles between P-vectors as samples, features, depth, split, normalisation, model and the "
    "matching of samples change, raw and centred, beside the angle expected of shuffled samples.",
}


@dataclass(frozen=True)
class FigureEntry:
    """One figure of the report."""

    name: str
    image: str  # data URI
    alternative: str  # what it shows in a few words, for those who cannot see it; its title if empty
    caption: Markup
    csv: str  # path as the user gives it to Snakemake
    csv_link: str  # the same, relative to the report
    png_link: str
    command: str

    @property
    def title(self) -> str:
        """What the figure is called: the words in bold that its caption begins with, else its name."""
        found = re.match(r"<p><strong>(.*?)</strong>", self.caption, re.DOTALL)
        words = Markup(found[1]).striptags() if found else ""  # ends of sentences are the page's to set
        return words.rstrip(".") or self.name

    @property
    def lead(self) -> Markup:
        """The first paragraph of the caption, without the title; all of it if it begins with anything else."""
        first, end, _ = str(self.caption).partition("</p>")
        if not first.startswith("<p>"):
            return self.caption
        return Markup(re.sub(r"^<p><strong>.*?</strong>\s*", "<p>", first, count=1, flags=re.DOTALL) + end)

    @property
    def more(self) -> Markup:
        """The paragraphs of the caption after the first."""
        first, _, rest = str(self.caption).partition("</p>")
        return Markup(rest.strip()) if first.startswith("<p>") else Markup("")


# --- pieces -----------------------------------------------------------------------------------------------------------


def caption_html(text: str) -> Markup:
    """Turn a caption in reStructuredText into HTML.

    Raises
    ------
    FeaturespaceError
        If the text has a mistake in it, or brings in raw HTML or another file.
    """
    settings = {
        "raw_enabled": False,
        "file_insertion_enabled": False,
        "_disable_config": True,
        "halt_level": 2,
        "warning_stream": io.StringIO(),
        "initial_header_level": 4,
    }
    try:
        return Markup(publish_parts(text, writer="html5", settings_overrides=settings)["body"])
    except SystemMessage as error:
        raise FeaturespaceError(f"a caption under report/ is no sound reStructuredText: {error}") from error


def image_uri(svg: bytes) -> str:
    """Return an SVG file as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def versions() -> dict[str, str]:
    """Return what the study ran on: Python, the packages that decide numbers, and the machine's kind."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["platform"] = platform.platform()
    found["cores"] = str(os.cpu_count())
    return found


def timings(folder: Path, names: Collection[str]) -> list[dict[str, Any]]:
    """Sum up Snakemake's benchmark files by rule.

    Parameters
    ----------
    folder
        Holds `<rule>.tsv` and `<rule>/**/<job>.tsv`, each with the columns `s` (wall time) and `max_rss` (MiB). It
        may be missing, and a file that cannot be read, which a running job may be writing, is passed over.
    names
        The study's recipes and data sets, kinds included: files of others, which an earlier version of the study
        left, are passed over.

    Returns
    -------
    list of dict
        rule, n_jobs, total_s, longest_s, peak_mib (NaN if not measured); the longest total first.
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).with_suffix("").parts
        if len(parts) > 1 and not set(parts[1:]) & set(names):
            continue
        try:
            frame = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
            seconds = pd.to_numeric(frame["s"], errors="coerce")
            memory = pd.to_numeric(frame["max_rss"], errors="coerce")
        except (OSError, ValueError, KeyError):
            continue
        rows.append({"rule": parts[0], "s": seconds.sum(), "mib": memory.max()})
    if not rows:
        return []
    groups = pd.DataFrame(rows).groupby("rule")
    summary = groups.agg(n_jobs=("s", "size"), total_s=("s", "sum"), longest_s=("s", "max"), peak_mib=("mib", "max"))
    ordered = summary.reset_index().sort_values(["total_s", "rule"], ascending=[False, True])
    return [{str(key): value for key, value in row.items()} for row in ordered.to_dict("records")]


# --- findings ---------------------------------------------------------------------------------------------------------


def _trained(recipes: Sequence[Mapping[str, Any]]) -> set[str]:
    """Name the recipes that are trained on a task of the data: all but the controls."""
    return {recipe["name"] for recipe in recipes if recipe["task"] not in CONTROLS}


def _untrained(recipes: Sequence[Mapping[str, Any]]) -> set[str]:
    """Name the recipes whose networks are not trained at all."""
    return {recipe["name"] for recipe in recipes if recipe["task"] == "untrained"}


def _several_seeds(runs: pd.DataFrame) -> bool:
    """Tell whether any recipe of a run table has more than one seed."""
    return bool((runs.groupby("recipe")["seed"].nunique() > 1).any())


def _spread(rows: pd.DataFrame) -> dict[str, float] | None:
    """Return the mean, the extremes and the number of angles of recipes, or pairs of them, and their null's mean."""
    rows = rows.dropna(subset=["angle_deg"])
    if rows.empty:
        return None
    angles = rows["angle_deg"]
    null = float(rows["null_mean_deg"].mean())
    spread = {"mean": float(angles.mean()), "low": float(angles.min()), "high": float(angles.max()), "null": null}
    return spread | {"n": len(angles), "n_runs": int(rows["n_seeds" if "n_seeds" in rows else "n_pairs"].sum())}


def angle_summary(
    dynamics: pd.DataFrame | None, matrix: pd.DataFrame | None, recipes: Sequence[Mapping[str, Any]], dataset: str
) -> list[dict[str, Any]]:
    """Compare what the P-vector claims rest on with its controls, for one data set.

    Parameters
    ----------
    dynamics, matrix
        The tables behind the figures `angle_dynamics` and `angle_matrix`; None if the study has them not.
    recipes
        The study's recipes in order.
    dataset
        A data set's name.

    Returns
    -------
    list of dict
        A row a comparison that the study allows: key, name, raw and centred (None if unknown; else mean, low,
        high and null in degrees, n recipes or pairs of recipes, n_runs or pairs of them), correlation of the raw
        vectors' entries (None where it is no mean over pairs; else its mean size, and low and high with their signs).
    """
    trained = _trained(recipes)
    tasks = {recipe["name"]: recipe["task"] for recipe in recipes}
    chosen: list[tuple[str, str, pd.DataFrame]] = []
    if dynamics is not None:
        own = dynamics[(dynamics["dataset"] == dataset) & (dynamics["reference"] == "own")]
        own = own[own["recipe"].isin(trained)]
        first = own[own["step"] == own.groupby(["recipe", "centring"])["step"].transform("min")]
        chosen.append(("start", "First kept step to the run's own last step", first))
    if matrix is not None:
        pairs = matrix[matrix["dataset"] == dataset]
        a, b = pairs["recipe_a"], pairs["recipe_b"]
        task_a, task_b = a.map(tasks), b.map(tasks)
        both = a.isin(trained) & b.isin(trained)
        shuffled = (task_a == "shuffled-labels") ^ (task_b == "shuffled-labels")
        chosen += [
            ("seeds", "Two seeds of a trained recipe", pairs[both & (a == b)]),
            ("recipes", "Two different trained recipes", pairs[both & (a != b)]),
            ("data", "The data and a trained recipe", pairs[(a == "data") & b.isin(trained)]),
            (
                "shuffled",
                "A recipe on shuffled labels and a trained one",
                pairs[shuffled & (a.isin(trained) | b.isin(trained))],
            ),
            ("untrained", "Two untrained networks", pairs[(task_a == "untrained") & (task_b == "untrained")]),
        ]
    rows = []
    for key, name, table in chosen:
        raw, centred = (_spread(table[table["centring"] == centring]) for centring in CENTRINGS)
        if raw is None and centred is None:
            continue
        correlation = None
        if "correlation_size" in table:
            of_raw = table[table["centring"] == "raw"].dropna(subset=["correlation_size"])
            if len(of_raw):
                correlation = {
                    "size": float(of_raw["correlation_size"].mean()),
                    "low": float(of_raw["correlation_low"].min()),
                    "high": float(of_raw["correlation_high"].max()),
                }
        rows.append({"key": key, "name": name, "raw": raw, "centred": centred, "correlation": correlation})
    return rows


def degrees(value: float) -> str:
    """Write an angle as the report does."""
    return f"{value:.0f}°" if value >= 20 else f"{value:.1f}°"


def _both(row: Mapping[str, Any]) -> str:
    """Write an angle raw and centred, each with its null."""
    texts = []
    for centring in CENTRINGS:
        spread = row[centring]
        if spread is not None:
            null = "" if np.isnan(spread["null"]) else f" (permutation null {degrees(spread['null'])})"
            texts.append(f"{degrees(spread['mean'])} {centring}{null}")
    return " and ".join(texts)


def _averaged(row: Mapping[str, Any], of: str) -> str:
    """Say what an angle is averaged over: recipes, or pairs of them, or else seeds; nothing if it is one angle."""
    spread = row["raw"] or row["centred"]
    if spread["n"] > 1:
        return f", on average over {spread['n']} {of}"
    return ", on average over seeds" if spread["n_runs"] > 1 else ""


LEVEL = 0.05  # of the test of a pair, on either side


def with_farther(pairs: pd.DataFrame, permutations: int) -> pd.DataFrame:
    """Add the p-value of the other side: that a matching at random is as far apart as a pair is, or farther.

    Parameters
    ----------
    pairs
        `angle_pairs.csv`, whose `p_value` is (1 + permutations that are as close) / (1 + permutations).
    permutations
        How many there were.

    Returns
    -------
    DataFrame
        The same, with `p_farther`, (1 + permutations that are less close) / (1 + permutations).
    """
    as_close = (pairs["p_value"] * (1 + permutations)).round() - 1
    return pairs.assign(p_farther=(1 + permutations - as_close) / (1 + permutations))


def _tested_pairs(
    pairs: pd.DataFrame | None, recipes: Sequence[Mapping[str, Any]], dataset: str
) -> dict[str, dict[str, int]]:
    """Count the pairs of runs of different trained recipes that are nearer, and farther, than chance; by centring."""
    if pairs is None or not {"p_value", "p_farther"} <= {*pairs}:
        return {}
    trained = _trained(recipes)
    ends = pairs[pairs["stage"] == "last"] if "stage" in pairs else pairs
    ends = ends[(ends["dataset"] == dataset) & ends["recipe_a"].isin(trained) & ends["recipe_b"].isin(trained)]
    ends = ends[ends["recipe_a"] != ends["recipe_b"]].dropna(subset=["p_value"])
    if (ends["p_value"] + ends["p_farther"] - 1 > LEVEL - 1e-9).any():
        return {}  # the least p-value that there may be: with so few permutations no pair could pass
    return {
        str(centring): {
            "nearer": int((some["p_value"] < LEVEL).sum()),
            "farther": int((some["p_farther"] < LEVEL).sum()),
            "all": len(some),
        }
        for centring, some in ends.groupby("centring")
    }


TESTED = "one-sided p < .05 on either side"


def _counted(counts: Mapping[str, int]) -> str:
    """Say how many of some pairs are nearer than chance, and how many farther."""
    return f"{counts['nearer']} of {counts['all']} nearer than chance and {counts['farther']} farther"


def _test_sentences(pairs: pd.DataFrame | None, recipes: Sequence[Mapping[str, Any]], dataset: str) -> list[str]:
    """Say how many pairs of runs of different trained recipes are nearer, and farther, than the permutation null."""
    counts = _tested_pairs(pairs, recipes, dataset)
    texts = [f"{_counted(counts[c])} {c}" for c in CENTRINGS if c in counts]
    if not texts:
        return []
    return [
        f"Pairs of runs of different trained recipes against the permutation null ({TESTED}): {', '.join(texts)}. "
        "Pairs share networks, so that they are not independent."
    ]


def answers(
    tables: Mapping[str, pd.DataFrame], runs: pd.DataFrame, recipes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Say in a few sentences what was found, a list for each data set.

    Parameters
    ----------
    tables
        The tables behind the figures, by the figure's name, and `angle_pairs` (see `with_farther`); any may be missing.
    runs
        `runs.csv`.
    recipes
        The study's recipes in order.

    Returns
    -------
    list of dict
        dataset, sentences (list of str) and angles (see `angle_summary`).
    """
    found = []
    for dataset in datasets_of(recipes, [recipe["dataset"] for recipe in recipes]):
        angles = angle_summary(tables.get("angle_dynamics"), tables.get("angle_matrix"), recipes, dataset)
        rows = {row["key"]: row for row in angles}
        sentences = []
        if "start" in rows:
            averaged = _averaged(rows["start"], "recipes")
            sentences.append(
                f"At the first kept step the P-vector is {_both(rows['start'])} from where the run ends{averaged}."
            )
        if "recipes" in rows:
            against = f"; two untrained networks are at {_both(rows['untrained'])}" if "untrained" in rows else ""
            averaged = _averaged(rows["recipes"], "pairs of recipes")
            sentences.append(f"Two different trained recipes end {_both(rows['recipes'])} apart{averaged}{against}.")
            sentences += _test_sentences(tables.get("angle_pairs"), recipes, dataset)
        elif "seeds" in rows:
            averaged = _averaged(rows["seeds"], "recipes")
            sentences.append(f"Two seeds of a recipe end {_both(rows['seeds'])} apart{averaged}.")
        if "layers" in tables:
            sentences += _layer_sentences(tables["layers"], recipes, dataset)
        sentences += _run_sentences(runs, recipes, dataset)
        found.append({"dataset": dataset, "sentences": sentences, "angles": angles})
    return found


def _layer_sentences(layers: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str) -> list[str]:
    """Say how C changes over the fitted layers, in the recipes where it does so most and least, and where it rises."""
    rows = layers[(layers["dataset"] == dataset) & (layers["measure"] == "compression")].dropna(subset=["value"])
    start = rows.loc[rows["recipe"] == "data", "value"]
    still = rows[rows["recipe"].isin(_untrained(recipes))].dropna(subset=["slope"]).drop_duplicates("recipe")
    rows = rows[rows["recipe"].isin(_trained(recipes)) & (rows["depth"] >= 1)]
    fits = rows.dropna(subset=["slope"]).drop_duplicates("recipe").sort_values("slope")
    sentences = []

    def text(row: Any) -> str:
        change = np.exp(abs(row.slope))
        verb = "falls" if row.slope < 0 else "rises"
        fitted = rows.loc[(rows["recipe"] == row.recipe) & rows["reliable"], "depth"]
        quality = "" if np.isnan(row.r_squared) else f", R² {np.floor(row.r_squared * 1e3) / 1e3:.3f}"
        return f"{verb} {change:.3g}-fold a layer over layers {fitted.min()} to {fitted.max()} ({row.recipe}{quality})"

    ordered = list(fits.itertuples())
    if len(ordered) == 1:
        sentences.append(f"By its fitted line, compression C {text(ordered[0])}.")
    elif ordered:
        sentences.append(
            f"By the fitted lines of {len(ordered)} recipes, compression C {text(ordered[0])} in the steepest and "
            f"{text(ordered[-1])} in the flattest."
        )
    if ordered and len(still):
        sentences.append(f"In networks that were not trained, C {' and '.join(_folds(still, None))}.")
    first = rows[rows["depth"] == 1]
    if len(start) and len(first):
        ratio = (first.set_index("recipe")["value"] / float(start.iloc[0])).loc[lambda change: change > 1]
        listed = ", ".join(f"{change:.3g}-fold in {name}" for name, change in ratio.items())
        if listed:
            sentences.append(f"From the input to layer 1, C rises in {len(ratio)} of {len(first)} recipes ({listed}).")
    return sentences


def _run_sentences(runs: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str) -> list[str]:
    """Say how well the best and the worst recipe learned their tasks."""
    sentences = []
    rows = runs[(runs["dataset"] == dataset) & runs["recipe"].isin(_trained(recipes))]
    several = _several_seeds(rows)
    means = rows.groupby("recipe")[["test_accuracy", "train_accuracy", "relative_loss"]].mean()
    for column, kind in (("test_accuracy", "Test"), ("train_accuracy", "Training")):
        known = means[column].dropna().sort_values(kind="stable")
        if len(known) > 1:
            low, high = f"{known.iloc[0]:.1%} ({known.index[0]})", f"{known.iloc[-1]:.1%} ({known.index[-1]})"
            sentences.append(f"{kind} accuracy is between {low} and {high}{', means over seeds' if several else ''}.")
        elif len(known) == 1:
            averaged = ", mean over seeds" if several else ""
            sentences.append(f"{kind} accuracy is {known.iloc[0]:.1%} ({known.index[0]}){averaged}.")
        if len(known):
            break
    ratio = means["relative_loss"].dropna().sort_values(kind="stable")
    if len(ratio):
        listed = ", ".join(f"{value:.3f} ({name})" for name, value in ratio.items())
        sentences.append(f"Reconstruction loss over that of the mean training image: {listed}.")
    failed = runs[(runs["dataset"] == dataset) & is_false(runs["converged"])]
    if len(failed):
        names = ", ".join(dict.fromkeys(failed["recipe"]))
        sentences.append(f"{len(failed)} run(s) did not reach the loss at which they were to stop: {names}.")
    return sentences


# --- the answer -------------------------------------------------------------------------------------------------------

LINES = 3  # of the answer
CARRYING = 3  # figures that are shown at once


def answer_lines(
    tables: Mapping[str, pd.DataFrame],
    runs: pd.DataFrame,
    claims: pd.DataFrame | None,
    recipes: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
    """Say in three lines what was found: of the claims, of the angles with and without the mean, of the layers.

    Every data set counts; the full sentences, by data set, are those of `answers`. Where a study has no such numbers,
    the lines say what it has: how the angles change over training, and how well the recipes have learned.

    Parameters
    ----------
    tables, runs, recipes
        As `answers` takes them.
    claims
        `claims.csv`, if the study tests any.

    Returns
    -------
    list of dict
        lead (what the line is about), text and figure (the name of the one that shows it, or nothing); three at most.
    """
    datasets = datasets_of(recipes, [recipe["dataset"] for recipe in recipes])
    rows = {
        dataset: {
            row["key"]: row
            for row in angle_summary(tables.get("angle_dynamics"), tables.get("angle_matrix"), recipes, dataset)
        }
        for dataset in datasets
    }

    def said(texts: Mapping[str, str]) -> str:
        """Join what is said of each data set, named where the study has several."""
        several = len(datasets) > 1
        joined = "; ".join(f"on {dataset}, {text}" if several else text for dataset, text in texts.items())
        return joined[:1].upper() + joined[1:] + "." if joined else ""

    lines = []
    if claims is not None and len(claims):
        by_ledger = claims.groupby("ledger", sort=False)
        counted = [_verdict_counts(part, headings_of(str(name)).title) for name, part in by_ledger]
        lines.append({"lead": "Claims", "text": " ".join(counted), "figure": ""})
    texts = {name: text for name in datasets if (text := _compression(tables.get("layers"), runs, recipes, name))}
    layered = {"lead": "Layer by layer", "text": said(texts), "figure": "layers"}
    texts = {name: f"at the first kept step {_both(row)}" for name in datasets if (row := rows[name].get("start"))}
    started = {"lead": "From the P-vector to its own end", "text": said(texts), "figure": "angle_dynamics"}
    texts = {
        name: sentences[0].rstrip(".")[:1].lower() + sentences[0].rstrip(".")[1:]
        for name in datasets
        if (sentences := _run_sentences(runs, recipes, name))
    }
    learned = {"lead": "Training", "text": said(texts), "figure": "training"}
    if lines and layered["text"]:
        # one line of angles, to leave room for the layers
        tested = {name: _tested_pairs(tables.get("angle_pairs"), recipes, name) for name in datasets}
        texts = {name: text for name in datasets if (text := _closeness_both(rows[name], tested[name]))}
        lines.append({"lead": "With and without the mean", "text": said(texts), "figure": "angle_matrix"})
    else:
        leads = {"raw": "With the mean (raw)", "centred": "Without the mean (centred)"}
        for c, lead in leads.items():
            counts = {name: _tested_pairs(tables.get("angle_pairs"), recipes, name).get(c) for name in datasets}
            texts = {name: text for name in datasets if (text := _closeness(rows[name], c, counts[name]))}
            lines.append({"lead": lead, "text": said(texts), "figure": "angle_matrix"})
    lines = [line for line in lines if line["text"]]
    lines += [line for line in (layered, started, learned) if line["text"]]
    return lines[:LINES]


def _verdict_counts(claims: pd.DataFrame, title: str) -> str:
    """Count the verdicts of a ledger in a sentence."""
    lines = claims.drop_duplicates(["claim", "dataset"])
    tested = lines[lines["verdict"] != "not run"]
    if tested.empty:
        return f"{title}: none of {len(lines)} claims could be tested on what this study has."
    counts = {verdict: int((tested["verdict"] == verdict).sum()) for verdict in VERDICTS}
    return f"{title}: of {len(tested)} tests, {', '.join(f'{n} {verdict}' for verdict, n in counts.items() if n)}."


def _compared(rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Choose which networks the answer compares: those of different recipes, else those of different seeds."""
    if "recipes" in rows:
        return "recipes", "two different trained recipes"
    return "seeds", "two seeds of a trained recipe"


def _closeness_both(rows: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Mapping[str, int]]) -> str:
    """Say how far trained networks end apart, raw and centred, each beside its null, and how many pairs differ."""
    key, what = _compared(rows)
    if key not in rows:
        return ""
    texts = [f"{_counted(counts[c])} {c}" for c in CENTRINGS if c in counts and key == "recipes"]
    tested = f"; of pairs of runs {', '.join(texts)} ({TESTED})" if texts else ""
    return f"{what} end {_both(rows[key])} apart{tested}"


def _closeness(
    rows: Mapping[str, Mapping[str, Any]],
    centring: str,
    counts: Mapping[str, int] | None,
) -> str:
    """Say how far trained networks end apart in one centring, beside the null and networks that were not trained."""
    key, what = _compared(rows)
    spread = rows[key][centring] if key in rows else None
    if spread is None:
        return ""
    null = "" if np.isnan(spread["null"]) else f" (permutation null {degrees(spread['null'])})"
    text = f"{what} end {degrees(spread['mean'])} apart{null}"
    still = rows["untrained"][centring] if "untrained" in rows else None
    if still is not None and key == "recipes":
        text += f", two untrained networks {degrees(still['mean'])}"
    if key == "recipes" and counts:
        text += f"; of pairs of runs {_counted(counts)} ({TESTED})"
    return text


def _compression(
    layers: pd.DataFrame | None, runs: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str
) -> str:
    """Say by how much C falls or rises from a layer to the next, over the recipes with a fitted line.

    Beside it stand how well those recipes learned, and by how much C changes in networks that were not trained.
    """
    if layers is None:
        return ""
    rows = layers[(layers["dataset"] == dataset) & (layers["measure"] == "compression")]
    lines = rows.dropna(subset=["slope"]).drop_duplicates("recipe")
    trained = _folds(lines[lines["recipe"].isin(_trained(recipes))], runs)
    if not trained:
        return ""
    still = _folds(lines[lines["recipe"].isin(_untrained(recipes))], None)
    control = f", and without training it {' and '.join(still)}" if still else ""
    return f"compression C {' and '.join(trained)}{control}"


def _folds(fits: pd.DataFrame, runs: pd.DataFrame | None) -> list[str]:
    """Say by how much C falls, and rises, in some recipes with a fitted line; and how well they learned, by `runs`."""
    parts = []
    for verb, some in (("falls", fits[fits["slope"] < 0]), ("rises", fits[fits["slope"] >= 0])):
        if len(some):
            folds = [f"{change:.3g}" for change in sorted(np.exp(some["slope"].abs()))]
            between = folds[0] if folds[0] == folds[-1] else f"{folds[0]}- to {folds[-1]}"
            of = f"{len(some)} recipes" if len(some) > 1 else some["recipe"].iloc[0]
            learned = "" if runs is None else _accuracy_of(runs, list(some["recipe"]))
            parts.append(f"{verb} {between}-fold a layer in {of}{learned}")
    return parts


def _accuracy_of(runs: pd.DataFrame, recipes: Sequence[str]) -> str:
    """Write, in brackets, the accuracy of some recipes, means over seeds: on test data where there are such."""
    means = runs[runs["recipe"].isin(recipes)].groupby("recipe")[["test_accuracy", "train_accuracy"]].mean()
    for column, kind in (("test_accuracy", "test"), ("train_accuracy", "training")):
        known = means[column].dropna()
        if len(known):
            low, high = f"{known.min():.1%}", f"{known.max():.1%}"
            of = f" of {len(known)} of them" if len(known) < len(recipes) else ""
            return f" ({kind} accuracy{of} {low if low == high else f'{low} to {high}'})"
    return ""


def carrying(figures: Sequence[FigureEntry], lines: Sequence[Mapping[str, str]]) -> list[FigureEntry]:
    """Choose the figures that are shown at once: those that the answer rests on, then the first of the study."""
    cited = {line["figure"] for line in lines}
    ordered = [figure for figure in figures if figure.name in cited]
    ordered += [figure for figure in figures if figure.name not in cited]
    chosen = {figure.name for figure in ordered[:CARRYING]}
    return [figure for figure in figures if figure.name in chosen]


def basis(spec: Mapping[str, Any], runs: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Say over how many seeds and samples the answer is.

    Parameters
    ----------
    spec
        recipes; samples (of the sample set, by data set) and features (see `feature_rows`), where they are known.
    runs, tables
        As `answers` takes them.

    Returns
    -------
    dict
        sizes (seeds and samples, a text a data set) and pairs (whether anything is counted over pairs of networks).
    """
    sizes, pairs = [], False
    for dataset in datasets_of(spec["recipes"], [recipe["dataset"] for recipe in spec["recipes"]]):
        own = runs[(runs["dataset"] == dataset) & (runs["population"].fillna("") == "")]
        seeds = [int(n) for n in own.groupby("recipe")["seed"].nunique()]
        seeds += [len(made["seeds"]) for made in spec.get("features", []) if made["dataset"] == dataset]
        parts = []
        if seeds:
            low, high = min(seeds), max(seeds)
            parts.append(f"{low if low == high else f'{low} to {high}'} seed{'' if high == 1 else 's'}")
        n = spec.get("samples", {}).get(dataset)
        parts.append(f"samples of {dataset}" if n is None else f"{n:,} samples of {dataset}".replace(",", "\u202f"))
        sizes.append(", ".join(parts))
        angles = angle_summary(tables.get("angle_dynamics"), tables.get("angle_matrix"), spec["recipes"], dataset)
        compared = [row["raw"] or row["centred"] for row in angles if row["key"] in ("seeds", "recipes")]
        pairs |= any(spread["n_runs"] > 1 for spread in compared)
    return {"sizes": sizes, "pairs": pairs}


# --- the run table ----------------------------------------------------------------------------------------------------


def _mean_sd(values: pd.Series, scale: float, form: str) -> tuple[str, str]:
    """Write a mean, and its standard deviation over seeds where there are several; a dash if nothing is known."""
    known = values.dropna() * scale
    if known.empty:
        return "–", ""
    sd_form = form if form.endswith("f") else ".2g"
    return format(known.mean(), form), f"± {format(known.std(ddof=1), sd_form)}" if len(known) > 1 else ""


RUN_COLUMNS = (
    # heading, column, factor, format
    ("Training loss", "train_loss", 1.0, ".3g"),
    ("Test loss", "test_loss", 1.0, ".3g"),
    ("Training accuracy (%)", "train_accuracy", 100.0, ".1f"),
    ("Test accuracy (%)", "test_accuracy", 100.0, ".1f"),
    ("Relative loss", "relative_loss", 1.0, ".3f"),
    ("Linear probe at first (%)", "first_probe", 100.0, ".1f"),
    ("Linear probe at last (%)", "last_probe", 100.0, ".1f"),
)


def with_probes(runs: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Add to each run the test accuracy of the linear probe of its first and of its last step, where there is one."""
    ordered = probes.sort_values("step")
    ends = ordered.groupby(["recipe", "seed"])["test_accuracy"].agg(first_probe="first", last_probe="last")
    return runs.join(ends, on=["recipe", "seed"])


def run_rows(runs: pd.DataFrame) -> dict[str, Any]:
    """Prepare the run table: one row a recipe, and one a run beneath.

    Returns
    -------
    dict
        headings (list of str), recipes (rows of pairs: text, and what stands beneath it), seeds (rows of text) and
        populations (a dict a sweep). Columns that no run has are left out.
    """
    shown = [column for column in RUN_COLUMNS if column[1] in runs and runs[column[1]].notna().any()]
    stops = runs["converged"].notna().any()
    headings = [heading for heading, *_ in shown] + (["Converged"] if stops else [])
    recipes, seeds = [], []
    own = runs[runs["population"].fillna("") == ""]
    for name, group in own.groupby("recipe", sort=False):
        facts = [str(group[column].iloc[0]) for column in ("dataset", "task", "model")]
        n_parameters = f"{int(group['n_parameters'].iloc[0]):,}".replace(",", "\u202f")
        low, high = group["epochs"].min(), group["epochs"].max()
        epochs = f"{low:g}" if low == high else f"{low:g}–{high:g}"
        values = [_mean_sd(group[column], factor, form) for _, column, factor, form in shown]
        known = group["converged"].notna()
        reached = int((known & ~is_false(group["converged"])).sum())
        values += [(f"{reached} of {int(known.sum())}" if known.any() else "–", "")] if stops else []
        texts = [str(name), *facts, str(len(group)), n_parameters, epochs]
        recipes.append([*((text, "") for text in texts), *values])
        for _, run in group.iterrows():
            one = [
                "–" if pd.isna(run[column]) else format(run[column] * factor, form) for _, column, factor, form in shown
            ]
            if stops:
                converged = run["converged"]
                one.append("–" if pd.isna(converged) else "no" if str(converged) == "False" else "yes")
            seeds.append([str(name), str(run["seed"]), str(run["steps"]), f"{run['epochs']:g}", *one])
    return {"headings": headings, "recipes": recipes, "seeds": seeds, "populations": _populations(runs)}


def kept_steps(tables: Sequence[pd.DataFrame | None], names: Collection[str]) -> dict[str, list[int]]:
    """Find which steps some recipes have, in tables with the columns recipe and step; nothing of those in none."""
    found: dict[str, set[int]] = {}
    for table in tables:
        if table is not None:
            for name, steps in table[table["recipe"].isin(names)].groupby("recipe")["step"]:
                found.setdefault(str(name), set()).update(map(int, steps))
    return {name: sorted(steps) for name, steps in found.items()}


def feature_rows(features: Sequence[Mapping[str, Any]], steps: Mapping[str, Sequence[int]]) -> list[dict[str, str]]:
    """Prepare what is known of features that were made elsewhere.

    Parameters
    ----------
    features
        name, dataset, layers, seeds, control (whether they serve as one) and source, as the study writes it.
    steps
        See `kept_steps`.

    Returns
    -------
    list of dict
        The same and `steps`, in words.
    """
    rows = []
    for made in features:
        there = steps.get(made["name"], [])
        several = f"{len(there)}, from {there[0]} to {there[-1]}" if len(there) > FEW else ", ".join(map(str, there))
        rows.append(
            {
                "name": made["name"],
                "dataset": made["dataset"],
                "layers": ", ".join(made["layers"]),
                "seeds": ", ".join(map(str, made["seeds"])),
                "steps": several or "–",
                "counts": "control" if made["control"] else "trained",
                "source": made["source"],
            }
        )
    return rows


FEW = 6  # steps that are listed


def _populations(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Sum up the members of each sweep: how many there are, and how far apart their accuracies."""
    rows = []
    members = runs[runs["population"].fillna("") != ""]
    for name, group in members.groupby("population", sort=False):
        accuracy = group.groupby("recipe")["test_accuracy"].mean()
        rows.append(
            {
                "name": str(name),
                "dataset": str(group["dataset"].iloc[0]),
                "model": str(group["model"].iloc[0]),
                "n_settings": str(group["recipe"].nunique()),
                "n_seeds": str(group["seed"].nunique()),
                "accuracy": f"{accuracy.min():.1%} to {accuracy.max():.1%}" if accuracy.notna().any() else "–",
            }
        )
    return rows


# --- the ledger -------------------------------------------------------------------------------------------------------

VERDICTS = ("reproduced", "explained by the mean", "not reproduced", "not determined", "not run")
FAILED = ("not reproduced", "explained by the mean")
NAMED = 8  # failed claims that are named at the top
# Of the P-vectors' claims those that are to be read first.
FIRST = {
    "Q": "To settle first: does one convention, raw or centred, give both the start and the end that are published?"
}
OPEN_ROWS = ("Q",)  # shown without a click: what has to be settled first


def number(value: Any) -> str:
    """Write a measured number for a reader, in three digits or so."""
    if value is None or pd.isna(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10^{int(exponent)}"


def _line(line: Mapping[str, Any]) -> dict[str, str]:
    """Write what one line of the ledger measured: the number, its interval, its null, and whether it passes."""
    low, high = line["low"], line["high"]
    spread = "" if pd.isna(low) or pd.isna(high) or low == high else f"{number(low)} to {number(high)}"
    passes = line["passes"]
    return {
        "measured": number(line["measured"]),
        "interval": spread,
        "null": "" if pd.isna(line["null"]) else number(line["null"]),
        "passes": "" if pd.isna(passes) else "no" if str(passes).lower() == "false" else "yes",
    }


def ledgers(claims: pd.DataFrame) -> list[dict[str, Any]]:
    """Prepare the ledgers of a study, in the order of the table.

    Parameters
    ----------
    claims
        `claims.csv`: a line a claim, data set and centring, of one ledger or several.

    Returns
    -------
    list of dict
        name, title, tags (what those of sources mean), centred (whether any claim is about raw or centred vectors),
        predicted (whether theory gives any number), sentences (see `verdict_sentences`) and groups (see
        `ledger_rows`).
    """
    found = []
    for name, lines in claims.groupby("ledger", sort=False):
        headings = headings_of(str(name))
        found.append(
            {
                "name": name,
                "title": headings.title,
                "tags": headings.tags,
                "centred": bool(lines["centring"].isin(CENTRINGS).any()),
                "predicted": bool(lines["predicted"].notna().any()),
                "sentences": verdict_sentences(lines),
                "groups": ledger_rows(lines, FIRST | dict(headings.rows)),
            }
        )
    return found


def verdict_sentences(claims: pd.DataFrame) -> list[str]:
    """Say how many claims of a ledger got which verdict, and name those that failed first.

    A claim counts once for each data set that it was tested on.
    """
    lines = claims.drop_duplicates(["claim", "dataset"])
    tested = lines[lines["verdict"] != "not run"]
    if tested.empty:
        return [f"None of its {len(lines)} claims could be tested on what this study has."]
    sentences = []
    several = tested["dataset"].nunique() > 1
    for verdict in FAILED:
        failed = tested[tested["verdict"] == verdict]
        if len(failed):
            named = [
                f"{line['title']} ({line['claim']}{', ' + line['dataset'] if several else ''})"
                for _, line in failed.head(NAMED).iterrows()
            ]
            more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
            sentences.append(f"{verdict.capitalize()}: {'; '.join(named)}{more}.")
    counts = {verdict: int((tested["verdict"] == verdict).sum()) for verdict in VERDICTS}
    listed = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    return [
        *sentences,
        f"Of {len(tested)} tests of claims: {listed}. {len(lines) - len(tested)} more could not be run.",
    ]


def ledger_rows(claims: pd.DataFrame, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Prepare one ledger: its rows in their order, with the claims of each.

    Parameters
    ----------
    claims
        The lines of one ledger.
    titles
        What its rows are about, in their order.

    Returns
    -------
    list of dict
        row, title, counts (by verdict, those that occur) and claims: dataset, title, source, published, predicted,
        threshold, verdict, convention, setting, evidence, and `raw`, `centred` or `other` (measured, interval, null,
        passes).
    """
    groups = []
    claims = claims.assign(row=claims["row"].mask(claims["claim"].str.startswith("question-"), "Q"))
    order = [row for row in titles if row in set(claims["row"])]
    for row in [*order, *(row for row in dict.fromkeys(claims["row"]) if row not in titles)]:
        entries = []
        for _, lines in claims[claims["row"] == row].groupby(["claim", "dataset"], sort=False, dropna=False):
            first = lines.iloc[0]
            entry: dict[str, Any] = {
                key: "" if pd.isna(first[key]) else str(first[key])
                for key in (
                    *("claim", "dataset", "title", "source", "published", "threshold"),
                    *("verdict", "convention", "setting"),
                )
            }
            entry["predicted"] = number(first["predicted"])
            for _, line in lines.iterrows():
                centring = line["centring"] if line["centring"] in CENTRINGS else "other"
                entry[centring] = _line(line)
            evidence = [text for text in lines["evidence"] if isinstance(text, str) and text]
            entry["evidence"] = list(dict.fromkeys(evidence))
            entries.append(entry)
        counts = {verdict: sum(entry["verdict"] == verdict for entry in entries) for verdict in VERDICTS}
        groups.append(
            {
                "row": row,
                "title": titles.get(row, ""),
                "counts": {verdict: n for verdict, n in counts.items() if n},
                "claims": entries,
            }
        )
    return groups


# --- the whole --------------------------------------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    """Write a time for a reader."""
    if pd.isna(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def write_html(
    spec: Mapping[str, Any],
    figures: Sequence[FigureEntry],
    tables: Mapping[str, pd.DataFrame],
    runs: pd.DataFrame,
    claims: pd.DataFrame | None,
    study_yaml: str,
    times: Sequence[Mapping[str, Any]],
    environment: Mapping[str, str],
    results: str,
    explorer: Mapping[str, Any] | None = None,
    steps: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Fill in the template.

    Parameters
    ----------
    spec
        study, title, question, recipes (name, dataset, task) and command: how Snakemake is called for this study.
        Where there are any: samples (see `basis`), features (see `feature_rows`), own_code (functions and scripts
        that the study names) and is_downloaded (whether it has published data).
    figures, tables
        The figures in their order, and the tables behind them by name; see `answers`.
    runs
        `runs.csv`, perhaps `with_probes`.
    claims
        `claims.csv`, if the study tests any.
    study_yaml
        The study as it was understood.
    times, environment
        See `timings` and `versions`.
    results
        Path of the study's results, as the user gives it to Snakemake.
    explorer
        What the interactive views show, from `explorer.views`; None where there is nothing for them.
    steps
        Those of features that were made elsewhere: see `kept_steps`.

    Returns
    -------
    str
        A whole HTML document that refers to nothing outside itself but by links to files beside it.
    """
    environment_ = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment_.filters["degrees"] = degrees
    environment_.filters["duration"] = _duration
    template = environment_.from_string(TEMPLATE.read_text(encoding="utf-8"))
    lines = answer_lines(tables, runs, claims, spec["recipes"])
    first = carrying(figures, lines)
    further = [figure for figure in figures if figure not in first]
    script = SCRIPT.read_text(encoding="utf-8")
    return template.render(
        style=Markup(STYLE.read_text(encoding="utf-8")),
        # The page may run this one script, known by its digest, and no other.
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        explorer=explorer,
        explorer_json=embedded_json(explorer) if explorer else "",
        lines=lines,
        carrying=first,
        further=further,
        numbers={figure.name: i for i, figure in enumerate([*first, *further], start=1)},
        spec=spec,
        command=spec["command"],
        figures=figures,
        answers=answers(tables, runs, spec["recipes"]),
        runs=run_rows(runs),
        basis=basis(spec, runs, tables),
        features=feature_rows(spec.get("features", []), steps or {}),
        own_code=spec.get("own_code", []),
        is_downloaded=spec.get("is_downloaded", False),
        several_seeds=_several_seeds(runs),
        n_runs=len(runs),
        n_recipes=runs["recipe"].nunique(),
        ledgers=[] if claims is None else ledgers(claims),
        verdicts=VERDICTS,
        open_rows=OPEN_ROWS,
        claims_csv=f"{results}/tables/claims.csv",
        study_yaml=study_yaml,
        timings=times,
        total_s=sum(row["total_s"] for row in times),
        versions=environment,
        results=results,
    )
