"""The report and the run table: self-contained, escaped, and its numbers those of the tables."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import Made, make

from featurespace import explorer
from featurespace.config import FIGURES
from featurespace.errors import FeaturespaceError
from featurespace.figures import angle_dynamics, angle_matrix, layers, training
from featurespace.report import (
    ALTERNATIVES,
    STYLE,
    FigureEntry,
    angle_summary,
    answer_lines,
    answers,
    basis,
    caption_html,
    carrying,
    feature_rows,
    image_uri,
    kept_steps,
    ledger_rows,
    ledgers,
    number,
    run_rows,
    timings,
    verdict_sentences,
    versions,
    with_farther,
    with_probes,
    write_html,
)
from featurespace.run_table import COLUMNS, tabulate_runs


@pytest.fixture(scope="module")
def made() -> Made:
    return make(n_seeds=2, epochs=4)


@pytest.fixture(scope="module")
def tables(made: Made) -> dict[str, pd.DataFrame]:
    return {
        "angle_dynamics": angle_dynamics.tidy(made.dynamics, made.spec),
        "angle_matrix": angle_matrix.tidy(made.pairs, made.spec),
        "angle_pairs": with_farther(made.pairs, 199),
        "layers": layers.tidy(made.layers, made.runs, made.spec),
        "training": training.tidy(made.history, made.spec),
    }


def html_of(made: Made, tables: dict[str, pd.DataFrame], claims: pd.DataFrame | None = None, **changes: Any) -> str:
    spec = {"study": "demo", "title": "A title", "question": "A question?", "command": "snakemake"}
    spec |= made.spec | changes
    figure = FigureEntry(
        name="training",
        image=image_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        alternative="curves",
        caption=caption_html("**What it shows.** More & more."),
        csv="results/demo/figures/training.csv",
        csv_link="figures/training.csv",
        png_link="figures/training.png",
        command="snakemake --force results/demo/figures/training.svg",
    )
    return write_html(spec, [figure], tables, made.runs, claims, "study: demo\n", [], versions(), "results/demo")


class _Page(HTMLParser):
    """Collects what a page loads, where it links to, and whether its elements close."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "src" or (tag == "link" and key == "href"):
                self.loads.append(value or "")
            elif key == "href":
                self.links.append(value or "")
            elif key == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_is_whole(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    text = html_of(made, tables)
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert all(load.startswith("data:") for load in page.loads)
    assert "script" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert len(set(page.ids)) == len(page.ids)
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= set(page.ids)
    assert not [link for link in page.links if re.match(r"[a-z]+:|/", link)]  # files beside it, nothing elsewhere


def test_only_the_pages_own_script_may_run(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    spec = {"study": "s", "title": "t", "question": "", "command": "c"} | made.spec
    views = explorer.views(made.spec["recipes"], made.dynamics, made.spectra, made.layers)
    text = write_html(spec, [], tables, made.runs, None, "", [], {}, "r", views)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    (data,) = re.findall(r'<script type="application/json" id="explorer-data">(.*?)</script>', text, re.DOTALL)
    assert "<" not in data
    page = _Page()
    page.feed(text)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "tables/angle_dynamics.csv" in page.links and "<pre>c --force r/report.html</pre>" in text


def test_every_figure_names_its_data_and_its_command(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    text = html_of(made, tables)
    assert "results/demo/figures/training.csv" in text
    assert "<pre>snakemake --force results/demo/figures/training.svg</pre>" in text
    assert "<strong>Figure 1. What it shows.</strong>" in text
    assert "<p>More &amp; more.</p>" in text


def test_what_a_study_says_is_escaped(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    text = html_of(made, tables, title="<img src=x>", question="a < b & {{ c }}")
    assert "<img src=x>" not in text
    assert "&lt;img src=x&gt;" in text
    assert "a &lt; b &amp; {{ c }}" in text


def test_the_page_survives_a_study_without_figures_or_with_one_run() -> None:
    one = make(recipes=[make().spec["recipes"][0]], n_seeds=1, epochs=0)
    page = _Page()
    page.feed(html_of(one, {}))
    assert page.open == []


def test_without_figures_there_is_nothing_about_them(made: Made) -> None:
    spec = {"study": "s", "title": "t", "question": "", "command": "c"} | made.spec
    text = write_html(spec, [], {}, made.runs, None, "", [], {}, "r")
    assert "#figures" not in text and 'id="figures"' not in text
    assert "Correlation</em>" not in text


def test_with_one_seed_nothing_is_a_mean_over_seeds() -> None:
    one = make(recipes=make().spec["recipes"][:1], n_seeds=1, epochs=4)
    tables = {
        "angle_dynamics": angle_dynamics.tidy(one.dynamics, one.spec),
        "angle_matrix": angle_matrix.tidy(one.pairs, one.spec),
    }
    text = html_of(one, tables)
    assert "At the first kept step the P-vector is" in text
    found = text[text.index('id="found"') : text.index('id="again"')]
    assert "over seeds" not in found
    assert "on average over" not in found


def test_a_narrow_window_shrinks_figures() -> None:
    narrow = re.search(r"@media \(max-width: 40rem\) \{(.*?)\n\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    assert narrow and ".plate img { min-width: 0; }" in narrow[1]


def test_captions_cannot_bring_in_html_or_files() -> None:
    with pytest.raises(FeaturespaceError, match="caption"):
        caption_html(".. include:: /etc/hostname\n")
    with pytest.raises(FeaturespaceError, match="caption"):
        caption_html(".. raw:: html\n\n   <script></script>\n")


# without the frame into which the captions of one's own figures are put
CAPTIONS = sorted(path for path in (Path(__file__).parents[2] / "report").glob("*.rst") if path.stem != "own_figure")


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_captions_are_sound_and_begin_with_a_title(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\{[{%#]", text)  # Snakemake fills captions in as templates
    html = caption_html(text)
    assert html.startswith("<p><strong>")
    assert "problematic" not in html


def test_every_figure_has_a_caption_and_says_in_words_what_it_shows() -> None:
    assert {*FIGURES, "runs", "claims"} <= {path.stem for path in CAPTIONS}
    assert set(FIGURES) <= set(ALTERNATIVES)


def entry(name: str, caption: str = "**Title.** More.") -> FigureEntry:
    return FigureEntry(name, image_uri(b"<svg/>"), name, caption_html(caption), f"{name}.csv", "c", "p", "make it")


def test_a_caption_is_cut_into_title_first_paragraph_and_the_rest() -> None:
    figure = entry("f", "**A <b> & *title*.** What it *shows*.\n\nHow to read it.\n\nMore.")
    assert figure.title == "A <b> & *title*"
    assert figure.lead == "<p>What it <em>shows</em>.</p>"
    assert figure.more == "<p>How to read it.</p>\n<p>More.</p>"
    bare = entry("own", "* a list\n* of two")
    assert (bare.title, bare.lead, bare.more) == ("own", bare.caption, "")
    assert entry("plain", "No title here.").title == "plain"


def test_the_answer_has_three_lines_with_the_numbers_of_the_tables(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    raw, centred, layered = answer_lines(tables, made.runs, None, made.spec["recipes"])
    assert [line["figure"] for line in (raw, centred, layered)] == ["angle_matrix", "angle_matrix", "layers"]
    rows = angle_summary(tables["angle_dynamics"], tables["angle_matrix"], made.spec["recipes"], "digits")
    spread = next(row for row in rows if row["key"] == "recipes")["centred"]
    angle = f"{spread['mean']:.0f}° apart (permutation null {spread['null']:.0f}°)"
    assert centred["text"].startswith(f"On digits, two different trained recipes end {angle}")
    assert "; of pairs of runs 24 of 24 nearer than chance and 0 farther (one-sided p < .05 on" in raw["text"]
    assert "on orthonormal, two seeds of a trained recipe end" in raw["text"]
    slopes = tables["layers"].dropna(subset=["slope"])
    slope = slopes.loc[(slopes["measure"] == "compression") & (slopes["recipe"] == "linear"), "slope"].iloc[0]
    accuracy = made.runs.loc[made.runs["recipe"] == "linear", "train_accuracy"].mean()
    assert layered["text"].endswith(
        f"on orthonormal, compression C falls {np.exp(-slope):.3g}-fold a layer in linear "
        f"(training accuracy {accuracy:.1%})."
    )
    # beside it what the layers do without any training
    still = slopes.loc[(slopes["measure"] == "compression") & (slopes["recipe"] == "untrained"), "slope"].iloc[0]
    assert f", and without training it falls {np.exp(-still):.3g}-fold a layer in untrained;" in layered["text"]
    tested = made.runs[made.runs["recipe"].isin(["mlp", "cnn"])].groupby("recipe")["test_accuracy"].mean()
    assert f"(test accuracy of 2 of them {tested.min():.1%} to {tested.max():.1%})" in layered["text"]


def test_the_answer_begins_with_the_claims_and_still_speaks_of_layers(
    made: Made, tables: dict[str, pd.DataFrame]
) -> None:
    lines = answer_lines(tables, made.runs, claims_table(), made.spec["recipes"])
    assert [line["lead"] for line in lines] == ["Claims", "With and without the mean", "Layer by layer"]
    assert "° raw (permutation null" in lines[1]["text"] and "° centred (permutation null" in lines[1]["text"]
    assert lines[0]["text"] == "The P-vectors paper: of 1 tests, 1 explained by the mean."
    page = html_of(made, tables, claims_table())
    assert "The answer in three lines" in page and '(<a href="#claims">the ledger</a>)' in page


def test_a_study_without_angles_or_layers_answers_with_what_it_has(made: Made) -> None:
    (line,) = answer_lines({}, made.runs, None, made.spec["recipes"])
    assert line["lead"] == "Training" and "accuracy" in line["text"]
    assert "The answer in one line" in html_of(made, {})
    still = made.runs.assign(train_accuracy=np.nan, test_accuracy=np.nan, relative_loss=np.nan, converged=np.nan)
    assert answer_lines({}, still, None, made.spec["recipes"]) == []


def test_figures_that_the_answer_rests_on_are_shown_at_once_in_the_order_of_the_study() -> None:
    figures = [entry(name) for name in ("training", "spectra", "own-one", "layers", "angle_matrix")]
    lines = [{"figure": "layers"}, {"figure": "angle_matrix"}, {"figure": ""}]
    assert [figure.name for figure in carrying(figures, lines)] == ["training", "layers", "angle_matrix"]
    assert carrying(figures[:2], []) == figures[:2]


# --- findings ---------------------------------------------------------------------------------------------------------


def test_angles_are_summed_up_as_in_the_tables(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    matrix = tables["angle_matrix"]
    rows = {row["key"]: row for row in angle_summary(tables["angle_dynamics"], matrix, made.spec["recipes"], "digits")}
    assert list(rows) == ["start", "seeds", "recipes", "data", "shuffled", "untrained"]
    trained = ["mlp", "cnn", "autoencoder", "denoising-autoencoder"]
    pairs = matrix[
        (matrix["dataset"] == "digits")
        & (matrix["centring"] == "centred")
        & matrix["recipe_a"].isin(trained)
        & matrix["recipe_b"].isin(trained)
        & (matrix["recipe_a"] != matrix["recipe_b"])
    ]
    assert len(pairs) == 6
    assert rows["recipes"]["centred"]["mean"] == pytest.approx(pairs["angle_deg"].mean())
    assert rows["recipes"]["centred"]["null"] == pytest.approx(pairs["null_mean_deg"].mean())
    assert rows["start"]["correlation"] is None
    raw = pairs.assign(centring="raw")[["recipe_a", "recipe_b", "centring", "dataset"]].merge(matrix)
    correlation = rows["recipes"]["correlation"]
    assert correlation["size"] == pytest.approx(raw["correlation_size"].mean())
    assert (correlation["low"], correlation["high"]) == (raw["correlation_low"].min(), raw["correlation_high"].max())


def test_answers_say_the_numbers_of_the_tables(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    digits, orthonormal = answers(tables, made.runs, made.spec["recipes"])
    assert digits["dataset"] == "digits"
    accuracy = made.runs.groupby("recipe")["test_accuracy"].mean()
    best = max(("mlp", "cnn"), key=lambda name: accuracy[name])
    assert any(f"{accuracy[best]:.1%} ({best})" in sentence for sentence in digits["sentences"])
    assert any(
        "compression C falls" in sentence and "over layers 1 to 5 (linear" in sentence
        for sentence in orthonormal["sentences"]
    )
    assert any(sentence.startswith("By the fitted lines of 4 recipes") for sentence in digits["sentences"])
    assert any("on average over 6 pairs of recipes" in sentence for sentence in digits["sentences"])
    tested = ": 24 of 24 nearer than chance and 0 farther raw, 24 of 24 nearer than chance and 0 farther centred. "
    assert any(tested in sentence and "not independent" in sentence for sentence in digits["sentences"])
    assert any(sentence.startswith("In networks that were not trained, C falls") for sentence in digits["sentences"])
    assert not any("shuffled" in sentence for sentence in digits["sentences"])


def test_the_other_side_of_the_test_is_as_strict_as_its_own() -> None:
    n = 199
    tested = with_farther(pd.DataFrame({"p_value": [(1 + k) / (1 + n) for k in range(n + 1)]}), n)
    # among all ranks that chance may give, as many are nearer as are farther
    np.testing.assert_array_equal(tested["p_farther"], tested["p_value"][::-1])
    assert (tested["p_value"] < 0.05).sum() == (tested["p_farther"] < 0.05).sum() == 9
    few = with_farther(pd.DataFrame({"p_value": [0.1, 1.0, np.nan]}), 9)
    assert few["p_farther"].tolist()[:2] == [1.0, 0.1] and np.isnan(few["p_farther"].iloc[2])


def test_pairs_that_are_farther_than_chance_are_counted_beside_the_nearer(
    made: Made, tables: dict[str, pd.DataFrame]
) -> None:
    pairs = made.pairs.copy()
    both = pairs["recipe_a"].isin(["mlp"]) & pairs["recipe_b"].isin(["cnn"]) & (pairs["centring"] == "raw")
    pairs.loc[both, "p_value"] = [1.0, 0.995, 0.5, 0.955]  # the last one is just short of it
    first_steps = pairs.assign(stage="first", p_value=1.0)
    other = tables | {"angle_pairs": with_farther(pd.concat([pairs.assign(stage="last"), first_steps]), 199)}
    raw, centred, _ = answer_lines(other, made.runs, None, made.spec["recipes"])
    assert "20 of 24 nearer than chance and 2 farther" in raw["text"]
    assert "24 of 24 nearer than chance and 0 farther" in centred["text"]
    digits, _ = answers(other, made.runs, made.spec["recipes"])
    assert any("20 of 24 nearer than chance and 2 farther raw" in sentence for sentence in digits["sentences"])
    ledger = answer_lines(other, made.runs, claims_table(), made.spec["recipes"])
    assert "20 of 24 nearer than chance and 2 farther raw, 24 of 24" in ledger[1]["text"]
    # with 19 permutations the least p-value is 0.05, and nothing could be below
    few = tables | {"angle_pairs": with_farther(made.pairs.assign(p_value=0.05), 19)}
    assert "nearer than chance" not in html_of(made, few)
    assert "24 of 24 nearer" in html_of(
        made, tables | {"angle_pairs": with_farther(made.pairs.assign(p_value=1 / 21), 20)}
    )
    without = {name: table for name, table in tables.items() if name != "angle_pairs"}
    assert "nearer than chance" not in html_of(made, without)


def test_the_answer_says_over_how_many_seeds_and_samples_it_is(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    spec = made.spec | {"samples": {"digits": 1270, "orthonormal": 300}}
    found = basis(spec, made.runs, tables)
    assert found == {
        "sizes": ["2 seeds, 1\u202f270 samples of digits", "2 seeds, 300 samples of orthonormal"],
        "pairs": True,
    }
    page = html_of(made, tables, samples=spec["samples"])
    lines = page[page.index('<ol class="answer">') : page.index("What was found in full")]
    assert "Over 2 seeds, 1\u202f270 samples of digits; 2 seeds, 300 samples of orthonormal." in lines
    assert "Pairs share networks, so that they are not independent" in lines
    fewer = made.runs[(made.runs["recipe"] != "mlp") | (made.runs["seed"] == 0)]
    assert basis(spec, fewer, {}) == {"sizes": ["1 to " + found["sizes"][0], found["sizes"][1]], "pairs": False}


MADE_ELSEWHERE = [
    {"name": "elsewhere", "dataset": "digits", "layers": ["a", "b"], "seeds": [3, 5, 9], "control": False}
    | {"source": "../<far>/features.zarr"},
    {"name": "pca", "dataset": "digits", "layers": ["pca"], "seeds": [0], "control": True, "source": "pca.npz"},
]


def test_features_made_elsewhere_are_part_of_where_numbers_come_from(
    made: Made, tables: dict[str, pd.DataFrame]
) -> None:
    steps = pd.DataFrame({"recipe": ["elsewhere"] * 3 + ["mlp"], "step": [4, 0, 4, 7]})
    more = pd.DataFrame({"recipe": "pca", "step": np.arange(9) * 10})
    found = kept_steps([steps, None, more], ["elsewhere", "pca"])
    assert found == {"elsewhere": [0, 4], "pca": [*range(0, 90, 10)]}
    rows = feature_rows(MADE_ELSEWHERE, found)
    assert rows[0] == {
        "name": "elsewhere",
        "dataset": "digits",
        "layers": "a, b",
        "seeds": "3, 5, 9",
        "steps": "0, 4",
        "counts": "trained",
        "source": "../<far>/features.zarr",
    }
    assert (rows[1]["steps"], rows[1]["counts"]) == ("9, from 0 to 80", "control")
    page = html_of(made, tables, features=MADE_ELSEWHERE)
    assert "14 runs of 7 recipes · features made elsewhere: 2 (elsewhere, pca)" in page
    section = page[page.index('id="runs"') : page.index('id="again"')]
    assert "../&lt;far&gt;/features.zarr" in section and "pca.npz" in section
    assert "elsewhere (trained), pca (control)." in page
    assert basis(made.spec | {"features": MADE_ELSEWHERE}, made.runs, {})["sizes"][0].startswith("1 to 3 seeds, ")
    assert "made elsewhere" not in html_of(made, tables)
    page_ = _Page()
    page_.feed(page)
    assert page_.open == []


def test_the_page_says_what_a_copy_of_the_study_needs(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    page = html_of(made, tables)
    assert "<pre>.venv/bin/snakemake --configfile my-study.yaml</pre>" in page
    assert "code of your own" not in page and "<code>source:</code>" not in page
    page = html_of(made, tables, own_code=["mine.digits:load", "mine/figure.py"], is_downloaded=True)
    assert "(<code>mine.digits:load</code>, <code>mine/figure.py</code>)" in page and "<code>PYTHONPATH</code>" in page
    assert "give its data sets a <code>source:</code>" in page


def test_answers_say_where_compression_rises_from_the_input(made: Made) -> None:
    table = made.layers.copy()
    first = (table["recipe"] == "cnn") & (table["depth"] == 1)
    table.loc[first, "compression"] = 2 * 13.4
    digits, _ = answers({"layers": layers.tidy(table, made.runs, made.spec)}, made.runs, made.spec["recipes"])
    assert "From the input to layer 1, C rises in 1 of 4 recipes (2-fold in cnn)." in digits["sentences"]


def test_answers_need_no_figure(made: Made) -> None:
    found = answers({}, made.runs, made.spec["recipes"])
    assert [answer["angles"] for answer in found] == [[], []]
    assert any("accuracy" in sentence for sentence in found[0]["sentences"])


def test_times_are_summed_by_rule(tmp_path) -> None:
    head = "s\th:m:s\tmax_rss\n"
    for path, row in {
        "train_run/a/block-0.tsv": "10.5\t0:00:10\t100\n",
        "train_run/b/block-0.tsv": "20\t0:00:20\t-\n",
        "decompose_features/runs/a/block-0.tsv": "2\t0:00:02\t60\n",
        "train_run/gone/block-0.tsv": "20\t0:00:20\t-\n",
        "compare_runs.tsv": "1\t0:00:01\t50\n",
        "broken.tsv": None,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("" if row is None else head + row)
    assert timings(tmp_path, ["a", "b"]) == [
        {"rule": "train_run", "n_jobs": 2, "total_s": 30.5, "longest_s": 20.0, "peak_mib": 100.0},
        {"rule": "decompose_features", "n_jobs": 1, "total_s": 2.0, "longest_s": 2.0, "peak_mib": 60.0},
        {"rule": "compare_runs", "n_jobs": 1, "total_s": 1.0, "longest_s": 1.0, "peak_mib": 50.0},
    ]
    assert timings(tmp_path / "nowhere", ["a"]) == []


def test_versions_name_what_decides_numbers() -> None:
    found = versions()
    assert {"python", "torch", "torchvision", "snakemake", "numpy", "zarr", "xarray", "platform"} <= set(found)


def test_run_rows_hold_mean_and_deviation(made: Made) -> None:
    rows = run_rows(made.runs)
    mlp = next(row for row in rows["recipes"] if row[0][0] == "mlp")
    losses = made.runs.loc[made.runs["recipe"] == "mlp", "train_loss"]
    assert mlp[7] == (f"{losses.mean():.3g}", f"± {losses.std(ddof=1):.2g}")
    assert rows["headings"][-1] == "Converged"
    assert len(rows["seeds"]) == len(made.runs)
    assert all(len(row) == 7 + len(rows["headings"]) for row in rows["recipes"])


# --- the run table ----------------------------------------------------------------------------------------------------


def _run(name: str, seeds: list[int], block: int, converged: bool | None) -> tuple[pd.DataFrame, dict]:
    history = pd.DataFrame(
        [
            {
                "dataset": "digits",
                "recipe": name,
                "block": block,
                "seed": seed,
                "step": step,
                "epoch": step / 10,
                "learning_rate": 0.1,
                "train_loss": 1.0 / (1 + step + seed),
                "train_accuracy": 0.5,
                "test_loss": np.nan,
                "test_accuracy": np.nan,
                "relative_loss": np.nan,
                "weight_norm": 1.0,
            }
            for seed in seeds
            for step in (0, 10, 20)
        ]
    )
    digest = {
        "recipe": name,
        "seeds": seeds,
        "steps": {str(seed): [0, 10, 20] for seed in seeds},
        "epochs": {str(seed): [0.0, 1.0, 2.0] for seed in seeds},
        "converged": {str(seed): converged for seed in seeds},
        "n_parameters": 42,
    }
    return history, digest


def test_runs_are_tabulated_in_the_order_of_the_study() -> None:
    facts = {"dataset": "digits", "task": "classify", "kind": "mlp", "population": ""}
    recipes = [facts | {"name": name} for name in ("z", "a")]
    runs = [_run("a", [0, 1], 0, None), _run("z", [2], 1, False), _run("z", [0, 1], 0, True)]
    table = tabulate_runs([history for history, _ in runs], [digest for _, digest in runs], recipes)
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["recipe"], table["seed"], table["block"], strict=True)) == [
        ("z", 0, 0),
        ("z", 1, 0),
        ("z", 2, 1),
        ("a", 0, 0),
        ("a", 1, 0),
    ]
    assert table["converged"].tolist() == [True, True, False, None, None]
    assert table["train_loss"].iloc[2] == pytest.approx(1 / 23)
    assert (table["steps"].iloc[0], table["epochs"].iloc[0], table["n_parameters"].iloc[0]) == (20, 2.0, 42)


def test_a_history_that_lacks_a_seed_is_an_error() -> None:
    history, digest = _run("a", [0, 1], 0, None)
    recipes = [{"name": "a", "dataset": "digits", "task": "classify", "kind": "mlp", "population": ""}]
    with pytest.raises(FeaturespaceError, match="run a, seed 1"):
        tabulate_runs([history[history["seed"] == 0]], [digest], recipes)


# --- the ledger ---


def claims_table(**changes: object) -> pd.DataFrame:
    """Two claims, one about both centrings and one about neither."""
    line = {
        "claim": "p3-pair",
        "ledger": "p-vectors",
        "row": "P3",
        "title": "Trained networks are close",
        "source": "[P] <near> 1.0",
        "statistic": "pair_angle",
        "dataset": "digits",
        "centring": "raw",
        "published": "10",
        "predicted": np.nan,
        "threshold": "high <= 20",
        "measured": 12.345,
        "low": 11.0,
        "high": 14.0,
        "null": 13.0,
        "n": 5,
        "passes": True,
        "convention": "raw only",
        "verdict": "explained by the mean",
        "evidence": "tables/angle_pairs.csv",
        "setting": "ours",
    }
    lines = [
        line | changes,
        line | {"centring": "centred", "measured": 61.5, "low": 60.0, "high": 63.0, "null": 88.8, "passes": False},
        line
        | {"claim": "p1-n", "row": "P1", "centring": "", "measured": np.nan, "low": np.nan, "high": np.nan}
        | {"null": np.nan, "passes": np.nan, "verdict": "not run", "convention": "", "evidence": "needs CIFAR-10"},
    ]
    return pd.DataFrame(lines)


def test_the_ledger_has_a_line_a_claim_with_both_centrings_side_by_side() -> None:
    first, second = ledger_rows(claims_table(), {"P1": "Sizes", "P3": "Pairs"})
    assert (first["row"], first["counts"]) == ("P1", {"not run": 1})
    assert (second["row"], second["counts"]) == ("P3", {"explained by the mean": 1})
    (claim,) = second["claims"]
    assert claim["raw"] == {"measured": "12.3", "interval": "11 to 14", "null": "13", "passes": "yes"}
    assert claim["centred"] == {"measured": "61.5", "interval": "60 to 63", "null": "88.8", "passes": "no"}
    assert "other" not in claim
    assert first["claims"][0]["other"] == {"measured": "–", "interval": "", "null": "", "passes": ""}


def layerwise_line(claim: str, verdict: str, **changes: object) -> dict[str, object]:
    """A line of the other ledger, which knows no centrings and has predictions."""
    line = claims_table().iloc[2].to_dict() | {"ledger": "layerwise", "row": "T3", "centring": "", "dataset": "rows"}
    line |= {"claim": claim, "verdict": verdict, "title": f"The title of {claim}", "measured": 0.05, "passes": True}
    return line | {"predicted": 0.0613, "setting": "ours: rows"} | changes


def test_each_ledger_has_its_own_rows_tags_and_columns() -> None:
    both = pd.concat([claims_table(), pd.DataFrame([layerwise_line("t3-law", "reproduced")])], ignore_index=True)
    ours, theirs = ledgers(both)
    assert (ours["name"], ours["centred"], ours["predicted"]) == ("p-vectors", True, False)
    assert [group["row"] for group in ours["groups"]] == ["P1", "P3"]
    assert ours["tags"]["C"] == "our choice"
    assert (theirs["name"], theirs["centred"], theirs["predicted"]) == ("layerwise", False, True)
    (group,) = theirs["groups"]
    assert (group["row"], group["title"]) == ("T3", "The law of compression over settings")
    assert (group["claims"][0]["predicted"], group["claims"][0]["other"]["measured"]) == ("0.0613", "0.05")
    assert theirs["tags"]["C"] == "the paper's public code"


def test_questions_to_settle_come_first() -> None:
    table = claims_table(claim="question-start")
    (ledger,) = ledgers(table)
    assert [group["row"] for group in ledger["groups"]] == ["Q", "P1", "P3"]


def test_what_failed_is_named_before_the_counts() -> None:
    lines = [layerwise_line(f"t{i}", "not reproduced") for i in range(10)]
    lines += [layerwise_line("fine", "reproduced"), layerwise_line("unclear", "not determined")]
    lines += [layerwise_line("absent", "not run", dataset="")]
    failed, counts = verdict_sentences(pd.DataFrame(lines))
    assert failed.startswith("Not reproduced: The title of t0 (t0); The title of t1 (t1);")
    assert failed.endswith("The title of t7 (t7); and 2 more.")
    assert counts == (
        "Of 12 tests of claims: 1 reproduced, 10 not reproduced, 1 not determined. 1 more could not be run."
    )
    (nothing,) = verdict_sentences(pd.DataFrame([layerwise_line("absent", "not run", dataset="")]))
    assert nothing == "None of its 1 claims could be tested on what this study has."


def test_the_page_has_a_heading_for_each_of_two_ledgers(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    other = pd.DataFrame([layerwise_line("t3-law", "not reproduced", passes=False)])
    page = html_of(made, tables, pd.concat([claims_table(), other], ignore_index=True))
    assert page.index("<h3>The P-vectors paper</h3>") < page.index("<h3>The layerwise compression")
    assert page.count("<th>Predicted</th>") == 1
    assert "Each claim of the papers" in page
    assert page.index("Not reproduced: The title of t3-law (t3-law).") < page.index('id="claims"')
    whole = _Page()
    whole.feed(page)
    assert whole.open == []
    assert len(set(whole.ids)) == len(whole.ids)
    alone = html_of(made, tables, claims_table())
    assert "<th>Predicted</th>" not in alone
    assert "<h3>The P-vectors paper</h3>" not in alone
    assert "[P] publisher or abstract, [R] public reviews, [I] inferred, [C] our choice." in alone


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.98765, "0.988"), (1234.5, "1234"), (2.5e-13, "2.5·10^-13"), (np.nan, "–"), (-0.5, "-0.5")],
    ids=["zero", "share", "thousands", "tiny", "missing", "negative"],
)
def test_numbers_of_the_ledger_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_ledger_is_part_of_the_page_and_is_escaped(made: Made, tables: dict[str, pd.DataFrame]) -> None:
    page = html_of(made, tables, claims_table())
    assert 'id="claims"' in page
    assert "[P] &lt;near&gt; 1.0" in page
    assert "<strong>explained by the mean</strong>" in page
    assert "needs CIFAR-10" in page
    assert 'id="claims"' not in html_of(made, tables)


def test_members_of_sweeps_are_summed_up_not_listed() -> None:
    runs = [_run("a", [0, 1], 0, None), *(_run(f"many-{i}", [0], 0, None) for i in range(3))]
    for i, (history, _) in enumerate(runs):
        history["test_accuracy"] = 0.5 + i / 10
    recipes = [
        {"name": name, "dataset": "digits", "task": "classify", "kind": "mlp", "population": population}
        for name, population in (("a", ""), ("many-0", "many"), ("many-1", "many"), ("many-2", "many"))
    ]
    rows = run_rows(tabulate_runs([history for history, _ in runs], [digest for _, digest in runs], recipes))
    assert [row[0][0] for row in rows["recipes"]] == ["a"]
    assert {row[0] for row in rows["seeds"]} == {"a"}
    (population,) = rows["populations"]
    assert (population["name"], population["n_settings"], population["accuracy"]) == ("many", "3", "60.0% to 80.0%")


def test_a_run_says_what_a_linear_probe_reads_from_its_first_and_last_features() -> None:
    runs = [_run("a", [0, 1], 0, None), _run("b", [0], 0, None)]
    facts = {"dataset": "digits", "task": "simclr", "kind": "mlp", "population": ""}
    table = tabulate_runs([h for h, _ in runs], [d for _, d in runs], [facts | {"name": name} for name in "ab"])
    probes = pd.DataFrame(
        [("a", 0, 20, 0.8), ("a", 0, 0, 0.6), ("a", 1, 0, 0.7), ("a", 1, 20, 0.9)],
        columns=["recipe", "seed", "step", "test_accuracy"],
    )
    found = with_probes(table, probes)
    assert found["first_probe"].tolist()[:2] == [0.6, 0.7]
    assert found["last_probe"].tolist()[:2] == [0.8, 0.9]
    assert found["last_probe"].isna().tolist() == [False, False, True]
    rows = run_rows(found)
    assert rows["headings"][-2:] == ["Linear probe at first (%)", "Linear probe at last (%)"]
    assert [text for text, _ in rows["recipes"][0]][-2:] == ["65.0", "85.0"]
