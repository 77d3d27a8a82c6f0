"""Measuring again what a record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from requested import NOTES, Carried, call, signed_again

from unhot.deletion.remeasure import check_retrained, compared, evidence_against, left_out_slow
from unhot.errors import InputError
from unhot.records.audit import AuditRecord, Measurement
from unhot.records.deletion import DeletionRecord, Evidence

pytestmark = pytest.mark.filterwarnings(NOTES)


def again(made: Carried, *more: object) -> int:
    models = ("--model", made.unlearned, "--original", made.original)
    return call("verify", made.record, "--key", made.public, *models, "--remeasure", "--data", "digits", *more)


def changed(found: Evidence, name: str, **values: object) -> Evidence:
    """Return evidence in which a measurement of the unlearned model on test images has other values."""
    what = (name, "unlearned", "test")
    measurements = tuple(
        m.model_copy(update=values) if (m.name, m.subject, m.split) == what else m for m in found.measurements
    )
    return found.model_copy(update={"measurements": measurements})


@pytest.fixture
def record(carried: Carried) -> DeletionRecord:
    return DeletionRecord.read(carried.record / "record.json")


@pytest.fixture
def evidence(record: DeletionRecord) -> Evidence:
    return record.evidence[0]


@pytest.fixture
def audit(carried: Carried) -> AuditRecord:
    return AuditRecord.read(carried.audit / "audit.json")


def test_a_record_that_is_true_is_found_true(carried: Carried, evidence: Evidence, capsys) -> None:
    assert again(carried, "--json") == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    measured = {m.name for m in evidence.measurements if m.value is not None}
    assert measured < set(checks)
    assert "8 values agree" not in checks["forget_accuracy"]["found"]  # no retrained model: three subjects, two splits
    assert "6 values agree with the record" in checks["forget_accuracy"]["found"]
    assert checks["verdict"]["found"] == "the same for every holder"


def test_a_signed_record_that_says_what_was_not_measured_is_found(
    carried: Carried, record: DeletionRecord, capsys
) -> None:
    """A signature shows who said it, and not that it is true."""
    better = {"value": 0.1, "low": 0.05, "high": 0.15}
    signed_again(
        carried, record.model_copy(update={"evidence": (changed(record.evidence[0], "knn_accuracy", **better),)})
    )
    (carried.unlearned / "requests.jsonl").unlink()  # which names the record before it was changed
    assert call("verify", carried.record, "--key", carried.public) == 0
    assert again(carried) == 3
    said = capsys.readouterr().out
    assert "FAILED knn_accuracy: unlearned: 0." in said
    assert "in the record 0.1000 [0.0500, 0.1500]" in said
    assert said.endswith("Does not hold: knn_accuracy. Not checked: ledger.\n")


def test_nothing_is_measured_of_a_record_that_was_changed(carried: Carried, capsys) -> None:
    path = carried.record / "record.html"
    path.write_text(path.read_text() + " ")
    assert again(carried) == 3
    said = capsys.readouterr().out
    assert "Nothing was measured again" in said
    assert "forget_accuracy" not in said


@pytest.mark.parametrize(("low", "high", "same", "other"), [(0.2, 0.9, False, True), (0.05, 0.15, False, False)])
def test_intervals_of_other_images_must_overlap(
    evidence: Evidence, audit: AuditRecord, low: float, high: float, same: bool, other: bool
) -> None:
    """Of the same images the value itself must lie within the recorded interval."""
    now = audit.find("knn_accuracy", "unlearned")
    assert now is not None
    assert now.value > 0.9 > now.low > 0.2  # so that the value is above the one interval, and its own overlaps it
    told = changed(evidence, "knn_accuracy", value=low, low=low, high=high)
    foreign = told.model_copy(update={"data_sha256": dict.fromkeys(evidence.data_sha256, "0" * 64)})
    for found, holds in ((told, same), (foreign, other)):
        checks = {c.name: c for c in compared(found, audit)}
        assert checks["knn_accuracy"].holds is holds
        assert checks["verdict"].holds
    assert "images are not those of the record" in checks["data"].found


def test_what_was_not_given_is_not_compared_and_what_is_missing_fails(evidence: Evidence, audit: AuditRecord) -> None:
    def without(m: Measurement) -> Measurement:
        gone = dict.fromkeys(("value", "low", "high"), None) | {"absent_because": "not today"}
        return m.model_copy(update=gone) if m.name == "feature_cka" else m

    less = audit.model_copy(update={"measurements": tuple(map(without, audit.measurements))})
    checks = {c.name: c for c in compared(evidence, less)}
    assert not checks["feature_cka"].holds
    assert "unlearned: not measured" in checks["feature_cka"].found
    with_retrained = evidence.model_copy(update={"retrained_sha256": ("1" * 64,)})
    checks = {c.name: c for c in compared(with_retrained, less)}
    assert "feature_cka" not in checks
    assert checks["not compared"].holds is None
    assert checks["not compared"].found == "feature_cka: no retrained model was given"
    nothing = audit.model_copy(update={"measurements": ()})
    assert not {c.name: c for c in compared(with_retrained, nothing)}["measures"].holds


def test_another_verdict_is_found(evidence: Evidence, audit: AuditRecord) -> None:
    holders = evidence.verdict.holders
    flattered = holders["weights"].model_copy(update={"label": "beyond a retrained model"})
    told = evidence.model_copy(
        update={"verdict": evidence.verdict.model_copy(update={"holders": holders | {"weights": flattered}})}
    )
    check = next(c for c in compared(told, audit) if c.name == "verdict")
    assert check.failed
    assert "in the record 'beyond a retrained model'" in check.found


def test_which_models_are_measured_again(record: DeletionRecord, evidence: Evidence) -> None:
    assert evidence_against(record, record.original_sha256) == evidence
    with pytest.raises(InputError, match="No audit of the record compares with the model 000000000000"):
        evidence_against(record, "0" * 64)
    check_retrained(evidence, [])
    with pytest.raises(InputError, match=r"Give none: the record was made without any\."):
        check_retrained(evidence, ["1" * 64])
    with pytest.raises(InputError, match="Give the ones with the weights 222222222222, or none"):
        check_retrained(evidence.model_copy(update={"retrained_sha256": ("2" * 64,)}), ["1" * 64])
    assert left_out_slow(evidence)
    assert not left_out_slow(changed(evidence, "relearn_steps", value=3.0, low=1.0, high=9.0, absent_because=None))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--remeasure",), "--remeasure audits again. It needs --model, --original and --data."),
        (("--data", "digits"), "They need --remeasure."),
        (("--quick",), "They need --remeasure."),
    ],
)
def test_options_that_belong_together(carried: Carried, capsys, given: tuple[str, ...], said: str) -> None:
    assert call("verify", carried.record, "--key", carried.public, *given) == 2
    assert said in capsys.readouterr().err


def test_the_model_before_is_compared_by_its_classes_too(carried: Carried, tmp_path: Path, capsys) -> None:
    given = ("--key", carried.public, "--model", carried.unlearned, "--original", carried.original)
    info = carried.original / "bundle.json"
    value = json.loads(info.read_text())
    value["input"]["mean"] = [0.25]
    info.write_text(json.dumps(value))
    assert call("verify", carried.record, *given) == 0
    assert "and the classes, but not the preprocessing, of" in capsys.readouterr().out
    value["classes"][0]["name"], value["classes"][1]["name"] = "1", "0"
    info.write_text(json.dumps(value))
    assert call("verify", carried.record, *given) == 3
    assert "has other classes than" in capsys.readouterr().out
    value["classes"][3]["name"] = "30"
    info.write_text(json.dumps(value))
    assert call("verify", carried.record, "--key", carried.public, "--original", carried.original) == 3
    assert "has no class 3, which the record says that it forgot" in capsys.readouterr().out
