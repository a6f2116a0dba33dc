"""The one exception whose message is meant for the person who runs the study."""


class FeaturespaceError(Exception):
    """A failure that its message explains completely: one line that says what is wrong and what to do."""
