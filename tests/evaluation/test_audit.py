"""audit(): what is measured, what is absent and why, several retrained models, seeds, records."""

from __future__ import annotations

import json
import math
from typing import get_args

import numpy as np
import pytest
import torch
from handmade import runtime
from torch import nn

import unhot
from unhot.errors import UnknownNameError
from unhot.evaluation import pictures
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import audit
from unhot.evaluation.catalogue import measures
from unhot.evaluation.metric import Case, measured
from unhot.evaluation.metrics import catalogue as metrics
from unhot.evaluation.stats import Estimate
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.records.audit import AuditRecord, Subject
from unhot.records.measure import Measure

CONTRACT = {
    "forget_accuracy", "retain_accuracy", "retain_drop", "retain_drop_masked", "worst_class_drop", "probe_accuracy",
    "knn_accuracy", "prototype_attack_accuracy", "relearn_steps", "mia_auc", "mia_tpr_at_1pct_fpr", "class_mia_gap",
    "output_js_to_retrained", "over_unlearning", "feature_fisher_ratio", "feature_cka",
}  # fmt: skip
NEED_RETRAINED = {
    "output_js_to_retrained", "activation_distance_to_retrained", "confusion_distance_to_retrained",
    "feature_cka_to_retrained", "relearn_ratio", "class_mia_gap",
}  # fmt: skip
SLOW = {
    "recovery_all_images",
    "relearn_steps",
    "relearn_accuracy",
    "relearn_ratio",
    "over_unlearning",
    "inversion_recognised",
}
NEED_100_IMAGES = {"mia_tpr_at_1pct_fpr", "mia_tpr_at_01pct_fpr"}


@pytest.fixture(scope="module")
def alone(zoo) -> Audit:
    """Without train images and without a retrained model."""
    return audit(
        original=zoo.original(0), unlearned=zoo.cut(0, 3), classes=[3], test=zoo.source.test_images, runtime=runtime()
    )  # fmt: skip


def absent(found: Audit, subject: Subject, split: str = "test") -> dict[str, str]:
    return {
        m.name: m.absent_because
        for m in found.record.measurements
        if m.subject == subject and m.split == split and m.absent_because is not None
    }


def test_the_contracts_names_are_all_measured(full) -> None:
    assert {m.name for m in full.record.measurements} >= CONTRACT
    assert set(measures()) >= CONTRACT


def test_measures_lists_exactly_what_the_record_holds(full, alone) -> None:
    for found in (full, alone):
        assert {m.name for m in found.record.measurements} == set(measures())
    for m in full.record.measurements:
        assert (m.unit, m.higher_is_better) == (measures()[m.name].unit, measures()[m.name].higher_is_better)


@pytest.mark.parametrize("which", ["full", "alone"])
def test_every_measure_is_there_once_for_every_subject(which, request) -> None:
    record = request.getfixturevalue(which).record
    keys = [(m.name, m.subject, m.split) for m in record.measurements]
    assert len(keys) == len(set(keys))
    both = {n for n in metrics if "train" in metrics.entry(n).measure.splits}
    names = [(n, "test") for n in measures()] + [(n, "train") for n in both]
    wanted = {(n, s, split) for n, split in names for s in get_args(Subject)}
    assert set(keys) == wanted
    assert both == {"forget_accuracy", "retain_accuracy"}


@pytest.mark.parametrize("which", ["full", "alone"])
def test_a_measurement_has_a_value_in_its_interval_or_a_reason(which, request) -> None:
    for m in request.getfixturevalue(which).record.measurements:
        if m.absent_because is None:
            assert m.low <= m.value <= m.high, m
            assert all(map(math.isfinite, (m.low, m.value, m.high)))
            assert m.n > 0
        else:
            assert m.absent_because
            assert (m.value, m.low, m.high, m.n, m.runs) == (None, None, None, 0, ())


def test_masked_is_always_measured_and_has_forgotten_everything_at_no_cost(full, alone) -> None:
    for found in (full, alone):
        for name in measures():
            assert (found.get(name, "masked").value is None) == (found.get(name, "original").value is None)
        assert found.get("forget_accuracy", "masked").value == 0
        assert found.get("retain_drop_masked", "masked").value == 0
        assert found.get("feature_cka", "masked").value == pytest.approx(1)
        for name in ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy"):
            assert found.get(name, "masked") == found.get(name, "original").model_copy(update={"subject": "masked"})
    assert full.get("forget_accuracy", "masked", "train").value == 0


def test_with_everything_given_only_rates_of_too_few_images_are_absent(full) -> None:
    for subject in get_args(Subject):
        reasons = absent(full, subject)
        assert set(reasons) == NEED_100_IMAGES
        assert "needs 100 test images of the class, there are" in reasons["mia_tpr_at_1pct_fpr"]
        assert absent(full, subject, "train") == {}


