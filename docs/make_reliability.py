"""Put what the tests of faults noted into the table of docs/reliability.md: python docs/make_reliability.py NOTES."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = ("where", "fault", "tried", "lost", "what a user sees")


def table(notes: Iterable[dict[str, Any]]) -> str:
    """Lay out the notes as Markdown: one line for each place, fault and outcome, its numbers added up."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for note in notes:
        counts = sums.setdefault((note["where"], note["fault"], note["outcome"]), [0, 0])
        counts[0] += note["times"]
        counts[1] += note["lost"]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|---|---|"]
    for (where, fault, outcome), (tried, lost) in sorted(sums.items()):
        lines.append(f"| {where} | {fault} | {tried} | {lost or 'nothing'} | {outcome} |")
    total, lost_in_all = (sum(counts[i] for counts in sums.values()) for i in range(2))
    return "\n".join(lines) + f"\n\nIn all: {total} faults, lost: {lost_in_all or 'nothing'}.\n"


def main(path: str) -> None:
    """Replace the table in the page."""
    notes = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(notes)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
