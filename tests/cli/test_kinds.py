"""Every kind of model of the table is read as its own library reads it, or refused with its words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from kinds import CLASSES, KINDS, Kind
from unhot.cli.models import ModelOptions
from unhot.cli.options import PreprocessingOptions
from unhot.errors import InputError
from unhot.models.adapted import part_of
from unhot.models.bundle import load, save
from unhot.models.cut import cut_classes
from unhot.models.formats.origin import original_state
from unhot.models.head_edits.mask import CUT_LOGIT

KEPT = ("DeiT, distilled", "timm, a convolution as head (DLA)", "Lightning")  # tracing all of them takes long


def logits_of(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: Any = net(x.to(next(net.parameters()).dtype))
    return out if isinstance(out, torch.Tensor) else part_of(out, "1" if isinstance(out, tuple) else "logits")


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.group}: {k.what}")
def test_kind(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    made = kind.make(tmp_path / "given")
    options = dict(made.options)
    options["preprocessing"] = PreprocessingOptions(image_size=options.pop("size", None))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind.words:
            with pytest.raises(InputError) as refused:
                ModelOptions(**options).load(made.path)
            assert kind.words in str(refused.value)
            return
        model = ModelOptions(**options).load(made.path)
    assert kind.said in " ".join(str(w.message) for w in caught)
    assert made.net is not None
    assert model.input is not None
    assert [c.name for c in model.classes] == list(CLASSES if made.named else "01234")
    x = torch.rand(3, *model.input.shape, generator=torch.Generator().manual_seed(1))
    wanted, short = (
        logits_of(made.net, x).float(),
        model.head_layer.weight.element_size() == 2,
    )
    near = {"atol": 0.05, "rtol": 0.05} if short else {"atol": 1e-4, "rtol": 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(model.logits(x).float(), wanted, **near)
        cut = cut_classes(model.copy(), [model.classes[3]], "mask")
        assert (cut.logits(x)[:, 3] == CUT_LOGIT).all()  # both heads of two
        torch.testing.assert_close(cut.logits(x)[:, :3].float(), wanted[:, :3], **near)
        if kind.what in KEPT:
            save(cut, tmp_path / "bundle")
            found = load(tmp_path / "bundle")
            torch.testing.assert_close(found.logits(x), cut.logits(x), atol=1e-4, rtol=1e-4)
            assert found.origin == cut.origin
            assert original_state(found).keys() >= made.net.state_dict().keys()
            trusted = load(tmp_path / "bundle", trust_arch=model.arch)
            torch.testing.assert_close(trusted.logits(x), cut.logits(x), atol=1e-4, rtol=1e-4)
