"""Records of audits that never ran: every field filled, from a seeded generator."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from unhot.evaluation.catalogue import BUILTIN
from unhot.records.audit import FEW_SHOT, AuditRecord
from unhot.report.audited import Audited
from unhot.report.page import write_audit

SUBJECTS = ("original", "masked", "unlearned", "retrained")
NEEDS_RETRAINED = ("to_retrained", "relearn_ratio", "class_mia_gap")
VOID = {"meta", "link", "img", "br"}
SVG = "data:image/svg+xml;base64,"


class Page(HTMLParser):
    """A page as a list of elements, with the text in each; unbalanced tags are collected, and drawings read too."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[dict] = []
        self.elements: list[dict] = []
        self.drawings: list[Page] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.wrong += [f"<{e['tag']}> is never closed" for e in self.stack]

    def handle_starttag(self, tag: str, attrs: list) -> None:
        element = {"tag": tag, "text": "", "within": [e["tag"] for e in self.stack], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)
        if tag == "img" and (address := element["src"]).startswith(SVG):
            drawing = Page(base64.b64decode(address.removeprefix(SVG)).decode())
            self.drawings.append(drawing)
            self.wrong += drawing.wrong
            self.handle_data(drawing.texts("svg")[0])

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append({"tag": tag, "text": "", "within": [e["tag"] for e in self.stack], **dict(attrs)})

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1]["tag"] != tag:
            self.wrong.append(f"</{tag}> closes <{self.stack[-1]['tag'] if self.stack else 'nothing'}>")
        else:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        for element in self.stack:
            element["text"] += data

    def all(self, tag: str) -> list[dict]:
        return [e for e in self.elements if e["tag"] == tag]

    def texts(self, tag: str) -> list[str]:
        return [" ".join(e["text"].split()) for e in self.all(tag)]


def _measurements(rng: random.Random, retrained: int, quick: bool) -> list[dict]:
    found = []
    for name in BUILTIN:
        for split in ("train", "test") if name in ("forget_accuracy", "retain_accuracy") else ("test",):
            for subject in SUBJECTS:
                m = {"name": name, "subject": subject, "split": split, "higher_is_better": False}
                if quick and name.startswith(("relearn", "inversion", "over_")):
                    m["absent_because"] = "left out by --quick"
                elif not retrained and (subject == "retrained" or any(n in name for n in NEEDS_RETRAINED)):
                    m["absent_because"] = "no retrained model was given"
                else:
                    v = round(rng.uniform(0.1, 0.9), 3)
                    m |= {"value": v, "low": v - 0.05, "high": v + 0.05, "n": 321}
                    if subject == "retrained" and retrained > 1:
                        m["runs"] = [round(v + 0.01 * i, 3) for i in range(retrained)]
                found.append(m)
    return found


def _curves(rng: random.Random, names: list[str], models: list[tuple[str, int]], quick: bool, held: bool) -> list[dict]:
    found = []
    steps = [float(s) for s in range(0, 44, 4)]
    groups = [rng.choice(names) for _ in range(600)]
    for subject, run in models:
        weights = [rng.random() ** 3 for _ in names]
        points = sorted(rng.random() for _ in range(300))
        found += [
            {"name": "confusion", "x": names, "y": [w / sum(weights) for w in weights]},
            {"name": "roc", "x": [0.0, *points, 1.0], "y": [0.0, *(p**0.7 for p in points), 1.0]},
        ]
        if subject != "masked" and run < 3:
            x = [rng.gauss(len(g), 2) for g in groups]
            found.append({"name": "map", "x": x, "y": [rng.gauss(0, 2) for _ in groups], "groups": groups})
        for name in FEW_SHOT if held else ("few-shot",):
            found.append({"name": name, "x": [1.0, 5.0, 20.0], "y": sorted(rng.random() for _ in range(3))})
        if not quick:
            found.append({"name": "relearning", "x": steps, "y": [min(1.0, s / 20 * rng.random()) for s in steps]})
            if subject != "masked":
                x = ["conv1", *(f"layer{i}.1.conv2" for i in range(1, 7)), "penultimate"]
                found.append({"name": "layers", "x": x, "y": [rng.random() for _ in x]})
        for curve in found:
            curve.setdefault("subject", subject)
            curve.setdefault("run", run)
    return found


def _made_by(environment: dict, forgotten: list[dict]) -> dict:
    return {
        "digest": "f" * 64,
        "method": "nhle-cwm",
        "hyperparameters": {"step_size": 0.02, "encoding": "masked", "nested": {"a": [1, 2]}},
        "uses": ["forget"],
        "classes": forgotten,
        "samples": {
            "origin": "pictures & drawings",
            "count": [16] * len(forgotten),
            "indices": list(range(16 * len(forgotten))),
            "sha256": ["ab" * 32] * (16 * len(forgotten)),
        },
        "seed": 7,
        "model_sha256": "1" * 64,
        "weights_sha256": "2" * 64,
        "stop_reason": "all steps done",
        "notes": {"probability_left": 0.04},
        "recognised": [{"label": c, "n": 16, "before": 15, "after": 1} for c in forgotten],
        "cost": {"seconds": 2.0, "peak_memory_bytes": 2**28, "steps": 12},
        "environment": environment,
    }


