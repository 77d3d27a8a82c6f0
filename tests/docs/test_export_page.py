"""Every command and every line of Python of the page on exports runs, in the order of the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pages import DOCS, blocks, run
from unhot.models.arch import build
from unhot.models.bundle import save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence

PAGE = DOCS / "export.md"


@pytest.fixture
def here(original: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the page names: two bundles, a folder of transformers, and photos."""
    save(cut_classes(original.copy(), [original.label(3)], "mask"), tmp_path / "unlearned")
    torch.manual_seed(0)
    _folder_of_transformers(tmp_path)
    net = build("timm:test_resnet", 4, None).eval()
    spec = InputSpec(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    small = Classifier.wrap(net, torch.randn(2, 3, 32, 32), class_names=["zero", "one", "two", "three"], input=spec)
    model = replace(small, arch="timm:test_resnet")
    save(cut_classes(model, [model.label("three")], "mask"), tmp_path / "timm-unlearned")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _folder_of_transformers(folder: Path) -> None:
    """Save a net that answers "three" for bright photos, and a few of these."""
    torchvision_ops.prepare()
    with silence():
        import transformers

        names = ["nil", "one", "two", "three"]
        config = transformers.ResNetConfig(
            embedding_size=4,
            hidden_sizes=[8],
            depths=[1],
            layer_type="basic",
            id2label=dict(enumerate(names)),
            label2id={n: i for i, n in enumerate(names)},
        )
        net = transformers.ResNetForImageClassification(config).eval()
        with torch.no_grad():
            net.classifier[1].weight[3] = 1.0  # of features that are never negative
        net.save_pretrained(folder / "hf-model")
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "hf-model")
    (folder / "photos").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(100, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::unhot.errors.UnhotWarning")
@pytest.mark.usefixtures("keep_generators")
def test_the_page_runs_as_it_stands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(block.language == "python" for block in blocks(PAGE)) >= 4
    run(PAGE, capsys)
    with torch.no_grad():
        answers = torch.jit.load("from_python.pt")(torch.randn(500, 1, 16, 16, generator=torch.Generator()))
    assert 3 not in answers.argmax(1).tolist()


def test_the_page_says_what_the_code_accepts() -> None:
    from unhot.models.formats.exports.comparison import BATCHES, TOLERANCE

    text = " ".join(PAGE.read_text().split())
    assert "batches of {}, {}, {} and {}".format(*BATCHES) in text
    said = {torch.float32: "0.0001 in float32", torch.float16: "0.02 in float16", torch.bfloat16: "0.05 in bfloat16"}
    for kind, words in said.items():
        assert words in text
        assert float(words.split()[0]) == TOLERANCE[kind]
