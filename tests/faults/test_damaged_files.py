"""Stores, weights, digests, tables and states to resume from that are no longer what was written: refused by name."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from disturbed import complaints, made
from harness import Workflow

from featurespace.config import parse_study
from featurespace.datasets import load_dataset
from featurespace.errors import FeaturespaceError
from featurespace.plan import Plan
from featurespace.stores import FeatureStore, read_group
from featurespace.tables import read_table
from featurespace.training import resume_folder, train_block
from featurespace.verification import STORES, Findings, mending_command, verify_results
from featurespace.weights import KeptWeights, publish

pytestmark = pytest.mark.workflow

COMMAND = ".venv/bin/snakemake --configfile study.yaml"
MLP = {
    "dataset": "digits",
    "model": {"kind": "mlp", "widths": [8]},
    "schedule": {"epochs": 2},
    "seeds": 2,
    "block": 1,
}
STUDY: dict[str, Any] = {
    "study": "kept",
    "device": "cpu",
    "datasets": {"digits": {"kind": "digits", "sample_set": {"limit": 100}}},
    "recipes": {"mlp": MLP},
    "analysis": {"angles": {"permutations": 19}},
    "figures": ["training"],
}
RUN, OTHER = "results/kept/runs/mlp/block-0", "results/kept/runs/mlp/block-1"
DATASET = "results/kept/datasets/digits"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    """A study, run to its end; what a test damages it puts back."""
    workflow = Workflow(tmp_path_factory.mktemp("damaged") / "kept", STUDY)
    workflow.run("--cores", "1", "all", f"{RUN}/spectra.zarr", f"{OTHER}/spectra.zarr")
    return workflow


@pytest.fixture
def kept(finished, tmp_path, monkeypatch) -> Path:
    """A copy of its results, to be damaged, in the directory that the test is in."""
    shutil.copytree(finished.root / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify() -> Findings:
    """Check the study in this directory."""
    return verify_results(Path(), Plan(parse_study(STUDY, "study.yaml")).verify(COMMAND))


# --- stores -----------------------------------------------------------------------------------------------------------


def read_dataset(folder: str) -> None:
    """Read a data set as the stages do that train and dump."""
    load_dataset(f"{folder}/dataset.zarr", f"{folder}/dataset.json")


def read_features(folder: str) -> None:
    """Read features as the stages do that decompose and measure."""
    store = FeatureStore.open(f"{folder}/features.zarr", f"{folder}/features.json")
    for layer in store.layers:
        for i in range(len(store.seeds)):
            for j in range(len(store.steps)):
                list(store.blocks(layer, i, j))


def read_spectra(folder: str) -> None:
    """Read spectra as the stages do that compare."""
    store, digest = f"{folder}/spectra.zarr", f"{folder}/spectra.json"
    for layer in read_group(store, "", digest).attrs["layers"]:
        read_group(store, layer, digest).load()


def read_weights(folder: str) -> None:
    """Read weights as the stages do that dump."""
    weights = KeptWeights(f"{folder}/weights", f"{folder}/weights.json")
    for step in weights.steps:
        weights.read(weights.seeds, step)


KINDS: dict[str, tuple[str, str, Callable[[str], None]]] = {  # where one is, another one, and who reads it
    "dataset.zarr": (DATASET, "", read_dataset),
    "features.zarr": (RUN, OTHER, read_features),
    "spectra.zarr": (RUN, OTHER, read_spectra),
    "weights": (RUN, OTHER, read_weights),
}


def contents(store: Path) -> list[Path]:
    """List the files of data: chunks, or weights; the largest ones last."""
    files = [path for path in store.rglob("*") if path.is_file() and not path.name.startswith(".")]
    data = [path for path in files if re.match(r"c\.|step-", path.name)]
    return sorted(data, key=lambda path: (path.stat().st_size, path))


def rewrite(path: Path, content: bytes) -> None:
    """Replace a file: its bytes may be shared with others under a second name, so it is never written into."""
    path.unlink()
    path.write_bytes(content)


def delete(store: Path, other: Path) -> None:
    contents(store)[-1].unlink()


def truncate(store: Path, other: Path) -> None:
    path = contents(store)[-1]
    rewrite(path, path.read_bytes()[:-7])


def flip(store: Path, other: Path) -> None:
    path = contents(store)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    rewrite(path, bytes(content))


def take_a_chunk_of_another(store: Path, other: Path) -> None:
    """Swap in a chunk that is whole, of another run; where there is none, of another part of the same store."""
    path = contents(store)[-1]
    if other.exists():
        name = path.relative_to(store).as_posix().replace("seed-0", "seed-1")
        content = (other / name).read_bytes()
    else:
        size = path.stat().st_size
        content = next((p.read_bytes() for p in contents(store)[:-1] if p.stat().st_size == size), b"")
        if not content:  # the only chunk of its size: the same numbers in another order, with a right checksum
            values = path.read_bytes()[:-4][::-1]
            content = values + google_crc32c.value(values).to_bytes(4, "little")
    assert content != path.read_bytes()
    rewrite(path, content)


def reorder_samples(store: Path, other: Path) -> None:
    """Reverse the samples' ids, with a checksum that is right."""
    path = next(path for path in store.rglob("sample/c.0"))
    values = np.frombuffer(path.read_bytes()[:-4], "<i8")[::-1].tobytes()
    rewrite(path, values + google_crc32c.value(values).to_bytes(4, "little"))


