"""The page of the Python interface: every name of ``unhot.__all__``, described by its docstring."""

from __future__ import annotations

import unhot

SECTIONS = {
    "Models": ("load", "save", "build", "train", "partial_reference", "export", "Classifier", "InputSpec"),
    "Images": (
        *("draw", "folder", "load_named", "load_source", "unlabelled"),
        *("Samples", "LabelledImages", "Source", "Unlabelled", "LabelMap"),
    ),
    "Forget": ("forget", "ForgetResult", "diagnose", "ClassStatistics", "methods"),
    "Audit": ("audit", "Auditor", "Audit", "Measurement", "Thresholds"),
    "Write a method": ("method", "Method", "Outcome", "Data", "Batch", "Use", "Runtime", "testing"),
    "Errors and warnings": ("UnhotError", "UnhotWarning", "errors"),
}
MODULES = {
    "methods": ("get", "default", "catalogue"),
    "testing": ("check_method", "check_metric", "check_attack"),
}


def page() -> str:
    """Return what `make docs` adds to the page.

    Raises:
        ValueError: It lacks a public name, or has one that is not public.
    """
    named = [name for names in SECTIONS.values() for name in names]
    if sorted(named) != sorted(unhot.__all__):
        raise ValueError(f"docs/pages/api.py and unhot.__all__ differ: {set(named) ^ set(unhot.__all__)}")
    text = []
    for title, names in SECTIONS.items():
        text.append(f"## {title}\n")
        text += [_entry(name) for name in names]
    return "\n".join(text)


def _entry(name: str) -> str:
    """Return the directive of mkdocstrings for a name; of a module, for what it has."""
    lines = [f"::: unhot.{name}", "    options:", "      heading_level: 3"]
    if name in MODULES:
        lines += ["      members:", *(f"        - {member}" for member in MODULES[name])]
    return "\n".join(lines) + "\n"
