"""Bad input ends in one line and a non-zero exit, before any job; what was computed stays."""

import copy
import shutil

import pytest
from harness import TINY, Workflow

pytestmark = pytest.mark.workflow

BAD = {
    "an unknown key": ("recipes.mlp.modell", {}, "did you mean 'model'?"),
    "a wrong type": ("recipes.mlp.schedule.epochs", "many", "recipes.mlp.schedule.epochs"),
    "an unknown data set": ("recipes.mlp.dataset", "digit", "did you mean 'digits'?"),
    "a layer that is not there": ("recipes.mlp.feature_layer", "hidden3", "hidden1, hidden2"),
    "zero seeds": ("seeds", 0, "seeds"),
    "no recipes": ("recipes", {}, "recipes: is empty"),
    "a source that is missing": ("datasets.extra", {"kind": "mnist", "source": "nowhere"}, "'nowhere'"),
    "a name that leads elsewhere": ("study", "../../elsewhere", "study"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_line_before_any_job(tmp_path, bad):
    path, value, says = BAD[bad]
    study = copy.deepcopy(TINY)
    section = study
    *parents, last = path.split(".")
    for part in parents:
        section = section[part]
    section[last] = value
    workflow = Workflow(tmp_path / "bad", study)
    kept = workflow.root / "results/tiny/kept.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("computed before")

    done = workflow.snakemake()

    lines = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line]
    assert done.returncode != 0
    assert len(lines) == 1, lines
    assert lines[0].startswith("featurespace: study.yaml: ")
    assert says in lines[0]
    assert [path.name for path in (workflow.root / "results").rglob("*") if path.is_file()] == ["kept.txt"]


def test_a_study_file_that_is_not_there_is_named(tmp_path):
    workflow = Workflow(tmp_path / "bad", TINY)
    (workflow.root / "study.yaml").unlink()
    done = workflow.snakemake()
    assert done.returncode != 0
    assert "study.yaml" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["my study", "study (v2)", "it's", "p{x}", "$HOME"])
def test_a_folder_whose_name_snakemake_cannot_run_in_is_named(tmp_path, name):
    workflow = Workflow(tmp_path / name, TINY)
    status, _, said = workflow.ask("-n")
    assert status != 0
    (line,) = [line for line in said.splitlines() if "profile" not in line]
    assert line.startswith("featurespace: Snakemake cannot run in ")
    assert name.replace("'", "") in line.replace("'", "").replace("\\", "")


def test_a_copy_of_a_study_file_with_the_same_name_replaces_no_results(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "copied")
    first = workflow.root / "study.yaml"
    copied = workflow.root / "other.yaml"
    workflow.study_files = ["other.yaml"]
    shutil.copy(first, copied)
    assert workflow.pending() == {"write_report"}  # the same study; the report says how to run it again
    copied.write_text(first.read_text().replace("learning_rate: 0.1", "learning_rate: 0.2"))
    status, _, said = workflow.ask("-n")
    assert status != 0
    (line,) = [line for line in said.splitlines() if "profile" not in line]
    assert line.startswith("featurespace: other.yaml: study: 'tiny' is also the name of study.yaml")
    first.unlink()  # it was renamed
    assert "train_run/mlp/block-0" in workflow.pending()
    workflow.study_files = ["results/tiny/study.yaml"]
    assert workflow.pending() == {"write_report"}


def test_two_studies_at_once_are_not_merged(tmp_path):
    workflow = Workflow(tmp_path / "bad", TINY)
    shutil.copy(workflow.root / "study.yaml", workflow.root / "other.yaml")
    workflow.study_files = ["other.yaml", "study.yaml"]
    done = workflow.snakemake("-n")
    assert done.returncode != 0
    assert "featurespace: one study at a time, not other.yaml, study.yaml" in done.stderr


def test_a_job_that_fails_says_why_in_one_line_and_spares_the_others(tmp_path):
    study = copy.deepcopy(TINY)
    # far beyond what gradient descent can follow: the loss overflows within a few steps
    study["recipes"]["line"]["optimiser"] = {"kind": "sgd", "learning_rate": 1e30}
    study["recipes"]["line"]["schedule"]["epochs"] = 20
    study |= {"ledgers": [], "figures": ["spectra", "training"], "sweeps": {}}
    workflow = Workflow(tmp_path / "fails", study)
    done = workflow.snakemake()
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("featurespace: ")]
    assert len(said) == 1, done.stderr
    assert "line" in said[0]
    assert "step" in said[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert "Traceback" in (workflow.root / "results/tiny/logs/train_run/line/block-0.log").read_text()
    assert (workflow.root / "results/tiny/runs/mlp/block-0/spectra.json").exists()
