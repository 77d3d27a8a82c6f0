r"""Docstrings for a terminal: their markup taken away, and their formulas in Unicode.

The formulas are those of the methods. Of TeX they use fractions, sub- and superscripts, names of operators and the
symbols below; what else one may hold is shown as it is written.
"""

from __future__ import annotations

import re

BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # braces in braces in braces
SYMBOLS = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "mu": "μ"},
    **{"lambda": "λ", "nu": "ν", "xi": "ξ", "phi": "φ", "rho": "ρ", "sigma": "σ", "tau": "τ"},
    **{"pi": "π", "chi": "χ", "psi": "ψ", "omega": "ω", "Delta": "Δ", "Sigma": "Σ"},
    **{"leftarrow": "←", "in": "∈", "notin": "∉", "ge": "≥", "ne": "≠", "sim": "~", "odot": "⊙", "top": "ᵀ"},
    **{"lVert": "‖", "rVert": "‖", "Vert": "‖", "lvert": "|", "rvert": "|", "ell": "ℓ", "nabla": "∇", "partial": "∂"},
    **{"sum": "Σ", "infty": "∞", "min": "min", "max": "max", "cos": "cos", "quad": "\n", "qquad": "\n"},
    **{"left": "", "right": "", "textstyle": ""},
}
ACCENTS = {"tilde": "\u0303", "hat": "\u0302"}
RAISED = {"2": "²", "{-1}": "⁻¹", "ᵀ": "ᵀ"}


def plain(text: str) -> str:
    """Return a docstring of a method without its markup; its attributes are the hyperparameters."""
    text = re.sub(r"^( *)\.\. math::\n((?:\1 +.*\n)+)", _block, f"{text}\n", flags=re.M)
    text = re.sub(r"^Attributes:$", "Hyperparameters:", text, flags=re.M)
    text = re.sub(r":math:`([^`]*)` ?", _inline, text)
    text = re.sub(r":[a-z]+:`~?([^`]*)`", r"\1", text)
    return text.replace("``", "").removesuffix("\n")


def formula(tex: str) -> str:
    """Return a formula, each of its parts in a line."""
    tex = re.sub(r"\\\\", "\n", " ".join(tex.split()))
    tex = re.sub(r"\\operatorname\*?" + BRACED + r"(?= *(?:\\left)?[(_])", r" \1", tex)
    tex = re.sub(r"\\(?:operatorname\*?|text|mathbf|mathbb)" + BRACED, r" \1 ", tex)
    tex = re.sub(r"\\mathcal (\w)", r"\1", tex)
    tex = re.sub(r"\\(tilde|hat) ?(\w)", lambda found: found[2] + ACCENTS[found[1]], tex)
    while (shorter := re.sub(rf"\\frac ?{BRACED} ?{BRACED}", _fraction, tex)) != tex:
        tex = shorter
    tex = re.sub(r"\\([a-zA-Z]+)", lambda found: SYMBOLS.get(found[1], found[0]), tex)
    tex = re.sub(r"\^ ?(2|ᵀ|\{-1\})", lambda found: RAISED[found[1]], tex)
    tex = re.sub(rf"([_^]){BRACED}", lambda found: found[1] + _grouped(found[2].strip()), tex)
    tex = re.sub(r"\\[,;! ]", " ", tex).replace("\\{", "{").replace("\\}", "}")
    tex = re.sub(r"([(\[_^]) +| +(?=[,;)\]_²⁻])", r"\1", tex)
    return "\n".join(" ".join(line.split()).rstrip(",") for line in tex.split("\n") if line.strip())


def _inline(found: re.Match[str]) -> str:
    """Return a formula in a sentence, and the end of the line that was in it."""
    space = "\n" if "\n" in found[1] else " " if found[0].endswith(" ") else ""
    return " ".join(formula(found[1]).split()) + space


def _block(found: re.Match[str]) -> str:
    return "".join(f"{found[1]}    {line}\n" for line in formula(found[2]).split("\n"))


def _fraction(found: re.Match[str]) -> str:
    return f" {_grouped(found[1].strip())} / {_grouped(found[2].strip())} "


def _grouped(part: str) -> str:
    """Put parentheses around more than a name, a number or a function of one."""
    return part if re.fullmatch(r"[\w']+(\(\w+\))?", part) else f"({part})"
