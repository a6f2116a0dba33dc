# Requires: `config`, as Snakemake merged it.
# Makes: STUDY and PLAN (the validated study and its jobs), and helpers that the rules share. No rule is here.

import atexit
import bisect
import gc
import inspect
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from featurespace.closure import CodeIndex, OwnCode
from featurespace.config import NAME_PATTERN, check_sources, parse_study, refuse_repeated_keys
from featurespace.errors import FeaturespaceError
from featurespace.files import STARTED_BY, this_process
from featurespace.made import made_otherwise
from featurespace.namesakes import namesake, note_study_file
from featurespace.own_code import find_own_figure, own_measures_code
from featurespace.own_sources import OwnSources, places_of_modules
from featurespace.plan import Plan

# A job that is still starting when this Snakemake is killed has no other way to know of it.
os.environ[STARTED_BY] = this_process()

# The graph of a thousand runs' jobs is millions of objects that live to the end: looking for garbage among them, again
# and again, takes an eighth of the time to build it.
gc.set_threshold(200_000, 50, 50)

NAME = NAME_PATTERN.strip("^$")

# Snakemake puts these into commands and format strings as they are.
for place in (sys.executable, workflow.basedir, os.getcwd()):
    if bad := re.search(r"""[\s'"`$\\&|;<>(){}\[\]]""", str(place)):
        sys.exit(
            f"featurespace: Snakemake cannot run in {place!r}, for the {bad[0]!r} in it: rename or move the folder"
        )

# Snakemake makes these paths absolute; as a user writes them, they hold wherever the directory is.
study_files = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
study_name = ", ".join(study_files) or "config.yaml"

if len(study_files) > 1:
    # Snakemake has merged them, and a target written after --configfile counts as one.
    sys.exit(f"featurespace: one study at a time, not {study_name}; write targets before --configfile, or after --")

# Where a study's own modules are looked for, before what is installed. Not in a rule's parameters: another folder of the
# same code changes nothing.
SCRIPTS = Path(workflow.basedir) / "scripts"
MODULE_PATH = [os.path.abspath(folder) for folder in places_of_modules(study_files)]
MODULE_PATH = [folder for folder in dict.fromkeys(MODULE_PATH) if folder != str(SCRIPTS)]
OWN_CODE = OwnCode([*map(Path, MODULE_PATH), SCRIPTS])

try:
    STUDY = parse_study(config, study_name)
    SOURCES = OwnSources(STUDY, look=workflow.is_main_process, places=MODULE_PATH)
    # A compute node need not see what the login node downloads from, nor read the study file once more.
    if workflow.is_main_process:
        for path in study_files or ["config.yaml"]:
            refuse_repeated_keys(path)
        check_sources(STUDY, study_name)
        SOURCES.check(study_name)
except FeaturespaceError as error:
    # An exception would reach the user wrapped in several lines.
    sys.exit(f"featurespace: {error}")

STUDY_FILE = (study_files or ["config.yaml"])[0]
if workflow.is_main_process and (other_file := namesake(STUDY.study, STUDY_FILE)):
    sys.exit(
        f"featurespace: {study_name}: study: {STUDY.study!r} is also the name of {other_file}, whose results it would "
        f"replace; give one of the two another name"
    )

if "rich" in workflow.output_settings.log_handler_settings:
    # what jobs say of themselves would break through its live view; it shows the logs of those that fail
    os.environ.update(FEATURESPACE_QUIET="1")

PLAN = Plan(STUDY, SOURCES)
CODE = CodeIndex(SCRIPTS)

OWN_FILES = {}
for name, factory in PLAN.factories.items():
    try:
        OWN_FILES[name] = OWN_CODE.of_function(factory)
    except FeaturespaceError as error:
        sys.exit(f"featurespace: {study_name}: recipes.{name}.model.factory: {error}")

# What jobs have to know, and what makes no result stale: where own modules are, and layers to look for before training.
config |= {"module_path": MODULE_PATH if PLAN.names_own_code else [], "tapped_layers": PLAN.tapped_layers}

# How this study is run, for the report to say: the same wherever the project's directory is.
command_files = [path if not path.startswith("..") else Path(path).name for path in study_files]
COMMAND = " ".join([".venv/bin/snakemake", *(["--configfile", *command_files] if command_files else [])])

CAPTIONS = {name: (Path(workflow.basedir) / "report" / f"{name}.rst").read_text("utf-8") for name in STUDY.figures}

try:
    OWN_MEASURES = own_measures_code(STUDY.analysis.measures.own, OWN_CODE)
    OWN_FIGURES = {
        name: find_own_figure(name, figure.script, MODULE_PATH, OWN_CODE) for name, figure in STUDY.own_figures.items()
    }
except FeaturespaceError as error:
    sys.exit(f"featurespace: {study_name}: {error}")

# captions are no part of a figure: its job must not see them
CAPTIONS |= {name: STUDY.own_figures[name].caption or found.caption for name, found in OWN_FIGURES.items()}
config["own_captions"] = {name: CAPTIONS[name] for name in OWN_FIGURES}


