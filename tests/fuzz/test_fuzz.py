"""2,000 damaged files and odd commands: each is used, or refused with a sentence; none hangs, crashes or acts.

What is damaged is chosen by seeded generators, so that a failure names its seed and can be had again.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import signal
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import damaged, mutated, toml
from PIL import Image
from torch import nn

import unhot
from unhot.bench.results import write_all
from unhot.cli import main
from unhot.data.concept import LabelMap
from unhot.data.source import load_source
from unhot.errors import UnhotError
from unhot.models.formats.weights import WeightsFile, load_weights
from unhot.records.audit import AuditRecord
from unhot.records.forget import ForgetRecord
from unhot.records.graph import Graph
from unhot.records.model import InputSpec
from unhot.records.results import Results
from unhot.report.audited import Audited
from unhot.report.content import content
from unhot.report.markdown import model_card, summary
from unhot.statistics import METADATA, ClassStatistics

SECONDS = 60  # for one input, on a busy machine; they take milliseconds
NAMES = ("cat", "dog", "owl", "elk")
RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("keep_generators")]

GRID = """
schema = 1
name = "small"
[fixed]
dataset = "digits"
arch = "lenet5"
shots = 4
retrained = 1
train = { epochs = 2, lr = 0.1 }
arch_options = { lenet5 = {} }
[grid]
class = [1, [6, "3"]]
seed = [0, 1]
[[method]]
name = "mask"
[[method]]
name = "nhle-cwm"
options = { steps = 2 }
grid = { step_size = [0.1, 0.2] }
guard = false
"""


class Files(NamedTuple):
    """What was written by unhot itself, and is read only."""

    root: Path
    bundle: Path
    unlearned: Path
    guard: Path
    tree: Path
    audit: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("whole")
    pixels = torch.Generator().manual_seed(0)
    for i, name in enumerate(NAMES):
        for split in ("train", "test"):
            (root / "tree" / split / name).mkdir(parents=True)
            for k in range(6):
                noise = torch.randint(0, 40, (8, 8), dtype=torch.uint8, generator=pixels) + 50 * i
                Image.fromarray(noise.numpy()).save(root / "tree" / split / name / f"{k}.png")
    source = load_source(str(root / "tree"))
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    model = unhot.Classifier.wrap(net.eval(), example=torch.rand(2, 1, 8, 8), class_names=list(NAMES), input=spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unhot.save(model, root / "bundle")
        ClassStatistics.collect(model, source.train_images).save(root / "guard.safetensors")
        argv = ["--class", "owl", "--method", "mask", "--samples", root / "tree" / "train" / "owl", "--force"]
        assert quietly("forget", root / "bundle", *argv, "--out", root / "unlearned")[0] == 0
        argv = ["--original", root / "bundle", "--unlearned", root / "unlearned", "--class", "owl", "--quick"]
        assert quietly("audit", *argv, "--data", root / "tree", "--out", root / "audit")[0] == 0
    return Files(root, root / "bundle", root / "unlearned", root / "guard.safetensors", root / "tree", root / "audit")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Fail what takes too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def quietly(*argv: object) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in argv])
    return code, out.getvalue(), err.getvalue()


def wrong(*argv: object) -> str | None:
    """Run a command; say what is wrong with what it said."""
    code, out, err = quietly(*argv)
    if re.search(r"Traceback|unexpectedly|nests too deeply", err):
        return err[-400:]
    if any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in out + err):
        return f"control characters: {(out + err)[-400:]!r}"
    return None if code in (0, 3) or (code in (1, 2) and "Error: " in err) else f"exit code {code}: {err[-400:]}"


def refused(read: Callable[[], object]) -> str | None:
    """Read something; say what is raised besides a refusal."""
    try:
        with limited():
            read()
    except UnhotError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def check(count: int, attempt: Callable[[random.Random, int], str | None]) -> None:
    """Try something with many seeds, and fail with those that were not taken well."""
    found = {seed: said for seed in range(count) if (said := attempt(random.Random(seed), seed)) is not None}
    listed = "\n".join(f"seed {seed}: {said}" for seed, said in list(found.items())[:8])
    assert not found, f"{len(found)} of {count}:\n{listed}"


def copied(files: Files, source: Path, place: Path, name: str, content: bytes) -> Path:
    """Make a folder of links to the files of another one, but with one file of its own."""
    place.mkdir()
    for path in source.iterdir():
        if path.name != name:
            (place / path.name).symlink_to(path)
    (place / name).write_bytes(content)
    return place


def odd_json(path: Path, rng: random.Random) -> bytes:
    """Return a JSON file with a part that does not fit, or with damaged bytes."""
    if rng.random() < 0.15:
        return damaged(path.read_bytes(), rng)
    return json.dumps(mutated(json.loads(path.read_text("utf-8")), rng, rng.choice((1, 1, 2)))).encode()


def test_audit_records(files: Files, tmp_path: Path) -> None:
    bare = json.loads((files.audit / "audit.json").read_text("utf-8")) | {"curves": [], "per_class": []}
    (tmp_path / "bare.json").write_text(json.dumps(bare), "utf-8")

    def attempt(rng: random.Random, seed: int) -> str | None:
        path = files.audit / "audit.json" if seed % 32 == 0 else tmp_path / "bare.json"
        folder = tmp_path / f"audit-{seed}"
        folder.mkdir()
        (folder / "audit.json").write_bytes(odd_json(path, rng))
        if seed % 8 == 0:
            return wrong("report", folder, "--out", tmp_path / f"{seed}.html")
        return refused(lambda: said(folder))

    def said(folder: Path) -> object:
        audit = Audited.read(folder)
        return content(audit, "a"), summary(audit.record), model_card(audit.record)

    check(320, attempt)


def test_curves(files: Files) -> None:
    whole = json.loads((files.audit / "audit.json").read_text("utf-8"))

    def attempt(rng: random.Random, _: int) -> str | None:
        odd = mutated({k: whole[k] for k in ("curves", "per_class", "inputs")}, rng, rng.choice((1, 2)))
        return refused(lambda: AuditRecord.parse(json.dumps(whole | odd), "audit.json"))

    check(150, attempt)


def test_records(files: Files) -> None:
    path = files.unlearned / "record.json"

    def attempt(rng: random.Random, _: int) -> str | None:
        text = odd_json(path, rng).decode(errors="replace")
        return refused(lambda: ForgetRecord.parse(text, "record.json").to_json().encode())

    check(200, attempt)


def test_results(tmp_path: Path) -> None:
    raw = json.loads((RECORDS / "bench-guard-seeds.json").read_text("utf-8"))
    raw["rows"] = raw["rows"][:6]
    (tmp_path / "results.json").write_text(json.dumps(raw), "utf-8")
    (tmp_path / "out").mkdir()

    def attempt(rng: random.Random, _: int) -> str | None:
        text = odd_json(tmp_path / "results.json", rng).decode(errors="replace")
        return refused(lambda: write_all(Results.parse(text, "results.json"), tmp_path / "out"))

    check(150, attempt)


def test_grids(tmp_path: Path) -> None:
    def attempt(rng: random.Random, seed: int) -> str | None:
        path = tmp_path / f"{seed}.toml"
        odd = toml(mutated(tomllib.loads(GRID), rng, rng.choice((1, 1, 2)))).encode()
        path.write_bytes(damaged(GRID.encode(), rng) if seed % 4 == 0 else odd)
        return wrong("bench", path, "--dry-run")

    check(110, attempt)


def test_label_maps(tmp_path: Path) -> None:
    whole = {"pets": ["cat", "dog"], "wild": ["owl", "elk"]}
    (tmp_path / "map.json").write_text(json.dumps(whole))

    def attempt(rng: random.Random, seed: int) -> str | None:
        path = tmp_path / f"{seed}.json"
        path.write_bytes(odd_json(tmp_path / "map.json", rng))
        names = rng.sample([*NAMES, "pets", "wild", ""], 2)
        return refused(
            lambda: LabelMap.read(path).concept(names, rng.choice((NAMES, ("pets", "wild"))), names[:1]).parts
        )

    check(200, attempt)


def test_guards(files: Files, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(files.guard, "pt") as file:
        text = file.metadata()[METADATA]
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 - it is not a dict

    def attempt(rng: random.Random, seed: int) -> str | None:
        path = tmp_path / f"{seed}.safetensors"
        if seed % 2:
            path.write_bytes(damaged(files.guard.read_bytes(), rng))
        else:
            save_file(tensors, path, {METADATA: json.dumps(mutated(json.loads(text), rng))})
        return wrong("guard", path, "--drop", "cat", "--out", tmp_path / f"{seed}.out")

    check(110, attempt)


def test_weights(files: Files, tmp_path: Path) -> None:
    whole = (files.bundle / "model.safetensors").read_bytes()

    def attempt(rng: random.Random, seed: int) -> str | None:
        path = tmp_path / f"{seed}.{rng.choice(('safetensors', 'pt'))}"
        path.write_bytes(damaged(whole, rng))
        return refused(lambda: load_weights(path, WeightsFile(arch="lenet5", input=None, arch_options={})))

    check(100, attempt)


def test_bundles(files: Files, tmp_path: Path) -> None:
    def attempt(rng: random.Random, seed: int) -> str | None:
        odd = odd_json(files.bundle / "bundle.json", rng)
        folder = copied(files, files.bundle, tmp_path / f"bundle-{seed}", "bundle.json", odd)
        return refused(lambda: unhot.load(folder))

    check(150, attempt)


def test_graphs(files: Files) -> None:
    """As text; what their operators do is tried in processes of their own."""

    def attempt(rng: random.Random, _: int) -> str | None:
        text = odd_json(files.bundle / "graph.json", rng).decode(errors="replace")
        return refused(lambda: Graph.parse(text, "graph.json"))

    check(140, attempt)


def test_images(files: Files, tmp_path: Path) -> None:
    picture = Image.open(files.tree / "train" / "cat" / "0.png")
    kinds = {}
    for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp"):
        picture.save(tmp_path / f"whole.{kind}")
        kinds[kind] = (tmp_path / f"whole.{kind}").read_bytes()
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))

    def read(folder: Path) -> object:
        images = unhot.folder(folder).images
        return images.inputs(torch.arange(len(images)), spec, torch.device("cpu"))

    def attempt(rng: random.Random, seed: int) -> str | None:
        folder, kind = tmp_path / f"images-{seed}", rng.choice(sorted(kinds))
        folder.mkdir()
        (folder / f"x.{kind}").write_bytes(damaged(kinds[kind], rng))
        return refused(lambda: read(folder))

    check(180, attempt)


ODD = st.sampled_from(
    ["", "-1", "0", "99999999999999999999", "1e999", "nan", "\x1b[31m", "caf\udce9", "=1", "[" * 9_000]
)
ODD |= st.text(st.characters(exclude_characters="\x00"), max_size=6)


@settings(max_examples=260)
@given(data=st.data())
def test_options(files: Files, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    out = tmp_path_factory.mktemp("options") / "out"
    place = st.sampled_from([str(files.tree), str(files.tree / "train" / "owl"), str(files.bundle), "digits"]) | ODD
    named = st.sampled_from(["owl", "0", *NAMES]) | ODD
    setting = st.sampled_from(["cut=mask", "steps=2", "steps=-1", "step_size=1e999", "encoding=masked"]) | ODD
    options = {
        "forget": {"--class": named, "--samples": place, "--shots": ODD, "--seed": ODD, "-o": setting, "--head": ODD,
                   "--method": st.sampled_from(["mask", "nhle-cwm"]) | ODD, "--guard": place, "--retain": place},
        "audit": {"--original": place, "--unlearned": place, "--class": named, "--data": place, "--require": ODD},
        "guard": {"--drop": named, "--max-images": ODD, "--data": ODD},
        "report": {},
        "show": {},
        "list": {},
        "bench": {"--workers": ODD, "--backend": ODD},
    }  # fmt: skip
    command = data.draw(st.sampled_from(sorted(options)))
    argv = [command, data.draw(place)] if command != "audit" else [command, "--quick"]
    for name, values in options[command].items():
        if data.draw(st.booleans()):
            argv += [name, data.draw(values)]
    argv += ["--json"] if data.draw(st.booleans()) else []
    argv += ["--out", str(out)] if command not in ("show", "list") else []
    assert wrong(*argv) is None, argv