def be_of_another_version(store: Path, other: Path) -> None:
    listed = json.loads((store / "checksums.json").read_bytes())
    rewrite(store / "checksums.json", json.dumps(listed | {"featurespace_format": 99}).encode())


def edit_metadata(store: Path, other: Path) -> None:
    metadata = (store / "zarr.json").read_bytes()
    rewrite(store / "zarr.json", metadata.replace(b'"attributes"', b'"Attributes"', 1))


def add_a_file(store: Path, other: Path) -> None:
    (contents(store)[-1].parent / "c.9.9.9.9").write_bytes(b"1234")


def be_another_runs(store: Path, other: Path) -> None:
    shutil.rmtree(store)
    shutil.copytree(other, store)


def be_another_runs_with_its_digest(store: Path, other: Path) -> None:
    be_another_runs(store, other)
    name = STORES[store.name]
    rewrite(store.with_name(name), other.with_name(name).read_bytes())


def vanish(store: Path, other: Path) -> None:
    shutil.rmtree(store)


def edit_digest(store: Path, other: Path) -> None:
    path = store.with_name(STORES[store.name])
    facts = json.loads(path.read_bytes())
    changed = {"digest": "0" * 64, "checksums": "0" * 64}
    rewrite(path, json.dumps(facts | changed | ({"files": {}} if "files" in facts else {})).encode())


def edit_a_fact(store: Path, other: Path) -> None:
    """Change what the digest file says, one thing besides checksums."""
    path = store.with_name(STORES[store.name])
    content = path.read_text()
    rewrite(path, re.sub(r"(\d)(,?\n)", lambda found: f"{9 - int(found[1])}{found[2]}", content, count=1).encode())
    assert path.read_text() != content


def lose_digest(store: Path, other: Path) -> None:
    store.with_name(STORES[store.name]).unlink()


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "a chunk is deleted": delete,
    "a chunk is truncated": truncate,
    "a bit is flipped": flip,
    "a chunk is another's": take_a_chunk_of_another,
    "the order of the samples is changed": reorder_samples,
    "it is of another version": be_of_another_version,
    "its metadata is edited": edit_metadata,
    "a foreign file lies in it": add_a_file,
    "it is another run's": be_another_runs,
    "it is another run's, and so is its digest file": be_another_runs_with_its_digest,
    "it is gone": vanish,
    "its digest file is edited": edit_digest,
    "a fact in its digest file is changed": edit_a_fact,
    "its digest file is gone": lose_digest,
}
IMPOSSIBLE = {
    ("dataset.zarr", "it is another run's"),
    ("dataset.zarr", "it is another run's, and so is its digest file"),
    *(("weights", fault) for fault in ("the order of the samples is changed", "its metadata is edited")),
}
# Weights are read by the checksums in their digest file, so that the list inside matters to `verify` alone.
UNREAD = {("weights", "it is of another version")}


