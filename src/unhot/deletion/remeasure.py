"""Measuring again: what a new audit of the models of a record says, beside what the record says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unhot.deletion.verify import Check
from unhot.errors import InputError, shortened
from unhot.evaluation.attacks import catalogue as attacks
from unhot.records.audit import AuditRecord, Measurement
from unhot.records.deletion import DeletionRecord, Evidence
from unhot.records.measure import Split

ROUNDING = 1e-4  # another machine takes sums in another order, and some intervals have no width


class _Pair(NamedTuple):
    """A value of a record, and the one that was measured now; None where it was not."""

    recorded: Measurement
    now: Measurement | None

    def agree(self, same_images: bool) -> bool:
        """Whether the value is within the recorded interval or, of other images, the two intervals overlap."""
        old, new = self.recorded, self.now
        if new is None or None in (old.low, old.high, new.value, new.low, new.high):
            return False
        low, high = (new.value, new.value) if same_images else (new.low, new.high)
        return (old.low or 0) - ROUNDING <= (high or 0) and (low or 0) <= (old.high or 0) + ROUNDING

    def text(self) -> str:
        """Say what differs."""
        old, new = self.recorded, self.now
        what = old.subject if old.split in (None, "test") else f"{old.subject}, {old.split} images"
        now = "not measured" if new is None or new.value is None else f"{new.value:.4f}"
        return f"{what}: {now}, in the record {old.value:.4f} [{old.low:.4f}, {old.high:.4f}]"


def evidence_against(record: DeletionRecord, original_sha256: str) -> Evidence:
    """Return what the first audit of a record says that compares with a model.

    Raises:
        InputError: None does.
    """
    found = next((e for e in record.evidence if e.original_sha256 == original_sha256), None)
    if found is None:
        known = shortened(dict.fromkeys(e.original_sha256[:12] for e in record.evidence))
        raise InputError(
            f"No audit of the record compares with the model {original_sha256[:12]}. Give as --original the one whose "
            f"weights are {known}."
        )
    return found


def left_out_slow(evidence: Evidence) -> bool:
    """Return whether an audit left out the attacks that train or optimise, so that these need not be run again."""
    slow = _slow()
    return not any(m.name in slow and m.value is not None for m in evidence.measurements)


def check_retrained(evidence: Evidence, given: Sequence[str]) -> None:
    """Refuse retrained models that are not those of the record.

    Args:
        evidence: The audit of the record.
        given: The digests of their weights; none if there is none to compare with.

    Raises:
        InputError: They are others, or not all of them.
    """
    if given and set(given) != set(evidence.retrained_sha256):
        known = shortened(digest[:12] for digest in evidence.retrained_sha256)
        advice = f"the ones with the weights {known}, or none" if known else "none: the record was made without any"
        raise InputError(f"The retrained models are not those of the record. Give {advice}.")


def compared(evidence: Evidence, audit: AuditRecord) -> list[Check]:
    """Compare a new audit with that of a record: one check for each measure, and one for the verdicts.

    Args:
        evidence: The audit of the record.
        audit: The new one, of the same models.
    """
    digests = audit.inputs.data_sha256
    same = {split: digests.get(split) == digest for split, digest in evidence.data_sha256.items()}
    excuses = list(_not_given(evidence, audit))
    checks, left_out = [_images(same)], list[str]()
    for name in dict.fromkeys(m.name for m in evidence.measurements):
        pairs = [
            _Pair(m, audit.find(m.name, m.subject, m.split))
            for m in evidence.measurements
            if m.name == name and m.value is not None
        ]
        found = [p for p in pairs if not excuses or (p.now is not None and p.now.value is not None)]
        if not found:
            left_out += [name] if pairs else []
            continue
        wrong = [p for p in found if not p.agree(same.get(p.recorded.split or "test", False))]
        said = "; ".join(p.text() for p in wrong) or f"{len(found)} values agree with the record"
        checks.append(Check(name, not wrong, said))
    if len(checks) == 1:
        checks.append(Check("measures", False, "none could be compared: give the data and models of the record."))
    checks.append(_verdicts(evidence, audit, excuses, all(same.values())))
    if left_out:
        checks.append(Check("not compared", None, f"{', '.join(left_out)}: {' and '.join(excuses)}"))
    return checks


def _slow() -> set[str]:
    return {m.name for entry in attacks.entries().values() if entry.slow for m in entry.measures}


def _not_given(evidence: Evidence, audit: AuditRecord) -> Iterator[str]:
    """Say what the record was made with and the new audit was not, so that some measures are missing there."""
    if evidence.retrained_sha256 and not audit.inputs.retrained_sha256:
        yield "no retrained model was given"
    if missing := sorted(evidence.data_sha256.keys() - audit.inputs.data_sha256.keys()):
        yield f"no {missing[0]} images were given"
    slow = _slow()
    if not left_out_slow(evidence) and not any(m.name in slow and m.value is not None for m in audit.measurements):
        yield "--quick leaves slow attacks out"


def _images(same: dict[Split, bool]) -> Check:
    if all(same.values()):
        return Check("data", True, "the images are those of the record: values must lie within its intervals")
    others = " and ".join(split for split, equal in same.items() if not equal)
    return Check("data", True, f"the {others} images are not those of the record: intervals must overlap")


def _verdicts(evidence: Evidence, audit: AuditRecord, excuses: Sequence[str], same_images: bool) -> Check:
    """Compare the verdicts, which depend on all that was given."""
    labels, now = ({h: c.label for h, c in v.holders.items()} for v in (evidence.verdict, audit.verdict))
    differ = [f"{h}: {now.get(h)!r}, in the record {label!r}" for h, label in labels.items() if now.get(h) != label]
    if not differ:
        return Check("verdict", True, "the same for every holder")
    why = [*excuses, *([] if same_images else ["the images are others"])]
    return Check(
        "verdict", None if why else False, "; ".join(differ) + (f" (not counted: {' and '.join(why)})" if why else "")
    )