def test_without_a_retrained_model_what_needs_one_is_absent_with_the_reason(alone) -> None:
    for subject in ("original", "masked", "unlearned"):
        reasons = absent(alone, subject)
        for name in NEED_RETRAINED:
            assert reasons.pop(name) == "no retrained model was given"
        assert not any("retrained" in r for r in reasons.values())
    reasons = absent(alone, "retrained")
    assert set(reasons) == set(measures())
    assert set(reasons.values()) == {"no retrained model was given"}


def test_without_train_images_what_needs_them_is_absent_with_the_reason(alone) -> None:
    for name in ("forget_accuracy", "retain_accuracy"):
        assert alone.get(name, "unlearned", "train").absent_because == "no train images were given"
    for name in (m.name for m in attacks.entry("membership").measures):
        assert alone[name].absent_because == "no train images were given"
    for name in ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy", "ncm_accuracy"):
        assert alone[name].value is not None


def test_without_train_images_the_readers_ask_about_other_images_than_they_learn_from(alone, full) -> None:
    n = full["forget_accuracy"].n
    assert full["probe_accuracy"].n == n
    assert 0 < alone["probe_accuracy"].n < n


def test_several_retrained_models_give_runs_their_mean_and_an_interval_around_all(full, zoo) -> None:
    single = [
        audit(
            original=zoo.original(0), unlearned=zoo.cut(0, 3), classes=[3], test=zoo.source.test_images,
            train=zoo.source.train_images, retrained=zoo.retrained(3, seed), quick=True, runtime=runtime(),
        )
        for seed in (10, 11)
    ]  # fmt: skip
    for name in (
        "retain_accuracy",
        "probe_accuracy",
        "knn_accuracy",
        "feature_cka",
        "prototype_attack_accuracy",
        "mia_auc",
    ):
        one, two = (s.get(name, "retrained") for s in single)
        both = full.get(name, "retrained")
        assert both.runs == (one.value, two.value)
        assert both.value == pytest.approx((one.value + two.value) / 2)
        assert both.low == min(one.low, two.low)
        assert both.high == max(one.high, two.high)
        assert one.runs == ()
    for name in NEED_RETRAINED - {"relearn_ratio"}:
        assert single[0].get(name, "retrained").absent_because.startswith("a second retrained model is needed")
        assert len(full.get(name, "retrained").runs) == 2


def test_quick_leaves_the_slow_attacks_out_and_says_so(zoo, full) -> None:
    quick = zoo.audited("masked")
    for subject in get_args(Subject):
        reasons = {n: r for n, r in absent(quick, subject).items() if "quick" in r}
        assert reasons == dict.fromkeys(SLOW, "left out by --quick")
    assert {c.name for c in full.record.curves} - {c.name for c in quick.record.curves} == {"layers", "relearning"}
    assert (quick.record.pictures, quick.images) == ((), {})
    for name in set(measures()) - SLOW - NEED_RETRAINED - NEED_100_IMAGES:
        assert quick[name] == full[name], name


def test_pictures_are_of_every_model(full) -> None:
    models = {("original", 0), ("unlearned", 0), ("retrained", 0), ("retrained", 1)}
    of: dict[str, set] = {}
    for c in full.record.curves:
        of.setdefault(c.name, set()).add((c.subject, c.run))
    assert of["confusion"] == of["roc"] == of["relearning"] == of["few-shot"] == models | {("masked", 0)}
    assert of["layers"] == of["map"] == models
    (drawn,) = full.record.pictures
    assert (drawn.name, set(drawn.files)) == ("inversion", set(get_args(Subject)))
    assert all(full.images[f.file].shape == (f.images, 1, f.height, f.width) for f in drawn.files.values())
    for c in full.record.curves:
        assert len(c.x) == len(c.y) > 0
        if c.name == "confusion":
            assert sum(c.y) == pytest.approx(1, abs=1e-4)


def test_three_retrained_models_are_mapped_and_each_is_itself(zoo) -> None:
    views = zoo.board()
    references = [zoo.retrained(3, 10), zoo.retrained(3, 11), zoo.original(1), zoo.original(0)]
    many = Views(zoo.original(0), zoo.original(0), references, views.labels, views.splits, runtime())
    found = list(pictures.feature_map(many))
    assert [(c.subject, c.run) for c in found] == [
        ("original", 0),
        ("unlearned", 0),
        *(("retrained", i) for i in range(3)),
    ]
    assert len({c.x for c in found[2:]}) == 3


def test_a_map_of_an_unlearned_model_of_another_width(zoo) -> None:
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Flatten(), nn.Linear(256, 20), nn.ReLU(), nn.Linear(20, 10))
    small = Classifier.wrap(net.eval(), input=zoo.original(0).input)
    views = zoo.board(unlearned=small)
    original, unlearned = list(pictures.feature_map(views))[:2]
    assert len(original.x) == len(unlearned.x)


def test_the_last_layer_is_the_probe_of_the_table(full) -> None:
    for subject in ("original", "unlearned"):
        (curve,) = [c for c in full.record.curves if (c.name, c.subject) == ("layers", subject)]
        assert curve.x[-1] == "penultimate"
        assert curve.y[-1] == full.get("probe_accuracy", subject).value


