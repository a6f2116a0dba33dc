"""Print a table of benchmarks, and write it: python -m benchmarks [bench | large | gpu | scaling].

With `--update` the page docs/performance.md takes the table in as well.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from benchmarks import (
    gpu_rows,
    large_rows,
    measures_rows,
    recording_rows,
    scaling_rows,
    spectra_rows,
    stage_rows,
    study_rows,
)
from benchmarks import training_rows as training
from benchmarks.real_data import ROOT, Features, find_fashion, load_fashion
from benchmarks.stages import Stages
from benchmarks.table import Row, as_markdown, include_table, machine, write_tables
from featurespace.datasets import PreparedDataset
from featurespace.device import keep_freed_memory, set_exact_arithmetic
from featurespace.errors import FeaturespaceError

PAGE = ROOT / "docs" / "performance.md"


@dataclass
class Bench:
    """What the rows are made with: real data, and sizes, which are the smallest ones if it is to be `quick`."""

    published: Path
    kept: Path  # trained networks, from one run to the next
    scratch: Path
    quick: bool = False
    bests: spectra_rows.Bests = field(default_factory=dict)

    @cached_property
    def dataset(self) -> PreparedDataset:
        """Fashion-MNIST, all of it."""
        return load_fashion(self.published)

    @cached_property
    def features(self) -> Features:
        """Features of networks at consecutive steps."""
        return Features(self.dataset, self.kept, *((240, 3) if self.quick else ()))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Of the matrices that are decomposed."""
        return ((300, 16), (200, 32)) if self.quick else spectra_rows.SHAPES

    @cached_property
    def stages(self) -> Stages:
        """A trained network whose features are about to be dumped."""
        sizes = (400, 16, 3) if self.quick else ()
        return stage_rows.stages_of(self.features, self.scratch / "long", self.published, *sizes)

    @cached_property
    def dumped(self) -> Stages:
        """The same, dumped."""
        if not Path(self.stages.path("features.zarr", self.stages.run_of(stage_rows.RECIPE))).exists():
            self.stages.dump_features(stage_rows.RECIPE)
        return self.stages

    @cached_property
    def short(self) -> Stages:
        """A quarter as many steps, dumped."""
        sizes = (400, 16, 2) if self.quick else (stage_rows.N_SAMPLES, stage_rows.WIDTH, 5)
        stages = stage_rows.stages_of(self.features, self.scratch / "short", self.published, *sizes)
        stages.dump_features(stage_rows.RECIPE)
        return stages

    def rows(self, table: str) -> dict[str, Callable[[], Iterator[Row]]]:
        """Return what makes the rows of a table, by a short name, in the order of the table."""
        quick = self.quick
        once = 1 if quick else 2
        tables: dict[str, dict[str, Callable[[], Iterator[Row]]]] = {
            "bench": {
                "matrix": lambda: spectra_rows.one_matrix(self.features, self.shapes, self.bests),
                "steps": lambda: spectra_rows.consecutive_steps(self.features, self.shapes, self.bests),
                "stage": lambda: stage_rows.whole_stage(self.dumped, once),
                "memory": lambda: stage_rows.memory(self.dumped, self.short),
                "dumping": lambda: stage_rows.dumping(self.stages, once),
                "training": lambda: training.against_a_plain_loop(self.dataset, *((400, 1, 1) if quick else ())),
                "block": lambda: training.seeds_together(self.dataset, *((400, 1, 1, 2) if quick else ())),
                "recording": lambda: recording_rows.recording(
                    self.dataset, self.scratch, *((400, 100, 1, 1) if quick else ())
                ),
                "study": lambda: study_rows.default_study(self.scratch / "study"),
                "stale": study_rows.nothing_stale,
                "measures": lambda: measures_rows.measures(self.features, *((300, 16, 1) if quick else ())),
            },
            "large": {
                "large": lambda: large_rows.beyond_memory(self.features, self.scratch, *((2_000, 16) if quick else ())),
            },
            "gpu": gpu_rows.on_the_gpu(self.features, self.published, self.scratch / "gpu", quick)
            if table == "gpu"
            else {},
            "scaling": {"scaling": lambda: scaling_rows.scaling(self.published, self.scratch / "scaling", quick)},
        }
        if quick:  # the real Snakemake is never quick
            del tables["bench"]["study"], tables["bench"]["stale"]
        return tables[table]


def main(arguments: list[str] | None = None) -> int:
    """Run a table's rows, printing each as it comes."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("table", nargs="?", default="bench", choices=["bench", "large", "gpu", "scaling"])
    parser.add_argument("--rows", nargs="*", help="only these, by their short names")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once: to see that it works")
    parser.add_argument("--data", help="the folder of Fashion-MNIST's published files")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench", help="where the tables are written")
    parser.add_argument("--scratch", type=Path, help="a folder for stores, on the disk that is to be measured")
    parser.add_argument("--update", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    set_exact_arithmetic()  # as every job does
    keep_freed_memory()
    started = time.monotonic()
    table: list[Row] = []
    try:
        published = find_fashion(options.data)
        kept = Path(tempfile.gettempdir()) / f"featurespace-bench-{os.getuid()}"
        with tempfile.TemporaryDirectory(dir=options.scratch, prefix="featurespace-bench-") as scratch:
            bench = Bench(published, kept, Path(scratch), options.quick)
            makers = bench.rows(options.table)
            wanted = options.rows or list(makers)
            if unknown := set(wanted) - makers.keys():
                parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
            for name in wanted:
                began = time.monotonic()
                for row in makers[name]():
                    table.append(row)
                    print(_line(row), flush=True)
                print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
                write_tables(options.out, options.table, table)  # all rows so far, should the rest not come to its end
    except FeaturespaceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if options.update:
        include_table(PAGE, options.table, as_markdown(table, machine()))
    print(f"{time.monotonic() - started:.0f} s; the table: {options.out / options.table}.md and .csv")
    return 0


def _line(row: Row) -> str:
    cells = row.cells()
    numbers = f"ours {cells['ours']:>7} {row.unit}  other {cells['other']:>7} {row.unit}  ratio {cells['ratio']:>6}"
    goal = f"{cells['target']:>6} {'met' if row.met == 'yes' else 'NOT MET' if row.met else '':8}"
    return f"{row.row:34} {row.case:42} {numbers}  {goal} {row.against}{'; ' if row.note else ''}{row.note}"


if __name__ == "__main__":
    sys.exit(main())
