"""The page: order, honesty, escaping, no outside request, the same bytes every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

from unhot.errors import InputError
from unhot.evaluation.auditor import audit
from unhot.evaluation.catalogue import measures
from unhot.evaluation.verdict import MEANINGS, Thresholds
from unhot.models.cut import cut_classes
from unhot.records.audit import AuditRecord
from unhot.records.choices import Holder
from unhot.report.audited import Audited
from unhot.report.comparison import compared
from unhot.report.content import facts, seconds
from unhot.report.markdown import summary
from unhot.report.page import load, render
from unhot.report.sentences import MERELY_MASKED, SENTENCES, conclusions, sentence
from unhot.report.tables import class_names, number, rows
from unhot.report.texts import WITHOUT_RETRAINED

KNOWN = measures()
EVIL = '<script>alert("x")</script> & $a$ | `b` \\'


def test_every_measure_and_threshold_has_a_text_and_none_is_left_over() -> None:
    assert all(f.description and f.description.endswith(".") for f in Thresholds.model_fields.values())
    assert all(t.sentence.endswith(".") and t.reading and t.source for t in KNOWN.values())


def test_every_verdict_has_a_meaning_that_promises_nothing() -> None:
    from unhot.records.audit import VerdictLabel

    assert set(MEANINGS) == set(get_args(VerdictLabel))
    assert not re.search(r"guarante|certif|complian|secure|prove", " ".join(m.text for m in MEANINGS.values()))


def test_every_reason_and_flag_has_a_sentence() -> None:
    from unhot.records.audit import FlagCode, ReasonCode

    assert set(SENTENCES) == {*get_args(ReasonCode), *get_args(FlagCode)}


def version_1(record: AuditRecord) -> dict:
    """Return a record as version 1 had it: reasons and flags are sentences, and a label has its former name."""
    raw = json.loads(record.to_json()) | {"schema_version": 1}
    raw["verdict"] |= {
        "label": "not decided without a retrained model",
        "because": ["probe_accuracy (unlearned) 0.5 [0.4, 0.6].", "A model trained without the class is needed."],
        "flags": ["knn_accuracy is below the retrained model's."],
    }
    return raw


def test_an_audit_of_version_1_says_what_it_said(make, write, parse) -> None:
    record = AuditRecord.parse(json.dumps(version_1(make())), "audit.json")
    assert (record.schema_version, record.verdict.label) == (1, "undecided")
    section = next(e for e in parse(render(load([write(record)]))).all("section") if "verdict" in e.get("class", ""))
    for said in (*record.verdict.because, *record.verdict.flags):
        assert said in section["text"]
    assert all(said in summary(Audited.read(write(record)).record).replace("\\", "") for said in record.verdict.because)


def test_facts_say_what_the_run_left_and_what_it_cost(make) -> None:
    record = make(forgotten=(3, 5))
    made, other = record.made_by, {"label": {"index": 1, "name": "kind 1"}, "n": 40, "before": 38, "after": 2}
    raw = made.model_dump(mode="json")
    raw["recognised"] = [*raw["recognised"], other]
    raw["retained_accuracy"] = {
        "origin": "folder, test split",
        "given": 9000,
        "n": 5000,
        "read_by_method": False,
        "before": 0.975,
        "after": 0.96,
        "worst_class": other,
    }
    said = {f.name: f.value for f in facts(record.model_copy(update={"made_by": type(made).model_validate(raw)}))}
    assert said["Still classified as their class"] == (
        "kind 3: 1 of 16 samples (15 before); kind 5: 1 of 16 samples (15 before); "
        "kind 1: 2 of 40 other images (38 before)"
    )
    accuracy = "96.0\u00a0% (97.5\u00a0% before), on 5,000 images from folder, test split"
    assert said["Accuracy on the retained classes"] == accuracy
    raw |= {"recognised": [], "retained_accuracy": None}
    older = {f.name: f.value for f in facts(record.model_copy(update={"made_by": type(made).model_validate(raw)}))}
    assert set(said) - set(older) == {"Still classified as their class", "Accuracy on the retained classes"}


def test_the_page_is_in_order_and_well_formed(page) -> None:
    assert page.wrong == []
    assert page.all("html")[0]["lang"] == "en"
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    assert page.texts("title")[0] == "Unlearning audit: kind 3 (class 3)"
    assert page.texts("h1") == ["Was kind 3 (class 3) forgotten?"]
    assert page.texts("h2") == [
        "Verdict",
        "What was forgotten, and from what",
        "Measurements",
        "Pictures",
        "Cost",
        "Settings and environment",
        "What this does not prove",
    ]
    pictures = page.texts("h3")[page.texts("h3").index("Accuracy of each class") :][:9]
    assert pictures == [
        "Accuracy of each class",
        "Where forgotten images go",
        "Layer by layer",
        "Feature maps",
        "Relearning",
        "Recovery from a few images",
        "Membership inference",
        "What the models still draw",
        "The samples used",
    ]
    levels = [int(e["tag"][1]) for e in page.elements if re.fullmatch(r"h\d", e["tag"])]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level of headings is skipped"
    assert all(e.get("scope") in ("row", "col") for e in page.all("th"))
    assert all(e.get("alt") for e in page.all("img"))
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))


def test_pictures_say_what_they_are(page) -> None:
    assert len(page.drawings) == len([e for e in page.all("img") if e.get("class") == "plot" and e["alt"]]) == 10
    for drawing in page.drawings:
        assert not [e for e in drawing.elements if e["tag"] in ("script", "image", "foreignobject")]
        assert all(e.get("xlink:href", "#").startswith("#") for e in drawing.elements)


def test_the_verdict_stands_with_what_decided_it(page) -> None:
    text = " ".join(page.texts("body")[0].split())
    assert "Short of a retrained model" in text
    assert MEANINGS["short of a retrained model"].of(None) in text
    section = next(e for e in page.all("section") if "verdict" in (e.get("class") or ""))["text"]
    assert "Linear probe" in section
    assert "Of the gap between the masked original and a retrained model 59% is closed." in section
    assert "Nearest neighbours is below the retrained model's: suppressed beyond it" in section
    assert "probe_accuracy (unlearned)" not in section
    assert re.search(r"damage\s*0\.1\s*Retain drop", section)


def test_each_holder_has_a_line_with_what_decided_it(make, write, parse) -> None:
    record = make(held=True)
    page = parse(render(load([write(record)])))
    assert page.wrong == []
    assert [t for t in page.texts("th") if t.startswith("the ") and "," not in t] == [
        "the outputs",
        "the features",
        "the weights",
    ]
    own, masked, retrained = (
        number(record.find("recovery_1_shot", s).value) for s in ("unlearned", "masked", "retrained")
    )
    values = f"Recovery from one image: unlearned {own}, masked {masked}, retrained {retrained}; "
    said = conclusions(record)
    assert said[1] == (
        f"Whoever holds the features: short of a retrained model. {values}more than a retrained model gives away, and "
        "likewise Recovery from five images."
    )
    assert "at the level of a retrained model. Recovery by outputs from one image: unlearned" in said[0]
    assert "undecided. 2,048 of the model's parameters are unused: they have no effect on its outputs." in said[2]
    cells = page.texts("td")
    for line in said:
        label, why = line.partition(": ")[2].split(". ", 1)
        assert cells[cells.index(why) - 1] == label
    marked = {e["text"]: e["class"] for e in page.all("td") if "said" in e.get("class", "")}
    assert marked["at the level of a retrained model"] == "said good"
    assert marked["undecided"] == "said open"
    names = page.texts("span")
    assert "Recovered from the features with one image" in names
    assert "Forgotten classes readable from the features" not in names


def test_a_record_without_the_attack_shows_the_probe(make, write, parse) -> None:
    record = make()
    older = tuple(m for m in record.measurements if "recovery" not in m.name)
    page = parse(render(load([write(record.model_copy(update={"measurements": older}))])))
    assert "Forgotten classes readable from the features" in page.texts("span")
    assert not [e for e in page.all("table") if "holders" in e.get("class", "")]


def test_codes_that_files_without_holders_have_are_put_into_words(make) -> None:
    verdict = make().verdict.model_dump()
    left = {"code": "nearly_all_left", "measurements": [], "numbers": {"left": 2.9, "limit": 2.7}}
    record = make(verdict=verdict | {"because": [left]})
    assert conclusions(record) == ["Nearly all that the features told before can still be read."]
    assert AuditRecord.parse(record.to_json(), "audit.json") == record


def test_recovery_is_drawn_for_outputs_features_and_layers(make, write, parse) -> None:
    page = parse(render(load([write(make(held=True))])))
    drawn = [e["alt"].partition(".")[0] for e in page.all("img") if e["alt"].startswith("Recovery from")]
    assert drawn == ["Recovery from the outputs", "Recovery from the features", "Recovery from any layer"]
    assert {"the outputs, 1", "the features, 5", "any layer, 20"} <= set(page.texts("th"))
    title = "Recovery from a few images"
    said = "A curve above the retrained model's means that the model still knows the class."
    assert said in pictures_of(make, write, parse, held=True)[title]
    assert said in pictures_of(make, write, parse)[title]


def test_audits_side_by_side_have_a_row_of_labels_for_each_holder(make, write) -> None:
    table = compared(load([write(make(held=True), "new"), write(make(), "old")]))
    short = "short of a retrained model"
    assert dict(table.verdicts) == {
        "Verdict": [None, short, None, None, None],  # the older file does not say for whom
        "Verdict for whoever holds the outputs": ["at the level of a retrained model", None, None, None, None],
        "Verdict for whoever holds the features": [short, None, None, None, None],
        "Verdict for whoever holds the weights": ["undecided", None, None, None, None],
    }


def test_every_verdict_stands_once_in_a_comparison(make, write) -> None:
    raw = make(held=True).verdict.model_dump()
    other = raw | {"holder": "outputs", "label": raw["holders"]["outputs"]["label"]}
    for second in (make(held=True), make(verdict=other)):
        table = compared(load([write(make(held=True), "one"), write(second, "two")]))
        assert [title for title, _ in table.verdicts] == [
            f"Verdict for whoever holds the {h}" for h in get_args(Holder)
        ]


def test_it_is_said_what_hidden_means_to_whoever_holds_the_outputs(make, write, parse) -> None:
    record = make(held=True)
    hidden = {"label": "hidden at the output only", "because": record.verdict.holders["features"].because}
    held = dict.fromkeys(get_args(Holder), hidden)
    record = make(verdict={**hidden, "holder": "outputs", "holders": held, "thresholds": record.verdict.thresholds})
    page = parse(render(load([write(record)])))
    (meaning,) = (e["text"] for e in page.all("p") if e.get("class") == "meaning")
    assert "merely masked: the rest of its outputs, the probabilities of the other classes, give away" in meaning
    lines = [*conclusions(record), *(e["text"] for e in page.all("td"))]
    said, cell = (line for line in lines if line.endswith(MERELY_MASKED))
    assert said == f"Whoever holds the outputs: hidden at the output only. {cell}"
    assert MERELY_MASKED in summary(record)


def test_a_headline_says_for_whom_it_is(make, write, parse) -> None:
    audits = load([write(make(held=True))])
    headline = "Verdict for whoever holds the features"
    assert headline in parse(render(audits)).texts("h2")
    assert f"**{headline}: short of a retrained model.**" in summary(audits[0].record)


def test_every_measurement_is_shown_with_interval_and_n(make, write, parse) -> None:
    record = make(retrained=2)
    page = parse(render(load([write(record)])))
    cells = [" ".join(e["text"].split()) for e in page.all("td")]
    for m in record.measurements:
        values = f"{number(m.value)} [{number(m.low)}, {number(m.high)}] n 321"
        if m.runs:
            values += " models: " + ", ".join(number(r) for r in m.runs)
        assert values in cells
    assert "Retrained model 2" in page.texts("dt")


def test_without_a_retrained_model_the_page_says_what_one_would_tell(make, write, parse) -> None:
    page = parse(render(load([write(make(retrained=0, quick=True))])))
    text = " ".join(page.texts("body")[0].split())
    assert WITHOUT_RETRAINED in text
    assert "absent: no retrained model was given" in text
    assert "absent: left out by --quick" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "Relearning" not in page.texts("h3")
    assert "There was no retrained model to compare with" in text
    assert "Speed-up" not in text


def test_a_model_of_unknown_origin_is_called_that(make, write, parse) -> None:
    text = " ".join(parse(render(load([write(make(made=False))]))).texts("body")[0].split())
    assert "not known: there is no record of how" in text
    assert "that it comes from the original was not checked" in text


def test_cost_is_read_beside_the_floor_and_retraining(page) -> None:
    flat = [" ".join(e["text"].split()) for e in page.elements if e["tag"] in ("th", "td")]
    assert flat[flat.index("Multiple of the floor") + 1] == "4 ×"
    assert flat[flat.index("Speed-up") + 1] == "30.0 ×"


def test_class_names_are_only_text(make, write, redraw, parse) -> None:
    evil = [EVIL, "猫", "a" * 300, "', \"", "{{ 7*7 }}"]
    names = [*evil, "six", "seven"]
    folder = write(make(names=names, forgotten=(0, 1, 2, 3, 4)), pictures=True)
    redraw(folder)
    html = (folder / "report.html").read_text()
    page = parse(html)
    assert page.wrong == []
    assert page.all("script") == []
    assert all(name in page.all("h1")[0]["text"] for name in evil)
    assert "49" not in page.all("h1")[0]["text"]
    assert "<script" not in (folder / "summary.md").read_text() + (folder / "model-card.md").read_text()


def test_nothing_is_asked_of_the_network_and_no_script_is_there(example, page) -> None:
    html = (example / "report.html").read_text()
    addresses = [e[k] for e in page.elements for k in ("src", "href", "xlink:href", "srcset", "action") if e.get(k)]
    assert all(a.startswith(("#", "data:")) for a in addresses)
    assert "://" not in html
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert not [k for e in page.elements for k in e if k.startswith("on")]
    assert not page.all("script")
    assert page.all("link")[0]["rel"] == "icon"


def test_the_same_record_gives_the_same_bytes(make, write, redraw, example) -> None:
    again = write(make(), pictures=True)
    redraw(again)
    for name in ("report.html", "summary.md", "model-card.md"):
        assert (again / name).read_bytes() == (example / name).read_bytes()
    assert not [p for p in again.iterdir() if "partial" in p.name]


def test_a_hundred_classes_and_large_pictures_stay_small(make, write, named, parse) -> None:
    names = [f"a class with quite a long name, number {i}" for i in range(100)]
    pictures = named((80, 128, 128), (160, 64, 64))
    folder = write(make(names=names, forgotten=tuple(range(0, 40, 4)), retrained=3, **pictures))
    noise = Image.effect_noise((128 * 80, 128), 90).convert("RGB")
    for subject in ("original", "unlearned", "retrained"):
        noise.save(folder / f"inversion-{subject}.png", compress_level=1)
    Image.effect_noise((64 * 160, 64), 90).convert("RGB").save(folder / "samples.png", compress_level=1)
    html = render(load([folder]))
    assert len(html.encode()) < 1_500_000
    text = " ".join(parse(html).texts("body")[0].split())
    assert "20 of 100" in text
    assert "80 others" in text
    assert "the first 48 of 160 are shown" in text
    assert "Were a class with quite a long name, number 0 (class 0)" in text
    assert "and 5 more forgotten?" in text


def pictures_of(make, write, parse, **changes: object) -> dict[str, str]:
    """The captions of a page, by the title of their picture."""
    page = parse(render(load([write(make(**changes), pictures=True)])))
    titles = [page.elements[i + 1]["text"] for i, e in enumerate(page.elements) if e["tag"] == "figure"]
    return dict(zip(titles, page.texts("figcaption"), strict=True))


def test_every_retrained_model_up_to_three_has_its_map(make, write, parse) -> None:
    for count, names in (
        (1, ["retrained"]),
        (2, ["retrained 1", "retrained 2"]),
        (5, [f"retrained {i}" for i in (1, 2, 3)]),
    ):
        page = parse(render(load([write(make(retrained=count))])))
        maps = [e["alt"].partition(".")[0] for e in page.all("img") if e["alt"].startswith("Feature map, ")]
        assert maps == [f"Feature map, {n}" for n in ("original", "unlearned", *names)]
        ids = [e["id"] for e in page.elements if "id" in e]
        assert len(ids) == len(set(ids))
    left_out = "Of 5 retrained models the first 3 are shown."
    assert left_out in pictures_of(make, write, parse, retrained=5)["Feature maps"]
    assert "retrained models the first" not in pictures_of(make, write, parse, retrained=2)["Feature maps"]


def test_a_map_of_the_first_of_several_retrained_models_says_so(make, write, parse) -> None:
    record = make(retrained=2)
    only = tuple(c for c in record.curves if c.name != "map" or c.run == 0)
    caption = pictures_of(make, write, parse, retrained=2, curves=[c.model_dump() for c in only])["Feature maps"]
    assert caption.endswith("Of 2 retrained models the first is shown.")


def test_relearning_says_which_images_it_learned_from(make, write, parse) -> None:
    inputs = make().inputs.model_dump()
    both = inputs | {"images": {"test": 3210, "train": 500}}
    assert "16 train images of each class" in pictures_of(make, write, parse, inputs=both)["Relearning"]
    caption = pictures_of(make, write, parse)["Relearning"]
    assert "one half of the class's test images, at most 16 of each class, was learned from" in caption


def test_raw_scores_are_named_where_there_are_any(make, write, parse) -> None:
    assert "scores.csv" not in pictures_of(make, write, parse)["Membership inference"]
    scores = {"images": {"train": 500, "test": 1000}, "sha256": "0" * 64}
    caption = pictures_of(make, write, parse, scores=scores)["Membership inference"]
    assert "The scores of 500 train and 1,000 test images are in scores.csv, beside audit.json." in caption


def test_how_many_of_a_large_set_were_looked_at(make, write, parse) -> None:
    inputs = make().inputs.model_dump()
    drawn = inputs | {"images": {"test": 20_000, "train": 500}, "given": {"test": 1_000_000}}
    page = parse(render(load([write(make(inputs=drawn))])))
    assert "20,000 of 1,000,000 test images and 500 train images; seed 7" in page.texts("dd")
    assert "3,210 test images" in parse(render(load([write(make())]))).texts("dd")


def test_a_picture_that_was_removed_is_not_shown(make, write, parse) -> None:
    folder = write(make(), pictures=True)
    (folder / "samples.png").unlink()
    (folder / "inversion-original.png").unlink()
    page = parse(render(load([folder])))
    assert "The samples used" not in page.texts("h3")
    assert len(page.all("img")) - len(page.drawings) == 3


def test_pictures_of_version_1_are_found_and_shown(make, write, parse) -> None:
    folder = write(make(), pictures=True)
    raw = version_1(make()) | {"pictures": [], "samples": None}
    (folder / "audit.json").write_text(json.dumps(raw))
    (audit,) = load([folder])
    assert len(audit.images["samples.png"]) == 16
    page = parse(render([audit]))
    assert {"inversion", "The samples used"} <= set(page.texts("h3"))
    assert len(page.all("img")) - len(page.drawings) == 4


def test_masked_drawings_that_are_the_originals_are_shown_once(page) -> None:
    assert "original and masked" in [" ".join(e["text"].split()) for e in page.all("p")]
    assert len(page.all("img")) - len(page.drawings) == 4


def test_several_audits_share_their_references_only_if_they_are_the_same(make, write, parse) -> None:
    one, two = make(), make(inputs=make().inputs.model_dump() | {"unlearned_sha256": "9" * 64})
    page = parse(render(load([write(one, "first"), write(two, "second")])))
    assert page.wrong == []
    assert page.texts("h2") == ["Side by side", "first: kind 3 (class 3)", "second: kind 3 (class 3)"]
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    head = [" ".join(e["text"].split()) for e in page.all("th") if e.get("scope") == "col"][:6]
    assert head == ["measure", "unlearnedfirst", "unlearnedsecond", "original", "masked", "retrained"]

    other = make(inputs=one.inputs.model_dump() | {"original_sha256": "8" * 64})
    table = compared(load([write(one, "left"), write(other, "right")]))
    assert not table.shared
    columns = [(c.subject, c.name) for c in table.columns]
    assert columns[:4] == [("unlearned", "left"), ("unlearned", "right"), ("original", "left"), ("original", "right")]
    assert len(columns) == 8


def test_audits_of_the_same_name_are_numbered(make, write) -> None:
    folder = write(make())
    assert [a.name for a in load([folder, folder])] == ["audit (1)", "audit (2)"]


def test_a_measure_of_somebody_else_is_shown_too(make, write, parse) -> None:
    record = make()
    extra = record.measurements[0].model_copy(update={"name": "their_measure"})
    record = record.model_copy(update={"measurements": (*record.measurements, extra)})
    assert rows(record)[-1].measure.name == "their_measure"
    text = " ".join(parse(render(load([write(record)]))).texts("body")[0].split())
    assert "their_measure" in text
    assert "not measured" in text


def test_names_and_numbers() -> None:
    from unhot.records.audit import PlotData
    from unhot.records.model import ClassLabel
    from unhot.report.figures import category_names

    digits = PlotData(name="confusion", subject="original", x=(0.0, 10.0), y=(0.5, 0.5))
    assert category_names(digits) == ["0", "10"]
    assert class_names([ClassLabel(index=3, name="3"), ClassLabel(index=1, name="cat")]) == "class 3, cat (class 1)"
    assert number(-0.0001) == "0.000"
    assert number(12, "steps") == "12.0"


def test_a_picture_that_is_none_is_refused(make, write) -> None:
    folder = write(make(), pictures=True)
    (folder / "samples.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"samples\.png.*PNG.*image"):
        load([folder])


def test_torch_is_not_imported(make, write) -> None:
    folder = write(make(), pictures=True)
    code = (
        "import sys, pathlib; from unhot.report.page import load, write_audit; "
        "folder = pathlib.Path(sys.argv[1]); (audit,) = load([folder]); "
        "write_audit(folder, audit.record, audit.images); "
        "assert not {'torch', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=folder)
    assert (folder / "report.html").is_file()


def test_a_real_audit_is_drawn(keep_generators, original, digits, tmp_path: Path, parse) -> None:
    masked = cut_classes(original.copy(torch.device("cpu")), [original.label(3)], "mask")
    found = audit(original=original, unlearned=masked, classes=[3], test=digits.test_images, quick=True)
    found.save(tmp_path / "audit")
    page = parse((tmp_path / "audit" / "report.html").read_text())
    assert page.wrong == []
    assert "Hidden at the output only" in page.texts("p")


def test_of_a_similarity_at_the_level_the_share_of_the_gap_is_said(make) -> None:
    keys = [{"name": "original_features_r2", "subject": s} for s in ("unlearned", "masked", "retrained")]
    why = {"code": "as_much_left", "measurements": keys[:1], "numbers": {"closed": 0.2}}
    one = {"label": "at the level of a retrained model", "because": [{"code": "measured", "measurements": keys}, why]}
    record = make(verdict={**one, "holder": "features", "holders": {"features": one}, "thresholds": {"closed": 0.2}})
    said = "at least 20% of the gap between masked and retrained is closed."
    assert sentence(record.verdict.because[1], record).endswith(f": {said}")
    assert conclusions(record)[0].endswith(f"; {said}")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0996, "100 ms"), (0.0123, "12 ms"), (0.0012, "1.2 ms"), (0.1, "0.1 s"), (120, "120 s")]
)
def test_a_duration_is_written_without_an_exponent(value: float, text: str) -> None:
    assert seconds(value) == text