def test_the_map_of_the_original_is_its_principal_components(full, zoo) -> None:
    (curve,) = [c for c in full.record.curves if (c.name, c.subject) == ("map", "original")]
    h = zoo.board().of("original", "test").features.double().numpy()
    values = np.linalg.svd(h - h.mean(0), compute_uv=False)[:2]
    assert np.linalg.norm(curve.x) == pytest.approx(values[0], rel=1e-3)
    assert np.linalg.norm(curve.y) == pytest.approx(values[1], rel=1e-3)
    assert sorted(curve.groups) == sorted(str(c) for c in zoo.source.test_images.y.tolist())


def test_per_class_is_of_every_class_and_agrees_with_forget_accuracy(full) -> None:
    for subject in get_args(Subject):
        for split in ("train", "test"):
            rows = [r for r in full.record.per_class if (r.subject, r.split) == (subject, split)]
            assert [r.label.index for r in rows] == list(range(10))
            if subject != "retrained":
                assert rows[3].value == full.get("forget_accuracy", subject, split).value


def test_the_same_seed_gives_the_same_audit_and_another_one_other_draws(zoo) -> None:
    def again(seed: int) -> AuditRecord:
        return audit(
            original=zoo.original(0), unlearned=zoo.cut(0, 3), classes=[3], test=zoo.source.test_images,
            train=zoo.source.train_images, retrained=zoo.retrained(3), quick=True, runtime=runtime(seed),
        ).record  # fmt: skip

    timed, first = {"cost", "environment"}, zoo.audited("masked").record
    assert again(0).model_dump(exclude=timed) == first.model_dump(exclude=timed)
    other = {(m.name, m.subject, m.split): m for m in again(1).measurements}
    changed = {m.name for m in first.measurements if other[m.name, m.subject, m.split] != m}
    assert "prototype_attack_accuracy" in changed
    assert not changed & {"forget_accuracy", "retain_drop", "probe_accuracy", "feature_cka", "mia_auc"}


@pytest.mark.parametrize("name", [n for n in attacks if attacks.entry(n).slow])
def test_slow_attacks_give_the_same_again(zoo, full, name) -> None:
    views = zoo.board(unlearned=zoo.retrained(3, 10))  # which the full audit attacked as a reference
    for measure, e in attacks.get(name)().run(Case(views, "unlearned")).estimates.items():
        if measure != "relearn_ratio":
            assert full.get(measure, "retrained").runs[0] == e.value


def test_audit_json_comes_back_as_it_was(full, tmp_path) -> None:
    full.save(tmp_path / "audit")
    path = tmp_path / "audit" / "audit.json"
    assert AuditRecord.read(path) == full.record
    raw = json.loads(path.read_text())
    assert {"schema_version", "classes", "measurements", "verdict", "inputs", "cost", "environment"} <= set(raw)
    keys = {"name", "subject", "split", "value", "low", "high", "n", "unit", "higher_is_better", "absent_because"}
    assert keys <= set(raw["measurements"][0])
    assert "NaN" not in path.read_text()
    assert (tmp_path / "audit" / "report.html").is_file()
    assert {p.name for p in (tmp_path / "audit").glob("*.png")} == {f"inversion-{s}.png" for s in get_args(Subject)}
    with pytest.raises(unhot.UnhotError):
        full.save(tmp_path / "audit")


def test_inputs_are_digests_of_what_was_audited(full, zoo) -> None:
    inputs = full.record.inputs
    assert inputs.original_sha256 == zoo.original(0).sha256()
    assert inputs.unlearned_sha256 == zoo.cut(0, 3).sha256()
    assert inputs.retrained_sha256 == (zoo.retrained(3, 10).sha256(), zoo.retrained(3, 11).sha256())
    assert inputs.images == {"test": len(zoo.source.test_images), "train": len(zoo.source.train_images)}
    assert set(inputs.data_sha256) == {"train", "test"}
    assert full.record.attacks == {n: attacks.get(n)().model_dump(mode="json") for n in attacks}


def test_lookup(full) -> None:
    assert full["forget_accuracy"] == full.get("forget_accuracy", "unlearned", "test")
    assert full.get("forget_accuracy", "unlearned", "train").split == "train"
    with pytest.raises(UnknownNameError, match=r"measurement 'forget_acuracy'"):
        full["forget_acuracy"]


def test_what_reads_features_only_is_computed_once_for_the_original_and_its_mask(zoo) -> None:
    board, seen = zoo.board(), []

    def count(case) -> Estimate:
        seen.append(case.subject)
        return Estimate(1.0, 1.0, 1.0, 1)

    cases = [Case(board, subject, "test", 0) for subject in ("original", "masked", "retrained", "masked")]
    for of_features, expected in ((True, ["original", "retrained"]), (False, ["original", "masked", "retrained"])):
        seen.clear()
        name = f"count_{of_features}".lower()
        measure = Measure(name=name, title="Count", group="Output", sentence="One.", features_only=of_features)
        for case in cases:
            measured(measure, count, case)
        assert seen == expected
