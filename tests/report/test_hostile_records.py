"""An audit.json that anybody may have written: what is inconsistent is refused, what is hostile does nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unhot.errors import InputError
from unhot.records.audit import AuditRecord
from unhot.report.page import load, render

HOSTILE = "</title><script>x</script>\x1b]0;t\x07\u202e| # [a](http://b) `c`\n=1+1 $x^{$ {{7*7}}"


def changed(record: AuditRecord, *path: str | int, to: Any = None) -> str:
    """Return a record's text with one of its parts replaced; without ``to`` a part of a list comes twice."""
    raw = json.loads(record.to_json())
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    if to is None:
        holder.append(holder[path[-1]])
    else:
        holder[path[-1]] = to
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("path", "to", "why"),
    [
        (("measurements", 0, "low"), 0.99, "is not within its interval"),
        (("measurements", 0, "high"), -1, "is not within its interval"),
        (("measurements", 0, "absent_because"), "no reason", "a value and a reason for its absence"),
        (("measurements", 0, "n"), -1, "'measurements.0.n': It must be greater than or equal to 0"),
        (("measurements", 0, "runs"), [0.5], "one value for each retrained model"),
        (("measurements", 0), None, "the measurement .* comes twice"),
        (("per_class", 0, "value"), 2, "'per_class.0.value': It must be less than or equal to 1"),
        (("per_class", 0, "low"), 0.6, "is not within its interval"),
        (("per_class", 0, "label", "index"), -1, "greater than or equal to 0"),
        (("per_class", 0), None, "the accuracy .* comes twice"),
        (("classes",), [], "'classes': Tuple should have at least 1 item"),
        (("classes", 0), None, "the class 3 comes twice"),
        (("curves", 0, "x"), ["a"], "need an x, a y"),
        (("curves", 0, "y"), [], "at least 1 item"),
        (("curves", 1, "y", 0), 7.0, "a share of roc is not in 0..1"),
        (("curves", 2, "groups"), ["a"], "on a map, a group each"),
        (("curves", 2, "x", 0), 1e300, "out of range"),
        (("curves", 3, "x", 0), 0.5, "a point of few-shot is out of range"),
        (("curves", 1, "run"), 3, "a curve of a model that inputs does not name"),
        (("curves", 1), None, "the curve .* comes twice"),
        (("inputs", "images"), {"validation": 3}, "It must be 'train' or 'test'"),
        (("inputs", "images"), {"test": -3}, "greater than or equal to 0"),
        (("inputs", "retrained_sha256"), [], "a curve of a model that inputs does not name"),
        (("made_by", "samples", "count"), [-16], "greater than or equal to 0"),
        (("made_by", "samples", "count"), [1, 15], "each class needs one count of samples"),
        (("made_by", "samples", "count"), [3], "each image needs one digest"),
        (("made_by", "samples", "indices"), [1], "one index if any has one"),
        (("made_by", "samples", "indices", 0), -1, "indices"),
        (("made_by", "cost", "seconds"), -1, "greater than or equal to 0"),
        (("cost", "audit_seconds"), -1, "greater than or equal to 0"),
        (("schema_version",), "99", "schema_version that is not a whole number from 1 on: '99'"),
        (("verdict", "because"), [{"code": "guaranteed"}], "verdict.because"),
        (("verdict", "flags"), [7], "verdict.flags"),
        (("schema_version",), 99, "was written by a newer unhot"),
        (("schema_version",), -1, "schema_version that is not a whole number"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    make: Callable[..., AuditRecord], path: tuple[str | int, ...], to: Any, why: str
) -> None:
    with pytest.raises(InputError, match=f"^audit.json .*{why}"):
        AuditRecord.parse(changed(make(), *path, to=to), "audit.json")


@pytest.mark.parametrize("code", ["damaged", "apart", "gap_closed", "features_unchanged"])
def test_a_reason_without_its_numbers_is_one_sentence(make: Callable[..., AuditRecord], write: Any, code: str) -> None:
    raw = json.loads(make().to_json())
    raw |= {"curves": [], "per_class": []}
    raw["verdict"]["because"] = [{"code": code, "measurements": []}]
    with pytest.raises(InputError, match=rf"^The audit says '{code}' without all that it is about"):
        render(load([write(AuditRecord.model_validate(raw))]))


def test_hostile_text_does_nothing(
    make: Callable[..., AuditRecord], write: Callable[..., Path], redraw: Callable[[Path], None], parse: Any
) -> None:
    names = ["ordinary", HOSTILE, "third"]
    folder = write(make(names=names, forgotten=(1,), retrained=0), pictures=True)
    raw = json.loads((folder / "audit.json").read_text())
    raw["inputs"] |= {"data": HOSTILE, "original_sha256": HOSTILE, "unlearned_sha256": HOSTILE}
    raw["made_by"] |= {"method": HOSTILE, "stop_reason": HOSTILE}
    raw["made_by"]["environment"]["unhot"] = HOSTILE
    raw["verdict"] |= {"because": [HOSTILE], "flags": [HOSTILE]}
    raw["measurements"][0] |= {"name": HOSTILE}
    raw["pictures"][0] |= {"name": HOSTILE, "title": HOSTILE, "caption": HOSTILE}
    raw["attacks"][HOSTILE] = {HOSTILE: HOSTILE}
    (folder / "audit.json").write_text(json.dumps(raw))
    redraw(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert parse(page).wrong == []
    assert parse(page).all("script") == []
    for text in (page, (folder / "summary.md").read_text("utf-8"), (folder / "model-card.md").read_text("utf-8")):
        assert not any(c in text for c in "\x1b\x07\u202e")
        assert "{{7*7}}" in text.replace("\\", "")
    for name in ("summary.md", "model-card.md"):
        text = (folder / name).read_text("utf-8")
        assert "<script" not in text
        assert "[a](http" not in text
        assert not any(row.startswith("=1+1") for row in text.splitlines())
        rows = [row for row in text.splitlines() if row.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    "word", ["w" * 200_000, "a_" * 100_000, "w" * 100_000 + " (x) " + "1." * 50_000, "[" * 200_000]
)
def test_a_long_word_in_a_verdict_takes_no_time(
    make: Callable[..., AuditRecord], write: Callable[..., Path], word: str
) -> None:
    from unhot.report.content import content

    raw = json.loads(make().to_json())
    raw["verdict"] |= {"because": [word, "of_nothing (masked) 0.5 [0, 1]."], "flags": [word]}
    raw |= {"curves": [], "per_class": []}
    (loaded,) = load([write(AuditRecord.model_validate(raw))])
    began = time.process_time()
    assert content(loaded, "a").sentences[0] == word
    assert time.process_time() - began < 3  # a quadratic expression takes minutes


def test_a_verdict_may_name_a_measure_that_was_not_taken(make: Callable[..., AuditRecord], write: Any) -> None:
    raw = json.loads(make().to_json())
    raw |= {"curves": [], "per_class": []}
    raw["measurements"] = [m for m in raw["measurements"] if m["name"] != "probe_accuracy"]
    assert "short of a retrained model" in render(load([write(AuditRecord.model_validate(raw))])).lower()


def test_thousands_of_forgotten_classes_are_not_all_drawn(make: Callable[..., AuditRecord], write: Any) -> None:
    names = [f"name {i}" for i in range(2_000)]
    record = make(names=names, forgotten=tuple(range(1_500)), retrained=0)
    record = record.model_copy(update={"curves": tuple(c for c in record.curves if c.name == "confusion")})
    began = time.process_time()
    page = render(load([write(record)]))
    assert time.process_time() - began < 60
    assert "60 of 2000" in page


def test_thousands_of_curves_are_not_all_drawn(make: Callable[..., AuditRecord], write: Any) -> None:
    raw = json.loads(make(names=["a", "b", "c", "d"]).to_json())
    raw["inputs"]["retrained_sha256"] = ["3" * 64] * 20_000
    points = {"name": "confusion", "subject": "retrained", "x": list("abcd"), "y": [0.25] * 4}
    raw |= {"curves": [points | {"run": i} for i in range(20_000)], "per_class": []}
    began = time.process_time()
    page = render(load([write(AuditRecord.model_validate(raw))]))
    assert time.process_time() - began < 30
    assert "retrained 40<" in page
    assert "retrained 41<" not in page


def test_a_picture_elsewhere_is_not_shown(make: Callable[..., AuditRecord], write: Any, tmp_path: Path) -> None:
    Image.new("L", (128, 8)).save(tmp_path / "private.png")
    folder = write(make(), pictures=True)
    (folder / "samples.png").unlink()
    (folder / "samples.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(InputError, match=r"samples\.png is a link"):
        render(load([folder]))


@pytest.mark.parametrize("kind", ["gif", "eps", "large", "cut"])
def test_pictures_that_are_refused(make: Callable[..., AuditRecord], write: Any, kind: str) -> None:
    folder = write(make(), pictures=True)
    path = folder / "samples.png"
    if kind == "eps":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    elif kind == "large":
        Image.new("1", (70_000, 1_000)).save(path)
    elif kind == "cut":
        Image.effect_noise((64, 64), 99).save(path)
        path.write_bytes(path.read_bytes()[:-2_000])
    else:
        Image.new("L", (8, 8)).save(path, format=kind)
    with pytest.raises(InputError, match=r"samples\.png (has more than|is not a PNG)"):
        render(load([folder]))


@pytest.mark.parametrize("size", [(128, 9), (127, 8), (64, 16), (8, 8)])
def test_pictures_that_are_not_as_described(
    make: Callable[..., AuditRecord], write: Any, size: tuple[int, int]
) -> None:
    folder = write(make(), pictures=True)
    Image.new("L", size).save(folder / "samples.png")
    with pytest.raises(InputError, match=r"samples\.png.*16.*8.*8.*pixels.*audit\.json"):
        render(load([folder]))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ({"file": "../private.png"}, "file"),
        ({"file": "/etc/private.png"}, "file"),
        ({"file": "inversion-original.png"}, "file inversion-original.png comes twice"),
        ({"images": 0}, "images"),
        ({"images": 2**40}, "has more than 67,108,864 pixels"),
    ],
)
def test_pictures_cannot_be_named_that_are_elsewhere_or_none(
    make: Callable[..., AuditRecord], write: Any, file: dict, why: str
) -> None:
    folder = write(make(), pictures=True)
    raw = json.loads((folder / "audit.json").read_text())
    raw["samples"] |= file
    (folder / "audit.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=f"audit.json is not a valid AuditRecord: .*{why}"):
        render(load([folder]))


@pytest.mark.parametrize("attack", ["../evil", "/evil", "evil\0", "", "."])
def test_attacks_of_version_1_name_no_pictures_elsewhere(
    make: Callable[..., AuditRecord], write: Any, tmp_path: Path, attack: str
) -> None:
    folder = write(make())
    Image.new("L", (8, 8)).save(folder.parent / "evil-original.png")
    raw = json.loads((folder / "audit.json").read_text()) | {"schema_version": 1, "attacks": {attack: {}}}
    (folder / "audit.json").write_text(json.dumps(raw))
    (audit,) = load([folder])
    assert audit.images == {}
