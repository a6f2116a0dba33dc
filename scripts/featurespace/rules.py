"""What a table of decision rules says of itself: whose claims it is about, its rows, and the tags of its sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

RULES = Path(__file__).parent / "decision_rules"


@dataclass(frozen=True)
class Headings:
    """What a reader of a ledger needs to know: its title, what its rows are about, what the tags of sources mean."""

    title: str
    rows: Mapping[str, str]
    tags: Mapping[str, str]


@cache
def headings_of(ledger: str) -> Headings:
    """Read the headings of a ledger from `decision_rules/<ledger>.yaml`."""
    content = yaml.safe_load((RULES / f"{ledger}.yaml").read_text(encoding="utf-8"))
    return Headings(content["title"], content["rows"], content["tags"])
