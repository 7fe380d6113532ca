"""Prompt sets: the texts that stand for a label's presence and absence, as data (TOML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.runs import parse_toml
from medvlm_probe.zero_shot.tuned_prompts import TunedPrompts, read_tuned_prompts

FOLDER = Path(__file__).parent / "prompt_sets"
MAX_BYTES = 1 << 20
TUNED = "tuned:"
_FIELDS = {"title", "provenance", "templates", "labels"}
_LABEL_FIELDS = {"positive", "negative", "templates"}


@dataclass(frozen=True)
class LabelPrompts:
    """The texts of one label, templates filled in; `negative` is empty where the set has none."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """A named set of prompts.

    Attributes:
        name: the file's stem; what `--prompts` takes for the sets that come with the tool.
        title: what it is, in one line.
        provenance: where the wording comes from.
        labels: label (snake_case) to its texts.
        tuned: the context vectors that stand beside these texts; None for plain texts.
    """

    name: str
    title: str
    provenance: str
    labels: Mapping[str, LabelPrompts]
    tuned: TunedPrompts | None = None

    @property
    def has_negatives(self) -> bool:
        """Whether every label has texts for its absence, as logits and probabilities need."""
        return all(prompts.negative for prompts in self.labels.values())

    def select(self, labels: Sequence[str]) -> PromptSet:
        """Return the set with these labels alone, in this order; raises InputError for labels without prompts."""
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise InputError(
                f"Prompt set '{self.name}' has no prompts for {', '.join(missing)}. Leave these labels out with "
                "--label, or write a prompt set with them (--prompts FILE.toml; 'prompts show' prints one as a start)."
            )
        return replace(self, labels={label: self.labels[label] for label in labels})


def shipped_prompt_sets() -> dict[str, Path]:
    """Return the sets that come with the tool, name to file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_prompts(spec: str) -> PromptSet:
    """Return a prompt set: the name of a shipped one, a TOML file, or `tuned:FOLDER` (see `tuned_prompts`).

    The file has `title`, `provenance`, `templates` (texts with one "{}", by default "{}" alone) and, under `labels`, a
    table for each label with `positive`, optional `negative` and optional `templates` of its own. Every template takes
    every phrase.

    Raises:
        UnknownNameError: no such set.
        InputError: the file cannot be read, or a field is unknown, missing or of another kind.
        ModelError: a folder of tuned prompts that is damaged.
    """
    if spec.startswith(TUNED):
        return prompts_of_tuned(read_tuned_prompts(Path(spec.removeprefix(TUNED))))
    shipped = shipped_prompt_sets()
    if spec in shipped:
        return _read(shipped[spec])
    if not spec.endswith(".toml"):
        raise unknown_name("prompt set", spec, [*shipped, "FILE.toml", "tuned:FOLDER"])
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"There is no prompt file '{path}'. Check the path.")
    return _read(path)


def prompts_of_names(words: Mapping[str, str], templates: Sequence[str] = ("{}",)) -> PromptSet:
    """Return prompts that are the labels' names for people, without negatives: what is left for labels of one's own."""
    filled = {label: LabelPrompts(_filled(templates, [name])) for label, name in words.items()}
    return PromptSet("names", "The labels' own names", "Made from the data card's names for people.", filled)


def prompts_of_tuned(tuned: TunedPrompts) -> PromptSet:
    """Return tuned prompts as a set: the texts that their context vectors stand beside."""
    negative = tuned.negative or ("",) * len(tuned.labels)
    texts = zip(tuned.labels, tuned.positive, negative, strict=True)
    return PromptSet(
        name="tuned",
        title=f"{tuned.context.shape[1]} context vectors tuned for {tuned.model_name}",
        provenance="Learned from images with labels; the folder's card says from which.",
        labels={label: LabelPrompts((present,), (absent,) if absent else ()) for label, present, absent in texts},
        tuned=tuned,
    )


def _read(path: Path) -> PromptSet:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"'{path}' is larger than {MAX_BYTES:,} bytes, which is no prompt set.")
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is no valid TOML: {error}.") from error
    _known(path.name, content, _FIELDS)
    tables = content.get("labels")
    if not isinstance(tables, dict) or not tables:
        raise InputError(f"{path.name} has no labels: write [labels.NAME] with positive = [...].")
    templates = _templates(path.name, content.get("templates", ["{}"]))
    return PromptSet(
        name=path.stem,
        title=str(content.get("title", path.stem)),
        provenance=str(content.get("provenance", "not stated")),
        labels={label: _label(f"{path.name}, label {label}", table, templates) for label, table in tables.items()},
    )


def _label(where: str, table: Any, templates: Sequence[str]) -> LabelPrompts:
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a table with positive = [...].")
    _known(where, table, _LABEL_FIELDS)
    own = _templates(where, table["templates"]) if "templates" in table else templates
    positive, negative = _texts(where, table.get("positive", [])), _texts(where, table.get("negative", []))
    if not positive:
        raise InputError(f"{where}: positive is empty; give at least one text.")
    return LabelPrompts(_filled(own, positive), _filled(own, negative))


def _filled(templates: Sequence[str], phrases: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(template.replace("{}", phrase) for phrase in phrases for template in templates))


def _texts(where: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise InputError(f"{where}: expected a list of texts, got {value!r}.")
    return value


def _templates(where: str, value: Any) -> list[str]:
    templates = _texts(where, value)
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise InputError(f"{where}: each template needs exactly one '{{}}', got {wrong or templates}.")
    return templates


def _known(where: str, table: Mapping[str, Any], fields: set[str]) -> None:
    for field in table:
        if field not in fields:
            raise InputError(f"{where}: {unknown_name('field', field, fields)}")
