"""Texts as numbers: posts from an archive's members, what is left out of them, and rows of TF-IDF."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from featurespace.errors import FeaturespaceError

# The terms that count, as in scikit-learn's own example of classifying these posts: in five posts at least, and in
# no more than half of them.
MIN_POSTS = 5
MAX_SHARE = 0.5

_QUOTED = re.compile(r"^[>|]|^In article|^Quoted from|writes in|writes:|wrote:|says:|said:")


def parse_posts(members: Mapping[str, bytes], folder: str) -> tuple[list[str], list[str]]:
    """Take the posts of one folder, members named `<folder>/<group>/<number>`, in the order of group and number.

    Parameters
    ----------
    members
        {name: content}; content that is not of this folder, or not named so, is passed over.
    folder
        Without its slash.

    Returns
    -------
    groups : list of str
        Of each post.
    texts : list of str
        Decoded as Latin-1, which has a letter for every byte: nothing is lost, and nothing can fail.
    """
    pattern = re.compile(rf"{re.escape(folder)}/([^/]+)/(\d+)")
    matches = [match for name in members if (match := pattern.fullmatch(name))]
    matches.sort(key=lambda match: (match[1], int(match[2]), match[2]))
    return [match[1] for match in matches], [members[match[0]].decode("latin-1") for match in matches]


# --- what gives a post away ---------------------------------------------------------------------------------------


def strip_post(text: str) -> str:
    """Leave out of a post what tells its group without being about it: headers, then a footer, then quotes.

    The same texts remain as from scikit-learn's `fetch_20newsgroups(remove=("headers", "footers", "quotes"))`.
    """
    return without_quotes(without_footer(without_headers(text)))


def without_headers(text: str) -> str:
    """Return what follows the first empty line; nothing if there is none."""
    return text.partition("\n\n")[2]


def without_footer(text: str) -> str:
    """Return what comes before the last line that is blank or only of hyphens, blank ends of the text apart.

    A text without such a line, or that begins with it, stays as it is.
    """
    lines = text.strip().split("\n")
    rules = [i for i, line in enumerate(lines) if not line.strip().strip("-")]
    return "\n".join(lines[: rules[-1]]) if rules and rules[-1] > 0 else text


def without_quotes(text: str) -> str:
    """Return a text without the lines that quote (`>`, `|`) or announce a quotation (`writes:`, `In article`, ...)."""
    return "\n".join(line for line in text.split("\n") if not _QUOTED.search(line))


# --- features -----------------------------------------------------------------------------------------------------


def tfidf_rows(texts: Sequence[str], is_training: np.ndarray, n_features: int) -> tuple[np.ndarray, list[str]]:
    """Turn texts into rows of TF-IDF, with terms and their weights from the training texts alone.

    Of the words, in lower case, of two letters, digits or underscores and more that are no English stop words, and that
    occur in at least `MIN_POSTS` of the training texts and in no more than `MAX_SHARE` of them, the most frequent ones
    count. An entry is (1 + log tf) (1 + log((1 + n) / (1 + df))), and rows have length one (scikit-learn's
    `TfidfVectorizer`, `sublinear_tf=True`).

    Parameters
    ----------
    texts
        n of them.
    is_training
        (n,) bool.
    n_features
        d, how many terms count.

    Returns
    -------
    values : np.ndarray
        (n, d) float32. A text without any of the terms, such as one that is empty, is a row of zeros.
    terms : list of str
        By column, in the alphabet's order.

    Raises
    ------
    FeaturespaceError
        If fewer terms than that occur often enough.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        min_df=MIN_POSTS,
        max_df=MAX_SHARE,
        max_features=n_features,
        stop_words="english",
        dtype=np.float32,
    )
    training = [text for text, is_one in zip(texts, is_training, strict=True) if is_one]
    try:
        vectorizer.fit(training)
        terms = vectorizer.get_feature_names_out().tolist()
    except ValueError:  # scikit-learn's word for no terms at all
        terms = []
    if len(terms) < n_features:
        raise FeaturespaceError(
            f"features: only {len(terms)} terms, not {n_features}, occur in at least {MIN_POSTS} and at most "
            f"{MAX_SHARE:.0%} of the {len(training)} training texts; lower features, or raise train_limit"
        )
    return vectorizer.transform(texts).toarray(), terms