def _verdict_for_holders() -> dict:
    """A verdict that differs from holder to holder: what is compared, what is alike, and what has no effect."""

    def compared(code: str, *names: str) -> list[dict]:
        read = [[{"name": n, "subject": s} for s in ("unlearned", "masked", "retrained")] for n in names]
        why = {"code": code, "measurements": [keys[0] for keys in read], "numbers": {"closed": 0.2}}
        return [*({"code": "measured", "measurements": keys} for keys in read), why]

    short = compared("more_left", "recovery_1_shot", "recovery_5_shot")
    unused = {"code": "unused_weights", "numbers": {"count": 2048}}
    return {
        "label": "short of a retrained model",
        "because": short,
        "holder": "features",
        "holders": {
            "outputs": {
                "label": "at the level of a retrained model",
                "because": compared("as_much_left", "output_recovery_1_shot"),
            },
            "features": {"label": "short of a retrained model", "because": short},
            "weights": {"label": "undecided", "because": [unused, *short]},
        },
        "thresholds": {"forgotten": 0.05, "closed": 0.2},
    }


@pytest.fixture(scope="session")
def make() -> Callable[..., AuditRecord]:
    """Make a record: names of the classes, which are forgotten, how many retrained models, ...

    It knows no holders, as older ones do not, unless ``held``.
    """

    def record(
        names: list[str] | None = None,
        forgotten: tuple[int, ...] = (3,),
        retrained: int = 1,
        quick: bool = False,
        made: bool = True,
        held: bool = False,
        **changes: object,
    ) -> AuditRecord:
        rng = random.Random(1)
        names = names or [f"kind {i}" for i in range(10)]
        labels = [{"index": i, "name": n} for i, n in enumerate(names)]
        chosen = [labels[i] for i in forgotten]
        models = [(s, 0) for s in SUBJECTS[:3]] + [("retrained", i) for i in range(retrained)]
        environment = dict.fromkeys(("unhot", "python", "torch", "torchvision", "platform", "processor"), "1.0")
        environment |= {"cpu_threads": 2, "device": "cpu"}
        read = [{"name": "probe_accuracy", "subject": s} for s in ("unlearned", "masked", "retrained")]
        below = [{"name": "knn_accuracy", "subject": s} for s in ("unlearned", "retrained")]
        values = {
            "classes": chosen,
            "measurements": _measurements(rng, retrained, quick),
            "verdict": {
                "label": "short of a retrained model",
                "because": [
                    {"code": "measured", "measurements": read},
                    {"code": "gap_closed", "measurements": [], "numbers": {"share": 0.59, "gap": 1.1}},
                ],
                "thresholds": {"forgotten": 0.05, "damage": 0.1},
                "flags": [{"code": "below_retrained", "measurements": below}],
            },
            "per_class": [
                {"subject": s, "split": sp, "label": c, "value": 0.5, "low": 0.4, "high": 0.6, "n": 50}
                for s in dict(models)
                for sp in ("train", "test")
                for c in labels
            ],
            "curves": _curves(rng, names, models, quick, held),
            "seed": 7,
            "attacks": {"relearning": {"shots": 16, "tries": 2}, "inversion": {"images": 8}, "membership": {}},
            "inputs": {
                "original_sha256": "1" * 64,
                "unlearned_sha256": "2" * 64,
                "retrained_sha256": [str(3 + i) * 64 for i in range(retrained)],
                "data": "pictures, test split",
                "data_sha256": {"test": "e" * 64},
                "images": {"test": 3210},
            },
            "made_by": _made_by(environment, chosen) if made else None,
            "cost": {
                "forget_seconds": 2.0 if made else None,
                "floor_seconds": 0.5 if made else None,
                "retrain_seconds": 60.0 if retrained else None,
                "audit_seconds": 30.0,
                "forward_seconds": 3.0,
            },
            "environment": environment,
        }
        if held:
            values["verdict"] = _verdict_for_holders()
        return AuditRecord.model_validate(values | changes)

    return record


def named_pictures(drawn: tuple[int, int, int] = (8, 10, 12), samples: tuple[int, int, int] = (16, 8, 8)) -> dict:
    """What a record says of its pictures, of which there are so many of some height and width."""

    def described(file: str, size: tuple[int, int, int]) -> dict:
        return {"file": file} | dict(zip(("images", "height", "width"), size, strict=True))

    files = {s: described(f"inversion-{s}.png", drawn) for s in SUBJECTS}
    inversion = {"name": "inversion", "title": "What the models still draw", "caption": "From noise.", "files": files}
    return {"pictures": [inversion], "samples": described("samples.png", samples)}


def draw_again(folder: Path) -> None:
    """Write what an audit writes, from the folder that one wrote."""
    audit = Audited.read(folder)
    write_audit(folder, audit.record, audit.images)


@pytest.fixture(scope="session")
def named() -> Callable[..., dict]:
    return named_pictures


@pytest.fixture(scope="session")
def redraw() -> Callable[[Path], None]:
    return draw_again


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a record as a folder that an audit might have written."""

    def folder(record: AuditRecord, name: str = "audit", pictures: bool = False) -> Path:
        path = tmp_path_factory.mktemp("report") / name
        path.mkdir()
        if pictures:
            for i, subject in enumerate(SUBJECTS):
                shade = max(0, i - 1) * 60  # masked draws what the original draws
                Image.new("RGB", (8 * 12, 10), (shade, 90, 40)).save(path / f"inversion-{subject}.png")
            Image.new("L", (16 * 8, 8), 90).save(path / "samples.png")
            record = AuditRecord.model_validate(record.model_dump() | named_pictures())
        record.write(path / "audit.json")
        return path

    return folder


@pytest.fixture(scope="session")
def parse() -> type[Page]:
    return Page


@pytest.fixture(scope="session")
def example(make, write) -> Path:
    """A folder with its report, of an audit with one retrained model and all pictures; read only."""
    folder = write(make(), pictures=True)
    draw_again(folder)
    return folder


@pytest.fixture(scope="session")
def page(example: Path) -> Page:
    return Page((example / "report.html").read_text())
