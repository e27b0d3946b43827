"""Why a bench ends without figures."""


class Unfit(Exception):
    """Something is not there, did not start, or ended by itself. The message is for the one at the desk."""


class Unbalanced(Exception):
    """The books of a run contradict each other: its figures mean nothing, and none are reported."""
