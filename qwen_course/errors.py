"""Words that error messages share."""

import difflib
from collections.abc import Iterable


def suggest(name: str, options: Iterable[str]) -> str:
    """Return a sentence that names the nearest option, or an empty string.

    >>> suggest("nf5", ["fp32", "nf4"])
    ' Did you mean "nf4"?'
    """
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f' Did you mean "{by_lower[near[0]]}"?' if near else ""