def labels_of(name, kind="Figure"):
    """Return what Snakemake's own report lists a file under: the words in bold that its caption begins with."""
    caption = (Path(workflow.basedir) / "report" / f"{name}.rst").read_text("utf-8")
    return {kind: caption.removeprefix("**").partition("**")[0].rstrip(".")}


# What is kept, or deleted as soon as everything that reads it has run. What is small and cheap is always kept: to make
# it again would make again everything below.
features_store = directory if STUDY.keep_features else lambda path: temp(directory(path))


def code_of_run(script):
    """Digest a script as `code_of`, and with it what builds the network of a recipe, if that is the user's own."""
    code = code_of(script)
    return of_wildcards(lambda w: code | {"own": OWN_FILES[w.recipe]} if w.recipe in OWN_FILES else code)


def code_of(script, *data_files):
    """Digest a script and all local modules it imports: the part of a rule's parameters that is its code."""
    try:
        return CODE.closure(script, *data_files)
    except FeaturespaceError as error:
        sys.exit(f"featurespace: {error}")


def any_of(names):
    """Write a regular expression for some names; for none, one that nothing matches."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


# Features that are drawn at random, or were made elsewhere, have no networks, so that other rules make their stores; nor
# are those networks trained whose weights were saved elsewhere.
NOISE_RECIPE = any_of(PLAN.noise_recipes)
IMPORTED_RECIPE = any_of(PLAN.imported_recipes)
SAVED_RECIPE = any_of(PLAN.saved_recipes)
NETWORK_RECIPE = rf"(?!(?:{NOISE_RECIPE}|{IMPORTED_RECIPE})/){NAME}"
TRAINED_RECIPE = rf"(?!(?:{NOISE_RECIPE}|{IMPORTED_RECIPE}|{SAVED_RECIPE})/){NAME}"
OWN_DATASET = any_of(name for name in STUDY.datasets if PLAN.is_own(name))
OTHER_DATASET = rf"(?!(?:{OWN_DATASET})/){NAME}"


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
    return [f"<results>/figures/{figure}.{suffix}" for figure in PLAN.figures]


def of_tables():
    """List the tables of the whole study that its figures and ledgers ask for."""
    angles = ["angle_dynamics", "angle_pairs"] if PLAN.compares_angles else []
    own_measures = ["own_measures"] if STUDY.analysis.measures.own else []
    tables = ["runs", *angles, *own_measures, *(["claims"] if STUDY.ledgers else [])]
    return [f"<results>/tables/{table}.csv" for table in tables]


def of_own_figure(w):
    """List, by name, the files of the tables that a figure of one's own is drawn from: of runs, those of own recipes."""
    of_stage = {
        "history": own(PLAN.network_recipes),
        "spectra": PLAN.own_recipes,
        "layers": PLAN.own_recipes,
        "networks": own(PLAN.classifier_recipes),
        "theory": own(PLAN.theory_recipes),
        "layer_probes": own(PLAN.probed_recipes),
        "probe": own(PLAN.network_recipes),
    }
    files = {}
    for table in STUDY.own_figures[w.own_figure].tables:
        if table == "embedding":
            files[table] = [f"<results>/runs/{name}/block-0/embedding.csv" for name in own(PLAN.classifier_recipes)]
        elif table in of_stage:
            inputs = of_inputs(f"{table}.csv") if table in ("spectra", "layers") else []
            files[table] = inputs + of_runs(f"{table}.csv", of_stage[table])
        else:
            files[table] = f"<results>/tables/{table}.csv"
    return files


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
    in forty. What makes nothing (`verify`) may run all the same.
    """
    if not any(job.output for job in workflow.dag.needrun_jobs()):
        return
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
        with suppress(OSError):  # somebody else's, in a directory that is shared; an archive
            os.utime(path, ns=(moment, moment))


def note_jobs():
    """Write down which jobs this Snakemake has set out to do, for `scripts/status` to read."""
    from featurespace.status import JOBS, note, notes_of

    notes = notes_of(workflow.dag)
    # what makes nothing (`verify`) may run beside a study at work, and is not what one wants to follow
    if any(job.outputs for job in notes):
        with suppress(FeaturespaceError, OSError):  # a full disk: what is made says so, and matters more
            note_study_file(STUDY.study, STUDY_FILE)
            note(Path("results", STUDY.study, "logs", JOBS), notes, workflow.cores if workflow.local_exec else None)


def refuse_what_was_made_otherwise():
    """Leave in one line if results have lost Snakemake's record, and are not what the study would make now."""
    global has_started
    has_started = True
    if complaint := made_otherwise(workflow.dag):
        sys.exit(f"featurespace: {complaint}")


def warn_of_what_was_made_otherwise():
    """Say so too where Snakemake has found nothing to do, or was only asked what it would do."""
    if not has_started and getattr(workflow, "dag", None) is not None:
        if complaint := made_otherwise(workflow.dag):
            print(f"featurespace: {complaint}", file=sys.stderr)


has_started = False
if workflow.is_main_process:
    atexit.register(warn_of_what_was_made_otherwise)


onstart:
    refuse_what_cannot_be_written()
    refuse_what_was_made_otherwise()
    date_nothing_later_than_now()
    note_jobs()
