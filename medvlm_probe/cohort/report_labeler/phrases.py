"""The small language that the rules' phrases are written in, compiled to regular expressions.

A phrase is words with single spaces between them. `opacit*` takes any ending, `line(s)` is one or several, `(a|b)` one
of several, `[word]` or `[a|b]` may be missing, and `...` stands for up to six words between, none of them a mark.
Everything is lower case; a phrase begins and ends at the edge of a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medvlm_probe.errors import InputError

_WORD = r"[a-z0-9'%·-]+(?:\*|\(s\)|\(es\))?|[,;:/]"
_SEVERAL = rf"(?:{_WORD})(?: (?:{_WORD}))*(?:\|(?:{_WORD})(?: (?:{_WORD}))*)*"
_PIECE = re.compile(rf"\.\.\.|\({_SEVERAL}\)|\[{_SEVERAL}\]|{_WORD}")
_GAP = r"(?: [^ ,;:/]+){0,6}?"
_NEVER = re.compile(r"(?!)")


def compile_phrases(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return one expression that finds any of the phrases in a sentence of `SentenceReader.normalised`.

    Raises:
        InputError: a phrase that is not written as above.
    """
    longest_first = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    if not longest_first:
        return _NEVER
    return re.compile(r"(?<![^ ])(?:" + "|".join(map(_expression, longest_first)) + r")(?![^ ])")


def _expression(phrase: str) -> str:
    pieces = _PIECE.findall(phrase)
    if not pieces or " ".join(pieces) != phrase:
        raise InputError(
            f"The phrase '{phrase}' is not written as phrases are: words, opacit*, line(s), (a|b), [a|b] and ' ... '."
        )
    if any(not re.match(r"[a-z0-9(,;:/]", piece) for piece in (pieces[0], pieces[-1])):
        raise InputError(f"The phrase '{phrase}' must begin and end with a word, not with '...' or '[...]'.")
    out = ""
    for position, piece in enumerate(pieces):
        if piece == "...":
            out += _GAP
        elif piece.startswith("["):
            out += f"(?: {_words(piece)})?"
        else:
            out += (" " if position else "") + _words(piece)
    return out


def _words(piece: str) -> str:
    """Return a word, or a group of alternatives, as an expression."""
    plural = re.sub(r"(?<=.)\((e?s)\)", r"(?:\1)?", piece.replace("[", "(").replace("]", ")"))
    return re.sub(r"^\((?!\?)", "(?:", plural).replace("*", r"[^ ,;:/]*")
