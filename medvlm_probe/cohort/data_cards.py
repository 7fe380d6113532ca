"""Data cards: Markdown with YAML front matter that describes a cohort and says how to read it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medvlm_probe.cohort.labels import display_name
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS, UncertaintyPolicy
from medvlm_probe.cohort.recipes import RECIPES
from medvlm_probe.errors import DataCardError, unknown_name

CARD_FILE = "DATA_CARD.md"
"""The card that is honoured where it lies beside a manifest."""

MAX_CARD_BYTES = 1 << 18

Text = Annotated[str, Field(min_length=1)]


class DataCard(BaseModel):
    """What a data card says.

    Attributes:
        name: the cohort's name.
        title: its name for people.
        task: `multi_label` (any labels together) or `single_label` (exactly one an image).
        labels: label columns, snake_case, and their names for people; empty where the manifest decides.
        prompt_template: the sentence that the labels' names are put into for prompts made of names, with one `{}`.
        uncertainty: what a label of -1 becomes.
        importer: how the files are read, a key of `catalog.IMPORTERS`.
        manifest: the manifest's path, relative to the card; None where the importer needs none.
        image_root: the folder that image paths start from, relative to the card and inside its folder.
        recipe: how image files become pixels, a key of `recipes.RECIPES`; None takes what their names ask for.
        split: split names and what each is for.
        same_as: published data sets that the images come from, where the card's own name does not say so: `NAME`, or
            `NAME/PART` where all come from that part of it. A model's declared training data is held against them.
        licence, citation, access: how the data may be used, how it is cited, where it is got.
        known_traps: what misleads those who use it, a sentence each.
        body: the Markdown below the front matter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    title: str = ""
    task: Literal["multi_label", "single_label"] = "multi_label"
    labels: dict[str, Text] = {}
    prompt_template: str | None = None
    uncertainty: UncertaintyPolicy = "ignore"
    importer: Text = "manifest"
    manifest: Text | None = None
    image_root: Text = "."
    recipe: str | None = None
    split: dict[str, Text] = {}
    same_as: list[Text] = []
    licence: Text = "not stated"
    citation: Text = "not stated"
    access: Text = "not stated"
    known_traps: list[Text] = []
    body: str = ""

    @field_validator("labels")
    @classmethod
    def _label_names(cls, labels: dict[str, str]) -> dict[str, str]:
        for label in labels:
            if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", label) or label in MANIFEST_COLUMNS:
                raise ValueError(
                    f"'{label}' is no label name: write it in snake_case, and none of {', '.join(MANIFEST_COLUMNS)}"
                )
        return labels

    @field_validator("prompt_template")
    @classmethod
    def _one_place(cls, template: str | None) -> str | None:
        if template is not None and template.count("{}") != 1:
            raise ValueError("a template needs exactly one '{}'")
        return template

    @field_validator("manifest", "image_root")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        if path is None:
            return None
        parts = PurePosixPath(path).parts
        if path.startswith(("/", "~")) or "\\" in path or re.match(r"[A-Za-z]:", path) or ".." in parts:
            raise ValueError("the path must be relative to the card and stay inside its folder")
        return path

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, recipe: str | None) -> str | None:
        if recipe is not None and recipe not in RECIPES:
            raise ValueError(str(unknown_name("recipe", recipe, RECIPES)).removesuffix("."))
        return recipe

    def words(self, label: str) -> str:
        """Return a label as people read it: the card's own words, else the label's."""
        return self.labels.get(label) or display_name(label)


def read_card(path: Path) -> DataCard:
    """Read a data card.

    Raises:
        DataCardError: no such file, no front matter, or a field that is unknown, missing or wrong.
    """
    if not path.is_file():
        raise DataCardError(f"There is no data card '{path}'. Check the path.")
    if path.stat().st_size > MAX_CARD_BYTES:
        raise DataCardError(f"'{path}' is larger than {MAX_CARD_BYTES:,} bytes, which is no data card.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataCardError(f"Cannot read the data card '{path}' as UTF-8 text.") from error
    return parse_card(text, path.name)


def parse_card(text: str, source: str) -> DataCard:
    """Return the card that `text` holds; `source` names it in errors (DataCardError)."""
    import yaml

    match = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)(.*)", text, flags=re.DOTALL | re.MULTILINE)
    if match is None:
        raise DataCardError(
            f"{source} has no front matter. Begin with '---', YAML fields, and '---' on a line of its own."
        )
    try:
        fields = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, brackets by the thousand
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 2}" if mark is not None else ""
        raise DataCardError(
            f"{source}: the front matter is no valid YAML{where}. Quote text that holds colons."
        ) from error
    if not isinstance(fields, dict):
        raise DataCardError(f"{source}: the front matter must be YAML fields ('name: ...').")
    known = set(DataCard.model_fields) - {"body"}
    for field in fields:
        if field not in known:
            raise DataCardError(f"{source}: {unknown_name('field', str(field), known)}")
    try:
        return DataCard(**fields, body=match.group(2).strip())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataCardError(f"{source}: field '{field}': {first['msg'].removeprefix('Value error, ')}.") from error