OF_DIGEST = {("weights", "it is another run's, and so is its digest file")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_named_and_refused(kept, record_fault, kind):
    folder, other, read = KINDS[kind]
    store, store_of_another = Path(folder) / kind, Path(other) / kind
    read(folder)
    whole = verify()
    assert not whole.damages
    assert not whole.unknown
    shutil.copytree(folder, "aside")
    for fault, damage in DAMAGES.items():
        if (kind, fault) in IMPOSSIBLE:
            continue
        damage(store, store_of_another)
        findings = verify()
        paths = {found.path for found in findings.damages}
        # a digest file is held against what its job wrote, and weights that agree with theirs are whole
        named = f"{folder}/{STORES[kind]}" if (kind, fault) in OF_DIGEST else store.as_posix()
        assert named in paths, fault
        assert paths <= {store.as_posix(), f"{folder}/{STORES[kind]}"}, fault
        for found in findings.damages:
            assert found.what
            assert "\n" not in found.what
            assert str(kept) not in found.what
        if (kind, fault) not in UNREAD:
            with pytest.raises(FeaturespaceError) as refused:
                read(folder)
            assert any(path in str(refused.value) for path in (str(store), f"{folder}/{STORES[kind]}")), fault
            assert "--forcerun" in str(refused.value), fault
        if fault == "a bit is flipped" and kind == "features.zarr":
            assert re.search(r"layer \w+, seed 0, step \d+, ", next(iter(findings.damages)).what)
        shutil.rmtree(folder)
        shutil.copytree("aside", folder)
        record_fault(f"store {kind}", fault, "named by `verify`, refused by who reads it, with the command that mends")
    assert not verify().damages


def test_other_files_are_held_against_what_their_jobs_wrote(kept, record_fault):
    whole = verify()
    for path in ("results/kept/tables/runs.csv", f"{RUN}/history.csv", "results/kept/figures/training.svg"):
        before = Path(path).read_bytes()
        Path(path).write_bytes(before.replace(b"0", b"1", 1))
        assert [(found.path, found.what) for found in verify().damages] == [
            (path, "is not the file that was made (its checksum is another)")
        ]
        Path(path).unlink()
        assert not verify().damages
        assert verify().n_absent == whole.n_absent + 1
        Path(path).write_bytes(before)
        record_fault("table, figure", "a digit is changed", "named by `verify`, with the command that mends")
    Path("results/kept/.made/tables/runs.csv.json").write_text("[")
    assert verify().unknown == ["results/kept/tables/runs.csv"]
    n_bytes = sum(path.stat().st_size for path in Path("results/kept/runs").rglob("*") if path.is_file())
    assert whole.n_bytes > n_bytes / 2
    assert "GB/s" in whole.summary()


def test_the_command_that_verify_gives_mends_everything(finished, tmp_path, record_fault):
    workflow = finished.copy_to(tmp_path / "mended")
    before = made(workflow)
    clean = workflow.snakemake("verify", "--cores", "1")
    assert clean.returncode == 0, clean.stderr
    assert "0 damaged" in clean.stderr
    assert re.search(r"read at [\d.]+ GB/s", clean.stderr)

    flip(workflow.root / RUN / "features.zarr", Path())
    delete(workflow.root / OTHER / "weights", Path())
    rewrite(workflow.root / "results/kept/tables/runs.csv", b"nothing")
    found = workflow.snakemake("verify", "--cores", "1")
    assert found.returncode == 1
    assert [path for path in (f"{RUN}/features.zarr", f"{OTHER}/weights") if f"{path}: " not in found.stderr] == []
    (line,) = complaints(found.stderr)
    assert line.startswith("featurespace: 3 damaged")
    program, *arguments = shlex.split(line.rpartition(": ")[2])
    assert program == ".venv/bin/snakemake"
    arguments = arguments[: arguments.index("--configfile")]
    workflow.run("--cores", "1", *arguments)
    assert made(workflow) == before
    assert workflow.snakemake("verify", "--cores", "1").returncode == 0
    record_fault("results", "several are damaged at once", "the command that `verify` gives mends all: same bytes", 3)


def test_verify_goes_on_after_what_cannot_be_read(kept, record_fault):
    chunk = contents(Path(RUN) / "features.zarr")[-1]
    chunk.unlink()
    chunk.symlink_to("nowhere")
    rewrite(Path(f"{OTHER}/history.csv"), b"nothing")
    assert {found.path for found in verify().damages} == {f"{RUN}/features.zarr", f"{OTHER}/history.csv"}
    record_fault("store features.zarr", "a chunk is a link that leads nowhere", "named by `verify`, which goes on")


def test_an_archive_that_is_read_only_can_be_verified(finished, tmp_path, record_fault):
    workflow = finished.copy_to(tmp_path / "archive")
    folders = [workflow.root / "results", *(path for path in (workflow.root / "results").rglob("*") if path.is_dir())]
    if os.geteuid():
        for folder in folders:
            folder.chmod(0o555)
        verified = workflow.snakemake("verify", "--cores", "1")
        for folder in folders:
            folder.chmod(0o755)
    else:  # whom no mode keeps from writing
        mounted = subprocess.run(["mount", "--bind", folders[0], folders[0]], check=False)
        if mounted.returncode:
            pytest.skip("nothing can be mounted here")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", folders[0]], check=True)
            verified = workflow.snakemake("verify", "--cores", "1")
        finally:
            subprocess.run(["umount", folders[0]], check=True)
    assert verified.returncode == 0, verified.stderr
    assert "0 damaged" in verified.stderr
    record_fault("results/", "read-only, and to be verified", "verified")


# --- between two jobs -------------------------------------------------------------------------------------------------


def change_a_digit(path: Path) -> None:
    content = path.read_text()
    rewrite(path, re.sub(r"\d(?=\D*$)", lambda found: str(9 - int(found[0])), content, count=1).encode())


TABLE_DAMAGES: dict[str, Callable[[Path], None]] = {
    "a digit is changed": change_a_digit,
    "it is cut": lambda path: rewrite(path, path.read_bytes()[:-25]),
    "it has lost its rows": lambda path: rewrite(path, path.read_bytes().partition(b"\n")[0] + b"\n"),
    "it is full of NUL bytes": lambda path: rewrite(path, bytes(path.stat().st_size)),
    "it is empty": lambda path: rewrite(path, b""),
}


def test_a_table_that_is_not_what_was_made_is_refused_by_the_jobs_that_read_it(finished, tmp_path, record_fault):
    workflow = finished.copy_to(tmp_path / "damaged")
    before = made(workflow)
    history, runs = f"{RUN}/history.csv", "results/kept/tables/runs.csv"
    content = (workflow.root / history).read_bytes()
    for fault, damage in TABLE_DAMAGES.items():
        damage(workflow.root / history)
        done = workflow.snakemake(runs, "--cores", "1", "--forcerun", runs)
        assert done.returncode, fault
        (line,) = complaints(done.stderr)
        assert line.startswith(f"featurespace: {history} is not the file that was made"), fault
        assert "Traceback" not in done.stderr, fault
        rewrite(workflow.root / history, content)
        record_fault("table", fault, "refused by who reads it, with the command that mends")
    change_a_digit(workflow.root / history)
    done = workflow.snakemake(runs, "--cores", "1", "--forcerun", runs)
    mending = re.search(r"`(--forcerun [^`]+)`", complaints(done.stderr)[0])
    assert mending
    workflow.run("--cores", "1", "all", *shlex.split(mending[1]))
    assert made(workflow) == before


def test_a_run_of_another_study_of_the_same_name_and_place_is_refused(finished, tmp_path, record_fault):
    other = Workflow(
        tmp_path / "other", STUDY | {"recipes": {"mlp": MLP | {"optimiser": {"kind": "sgd", "learning_rate": 0.5}}}}
    )
    other.run("--cores", "1", f"{OTHER}/spectra.zarr")
    workflow = finished.copy_to(tmp_path / "mixed")
    shutil.rmtree(workflow.root / OTHER)
    shutil.copytree(other.root / OTHER, workflow.root / OTHER)
    done = workflow.snakemake("--cores", "1", "--forcerun", f"{OTHER}/features.zarr")
    assert done.returncode
    lines = complaints(done.stderr)
    assert lines
    for line in lines:  # all jobs that read it
        assert line.startswith(f"featurespace: {OTHER}/")
        assert "is not the file that was made" in line
    record_fault("a run", "it is copied from the same study with other settings", "refused by who reads it")


def lose_all_records(workflow: Workflow) -> None:
    shutil.rmtree(workflow.root / ".snakemake")


def tear_records_of_training(workflow: Workflow) -> None:
    torn = [path for path in (workflow.root / ".snakemake/metadata").rglob("*") if path.is_file()]
    torn = [path for path in torn if json.loads(path.read_bytes())["rule"] == "train_run"]
    assert torn
    for path in torn:
        path.write_bytes(b"")


@pytest.mark.parametrize("lose", [lose_all_records, tear_records_of_training])
def test_an_edit_is_not_missed_where_snakemake_has_lost_its_records(finished, tmp_path, record_fault, lose):
    workflow = finished.copy_to(tmp_path / "lost")
    lose(workflow)
    untouched = workflow.snakemake("-n")
    assert untouched.returncode == 0
    assert not complaints(untouched.stderr)
    workflow.write_study(STUDY | {"recipes": {"mlp": MLP | {"schedule": {"epochs": 3}}}})
    asked = workflow.snakemake("-n")
    (line,) = complaints(asked.stderr)
    assert "were made with other settings" in line
    before = made(workflow)
    done = workflow.snakemake("--cores", "1")
    assert complaints(done.stderr) == [line]
    assert made(workflow) == before
    mending = re.search(r"`(--forcerun [^`]+)`", line)
    assert mending
    arguments = shlex.split(mending[1])
    if lose is tear_records_of_training:
        assert arguments == ["--forcerun", f"{RUN}/weights.json", f"{OTHER}/weights.json"]
    else:
        workflow.run("--cores", "1", "all", *arguments)
        assert not complaints(workflow.snakemake("-n").stderr)
        assert workflow.pending() == set()
        assert max(read_table(workflow.root / RUN / "history.csv")["epoch"]) == 3
    what = "are deleted" if lose is lose_all_records else "of training are torn"
    record_fault("a study", f"Snakemake's records {what}, then it is edited", "one line; the command it gives mends")


def test_what_desktops_leave_among_weights_is_no_damage(kept):
    for folder in (Path(RUN) / "weights/seed-0", Path(RUN) / "features.zarr"):
        (folder / ".DS_Store").write_bytes(b"icons")
    read_weights(RUN)
    read_features(RUN)
    assert not verify().damages


def test_the_command_forces_each_path_once():
    from featurespace.verification import Damage

    damages = [Damage("a", "x"), Damage("b", "y"), Damage("a", "z")]
    assert mending_command(COMMAND, damages) == ".venv/bin/snakemake --forcerun a b --configfile study.yaml"
    assert mending_command(".venv/bin/snakemake", damages[:1]) == ".venv/bin/snakemake --forcerun a"


# --- the state to resume from -----------------------------------------------------------------------------------------


def flip_a_bit(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    rewrite(path, bytes(content))


STATES: dict[str, Callable[[Path], None]] = {
    "it is cut": lambda folder: rewrite(
        folder / "state-0.safetensors", (folder / "state-0.safetensors").read_bytes()[:-9]
    ),
    "a bit of its numbers is flipped": lambda folder: flip_a_bit(folder / "state-0.safetensors", 0.999),
    "a bit of its facts is flipped": lambda folder: flip_a_bit(folder / "state-0.safetensors", 0.2),
    "it is empty": lambda folder: rewrite(folder / "state-0.safetensors", b""),
    "weights it builds on are damaged": lambda folder: flip_a_bit(contents(folder)[0], 0.9),
    "weights it builds on are gone": lambda folder: contents(folder)[0].unlink(),
}


def test_a_damaged_state_is_not_gone_on_from(finished, tmp_path, caplog, record_fault):
    caplog.set_level("INFO")
    spec = Plan(parse_study(STUDY, "study.yaml")).train_run("mlp", 0)
    data = load_dataset(finished.root / DATASET / "dataset.zarr")
    expected = train_block(spec, data, torch.device("cpu"), tmp_path / "whole", save_seconds=0.0)
    weights = {path.name: path.read_bytes() for path in contents(tmp_path / "whole/weights")}
    for fault, damage in STATES.items():
        folder = tmp_path / "again"
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder)
        caplog.clear()
        trained = train_block(spec, data, torch.device("cpu"), folder, save_seconds=0.0)
        assert "training begins anew" in caplog.text, fault
        assert {path.name: path.read_bytes() for path in contents(folder / "weights")} == weights, fault
        assert json.dumps(trained.history) == json.dumps(expected.history), fault
        shutil.rmtree(folder)
        record_fault("state to resume from", fault, "said in the log; training begins anew: same bytes")
    shutil.copytree(tmp_path / "whole", folder)
    caplog.clear()
    train_block(spec, data, torch.device("cpu"), folder, save_seconds=0.0)
    assert "going on from step" in caplog.text


def test_weights_that_are_damaged_before_the_run_ends_are_not_published(finished, tmp_path, record_fault):
    spec = Plan(parse_study(STUDY, "study.yaml")).train_run("mlp", 0)
    data = load_dataset(finished.root / DATASET / "dataset.zarr")
    run = train_block(spec, data, torch.device("cpu"), tmp_path / "resume")
    contents(run.weights)[0].with_name("step-99999999.safetensors").write_bytes(b"nobody's")
    publish(run.weights, tmp_path / "whole", tmp_path / "whole.json", run.facts, run.checksums)
    assert KeptWeights(tmp_path / "whole", tmp_path / "whole.json").steps == run.facts["steps"]["0"]
    kept = {path: path.read_bytes() for path in contents(run.weights)}
    faults: dict[str, Callable[[Path], None]] = {
        "a bit is flipped": lambda path: flip_a_bit(path, 0.5),
        "one is gone": Path.unlink,
    }
    for fault, damage in faults.items():
        damage(contents(run.weights)[-1])
        with pytest.raises(FeaturespaceError, match="is not what training wrote; run again to train it anew"):
            publish(run.weights, tmp_path / "weights", tmp_path / "weights.json", run.facts, run.checksums)
        assert not (tmp_path / "weights").exists()
        assert not (tmp_path / "weights.json").exists()
        for path, content in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        record_fault("weights of a run that is still training", fault, "one line that names the file; trained anew")


def test_a_state_of_other_code_is_not_gone_on_from(tmp_path, record_fault):
    old = resume_folder(tmp_path, torch.device("cpu"), parameters={"widths": [8]}, code={"training.py": "1"})
    (old / "state-0.safetensors").write_bytes(b"of other code")
    new = resume_folder(tmp_path, torch.device("cpu"), parameters={"widths": [8]}, code={"training.py": "2"})
    assert new != old
    assert not old.exists()
    assert not list(new.iterdir())
    record_fault("state to resume from", "it is of other code", "deleted; training begins anew")
