"""The messages of src: what is raised, warned of or collected as a problem, in one file in which to read them.

make messages    writes tests/golden/messages.txt anew (python tests/messages.py)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
GOLDEN = Path(__file__).parent / "golden" / "messages.txt"
LISTS = {"problems", "said", "found", "left"}  # what collects sentences


def text(node: ast.expr) -> str:
    """Return the text of an expression, what is computed in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        how = f":{text(node.format_spec)}" if node.format_spec else ""
        how = f"!{chr(node.conversion)}{how}" if node.conversion > 0 else how
        return "{" + ast.unparse(node.value) + how + "}"
    return "{" + ast.unparse(node) + "}"


def sentences(node: ast.AST) -> Iterator[str]:
    """Give the texts in an expression that are longer than a word; an f-string is one text."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        if " " in text(node).strip():
            yield text(node)
        return
    for child in ast.iter_child_nodes(node):
        yield from sentences(child)


def called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def kind(node: ast.AST, function: str) -> str:
    """Return what a statement or call does with its texts; nothing if it is not to say what is wrong."""
    if isinstance(node, ast.Call):
        name = called(node.func)
        if name.endswith(("Error", "Warning")) or name in ("NotMeasurable", "raise_all", "warn", "BadParameter"):
            return name
        if name in ("append", "extend") and isinstance(node.func, ast.Attribute):
            return "problem" if called(node.func.value) in LISTS else ""
    if isinstance(node, ast.AugAssign) and called(node.target) in LISTS:
        return "problem"
    if isinstance(node, ast.Assign) and called(node.targets[0]) in ("message", "problem", "problems", "reason", "hint"):
        return "problem"
    checks = "problem" in function or function.lstrip("_").startswith("check")
    return "problem" if checks and isinstance(node, ast.Return | ast.Yield) else ""


def walk(node: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """Give kind and text of every message in a tree, in order."""
    for child in ast.iter_child_nodes(node):
        name = child.name if isinstance(child, ast.FunctionDef) else function
        if what := kind(child, name):
            yield from ((what, said) for said in sentences(child))
        else:
            yield from walk(child, name)


def messages() -> str:
    """Return the messages of all files."""
    lines = []
    for path in sorted(SRC.rglob("*.py")):
        found = [f"  {what}: {said!r}" for what, said in walk(ast.parse(path.read_text()))]
        lines += [str(path.relative_to(SRC)), *found] if found else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(messages())
