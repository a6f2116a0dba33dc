# Requires: `config`, as Snakemake merged it.
# Makes: STUDY and PLAN (the validated study and its jobs), and helpers that the rules share. No rule is here.

import bisect
import gc
import inspect
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from featurespace.closure import CodeIndex
from featurespace.config import NAME_PATTERN, check_sources, parse_study, refuse_repeated_keys
from featurespace.errors import FeaturespaceError
from featurespace.files import STARTED_BY, this_process
from featurespace.plan import Plan

# A job that is still starting when this Snakemake is killed has no other way to know of it.
os.environ[STARTED_BY] = this_process()

# The graph of a thousand runs' jobs is millions of objects that live to the end: looking for garbage among them, again
# and again, takes an eighth of the time to build it.
gc.set_threshold(200_000, 50, 50)

NAME = NAME_PATTERN.strip("^$")

# Snakemake makes these paths absolute; as a user writes them, they hold wherever the directory is.
study_files = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
study_name = ", ".join(study_files) or "config.yaml"

if len(study_files) > 1:
    # Snakemake has merged them, and a target written after --configfile counts as one.
    sys.exit(f"featurespace: one study at a time, not {study_name}; write targets before --configfile, or after --")

try:
    STUDY = parse_study(config, study_name)
    # A compute node need not see what the login node downloads from, nor read the study file once more.
    if workflow.is_main_process:
        for path in study_files or ["config.yaml"]:
            refuse_repeated_keys(path)
        check_sources(STUDY, study_name)
except FeaturespaceError as error:
    # An exception would reach the user wrapped in several lines.
    sys.exit(f"featurespace: {error}")

PLAN = Plan(STUDY)
CODE = CodeIndex(Path(workflow.basedir) / "scripts")

# How this study is run, for the report to say: the same wherever the project's directory is.
command_files = [path if not path.startswith("..") else Path(path).name for path in study_files]
COMMAND = " ".join([".venv/bin/snakemake", *(["--configfile", *command_files] if command_files else [])])

CAPTIONS = {name: (Path(workflow.basedir) / "report" / f"{name}.rst").read_text("utf-8") for name in STUDY.figures}

# What is kept, or deleted as soon as everything that reads it has run. What is small and cheap is always kept: to make
# it again would make again everything below.
features_store = directory if STUDY.keep_features else lambda path: temp(directory(path))


def code_of(script, *data_files):
    """Digest a script and all local modules it imports: the part of a rule's parameters that is its code."""
    try:
        return CODE.closure(script, *data_files)
    except FeaturespaceError as error:
        sys.exit(f"featurespace: {error}")


# Recipes whose features are drawn at random have no networks, so that other rules make their stores.
is_noise = "|".join(re.escape(name) for name in PLAN.noise_recipes) or "(?!)"
NETWORK_RECIPE = rf"(?!(?:{is_noise})/){NAME}"
NOISE_RECIPE = is_noise


def of_runs(name, recipes=None):
    """List a file of every run, or of the runs of some recipes."""
    return [f"<results>/{run}/{name}" for run in PLAN.runs(recipes)]


def of_wildcards(function):
    """Write a function's signature down: Snakemake looks at it several times a job, and would work it out each time."""
    function.__signature__ = inspect.signature(function)
    return function


def growing(amount):
    """Ask for so much of a resource, and for as much again at every further attempt of a job that failed."""
    return of_wildcards(lambda wildcards, attempt: amount * attempt)


def of_dataset(name):
    """Find a file of the data set that a recipe uses."""
    return of_wildcards(lambda w: f"<results>/datasets/{PLAN.recipe(w.recipe).dataset}/{name}")


def of_probe_targets(name):
    """List a file of every data set that a recipe's layers are probed on."""
    return of_wildcards(lambda w: [f"<results>/datasets/{target}/{name}" for target in PLAN.probe_targets(w.recipe)])


def of_run(describe):
    """Describe the job of a run: what its recipe and its block of seeds make of it."""
    return of_wildcards(lambda w: describe(w.recipe, int(w.block)))


@of_wildcards
def threads_of_recipe(w):
    """Return how many threads a recipe asks for."""
    return PLAN.recipe(w.recipe).threads


def own(recipes):
    """Leave out the members of sweeps."""
    return [name for name in recipes if name in PLAN.own_recipes]


def of_inputs(name):
    """List a file of every data set in use."""
    return [f"<results>/{origin}/{name}" for origin in PLAN.inputs]


def of_figures(suffix):
    """List every figure of the study, in one format."""
    return [f"<results>/figures/{figure}.{suffix}" for figure in STUDY.figures]


def of_tables():
    """List the tables of the whole study that its figures and ledgers ask for."""
    angles = ["angle_dynamics", "angle_pairs"] if PLAN.compares_angles else []
    tables = ["runs", *angles, *(["claims"] if STUDY.ledgers else [])]
    return [f"<results>/tables/{table}.csv" for table in tables]


def evidence():
    """List what the claims of the study's ledgers are measured by, by name."""
    tables = {"runs": "<results>/tables/runs.csv"}
    if "p-vectors" in STUDY.ledgers:
        tables |= {
            "dynamics": "<results>/tables/angle_dynamics.csv",
            "pairs": "<results>/tables/angle_pairs.csv",
            "subspaces": "<results>/tables/subspaces.csv",
            "entry_summary": "<results>/tables/entry_summary.csv",
            "entries": "<results>/tables/entries.csv",
            "similarity": "<results>/tables/similarity.csv",
            "sensitivity": "<results>/tables/sensitivity.csv",
            "population": "<results>/tables/population.csv",
            "correlations": "<results>/tables/correlations.csv",
            "indicators": "<results>/tables/indicators.csv",
            "probes": of_runs("probe.csv", own(PLAN.network_recipes)),
            "spectra": of_runs("spectra.csv", PLAN.own_recipes),
        }
    if "layerwise" in STUDY.ledgers:
        tables |= {
            "layers": of_runs("layers.csv", PLAN.network_recipes),
            "inputs": of_inputs("layers.csv"),
            "networks": of_runs("networks.csv", PLAN.classifier_recipes),
            "theory": of_runs("theory.csv", PLAN.theory_recipes),
            "layer_probes": of_runs("layer_probes.csv", PLAN.probed_recipes),
        }
    return tables


def refuse_what_cannot_be_written():
    """Leave in one line if the results' directory, or what it would be made in, is read-only; Snakemake would say it
    in forty.
    """
    place = Path("results", STUDY.study)
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        sys.exit(f"featurespace: {place} cannot be written to (it is read-only, or somebody else's); nothing was run")


def date_nothing_later_than_now():
    """Date what was made when the clock was ahead to just before now, in the order in which it was made.

    Snakemake fails every job whose output would be older than an input.
    """
    now = time.time_ns()
    later = []
    for top in (Path("results", STUDY.study), Path("data")):
        for folder, folders, files in os.walk(top):
            if Path(folder).suffix == ".zarr" or Path(folder).name == "weights":
                folders.clear()
                files = [name for name in files if name == ".snakemake_timestamp"]
            paths = [Path(folder, name) for name in files]
            later += [(date, path) for path in paths if path.exists() and (date := path.stat().st_mtime_ns) > now]
    dates = sorted({date for date, _ in later})
    for date, path in later:
        moment = now - 1000 * (len(dates) - bisect.bisect_left(dates, date))
        with suppress(PermissionError):  # somebody else's, in a directory that is shared
            os.utime(path, ns=(moment, moment))


onstart:
    refuse_what_cannot_be_written()
    date_nothing_later_than_now()
