"""What every page shares: one HTML file, nothing loaded, nothing run, every value escaped and freed of file paths."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from medvlm_probe import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STYLE_FILE = "page.css"
PATH_MARK = "[path]"

_PATHS = re.compile(
    r"""
    file:/*[^\s"'<>|]+
    | (?<![\w\\])(?:[A-Za-z]:[\\/]|\\\\)[^\s"'<>|]+
    | (?<![\w/<.~])(?:~|\.{1,2})?/[^\s/"'<>|]+/[^\s"'<>|]*
    | (?<![\w/<.-])(?:~|\.{1,2})?/?(?:[\w.-]+[/\\])*[\w.-]+
      \.(?:csv|tsv|parquet|json|toml|ya?ml|md|txt|png|jpe?g|tiff?|dcm|dicom|npy|npz|arrow|safetensors|pt|bin)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def render(template: str, **values: Any) -> str:
    """Return a page made of a template of this package.

    The page is one file: its style sheet is inside, and its content policy allows that sheet by its hash, images
    that are part of the file, and nothing else, scripts included.

    Args:
        template: the file's name in `templates/`.
        values: what the template prints. Text is escaped; only `Markup` goes through as it is.

    Raises:
        jinja2.UndefinedError: the template prints a value that was not given.
    """
    css = style_sheet()
    page = _environment().get_template(template)
    return page.render(css=Markup(css), policy=content_policy(css), version=__version__, **values)


def style_sheet() -> str:
    """Return the style sheet of every page."""
    return (TEMPLATES / STYLE_FILE).read_text(encoding="utf-8")


def content_policy(css: str) -> str:
    """Return the content security policy of a page with this style sheet."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def without_paths(text: str) -> str:
    """Return text with what looks like a file's path replaced by `[path]`.

    A net below everything that a page prints: results hold no paths, but messages that they quote may. Absolute paths,
    paths from the home or the present folder, addresses of files, and names of data files are found; a path with
    spaces is found up to the first one.
    """
    return _PATHS.sub(PATH_MARK, text)


def _printed(value: Any) -> Any:
    return without_paths(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
