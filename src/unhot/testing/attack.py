"""check_attack(): the contract of every attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from unhot.evaluation.attacks import AttackEntry, catalogue
from unhot.evaluation.metric import Attack, Case, Finding
from unhot.testing.measures import measure_problems, same
from unhot.testing.settings import class_problems, idle_problems, written_problems
from unhot.testing.toy import toy_views


def check_attack(
    attack: str | AttackEntry,
    settings: Attack | None = None,
    alternatives: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Check an attack against its declaration, and that each of its settings matters.

    Its measures must meet the requirements of :func:`unhot.testing.check_metric`.

    Args:
        attack: Its entry, or its name if it is registered.
        settings: An attack whose settings all matter on the toy problem; the defaults if None.
        alternatives: For settings whose other values cannot be guessed from their type and their range: values that
            must change its finding.

    Raises:
        AssertionError: One sentence for each thing that is wrong.
    """
    entry = catalogue.entry(attack) if isinstance(attack, str) else attack
    if problems := list(dict.fromkeys(_problems(entry, settings, alternatives or {}))):
        name = attack if isinstance(attack, str) else getattr(entry.load(), "__name__", "the attack")
        raise AssertionError(f"{name} breaks the contract of an attack:" + "".join(f"\n  - {p}" for p in problems))


def _problems(
    entry: AttackEntry, settings: Attack | None, alternatives: Mapping[str, Sequence[object]]
) -> Iterator[str]:
    cls = entry.load()
    if not (isinstance(cls, type) and issubclass(cls, Attack)):
        yield "Its place names no class of attacks. Name a subclass of Attack."
        return
    if len({m.name for m in entry.measures}) != len(entry.measures) or not entry.measures:
        yield "It must declare at least one measure, and each once."
    if wrong := list(class_problems(cls)):
        yield from wrong
        return
    chosen = settings or cls()
    yield from written_problems(chosen, "settings")
    yield from measure_problems(entry.measures, chosen.run)
    views = toy_views()

    def found(one: Attack) -> Finding | str:
        try:
            return one.run(Case(views, "retrained"))
        except Exception as error:  # another value may be too much for the small problem
            return f"{type(error).__name__}: {error}"

    usual = found(chosen)
    yield from idle_problems(
        chosen, "setting", alternatives, lambda name, value: same(usual, found(chosen.model_copy(update={name: value})))
    )
