"""Two study files of one name: the results of one would replace those of the other."""

from pathlib import Path

import yaml

from featurespace.files import write_text_atomically
from featurespace.made import NOTES

_STUDY_FILE = "study-file"


def note_study_file(study: str, file: str) -> None:
    """Write down which file a study's results are made from."""
    write_text_atomically(Path("results", study, NOTES, _STUDY_FILE), file)


def namesake(study: str, file: str) -> str | None:
    """Find another study file that says it is of the same name, and that the results were last made from.

    Returns
    -------
    str or None
        Its path. None if it says the same as this one, is called otherwise by now, or is gone; of the copy of the study
        among the results too.
    """
    try:
        last = Path("results", study, NOTES, _STUDY_FILE).read_text("utf-8")
        own = f"results/{study}/study.yaml"
        if own in (file, last) or file == last:
            return None
        theirs, ours = (yaml.safe_load(Path(path).read_text("utf-8")) for path in (last, file))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return last if isinstance(theirs, dict) and theirs.get("study") == study and theirs != ours else None
