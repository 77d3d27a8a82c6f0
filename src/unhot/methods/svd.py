r"""SVD class forgetting: project out of every layer's inputs the directions that only the class uses.

Source: Kodge, Saha, Roy: Deep unlearning: fast and efficient gradient-free class forgetting, TMLR 2024 (arXiv
2312.00761), algorithm 1, and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from unhot.data.images import CACHED, LabelledImages, at_once
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.models.layers import input_rows, weight_layers
from unhot.runtime import Runtime

ALPHAS_R, ALPHAS_F = (1000.0, 300.0, 100.0, 30.0, 10.0), (1.0, 3.0, 10.0, 30.0, 100.0)  # mildest first


class Svd(Method):
    r"""Project the weights of every layer, in closed form.

    .. math::
        W \leftarrow W P^\top, \quad P = I - (M_f - M_f M_r), \quad M = U \operatorname{diag}\left(
        \frac{\alpha s_i}{(\alpha - 1) s_i + 1} \right) U^\top, \quad s_i = \sigma_i^2 / \textstyle\sum_j \sigma_j^2

    with :math:`U, \sigma` of the layer's inputs, those of a convolution unfolded, on samples of the class
    (:math:`M_f`) and on retained images (:math:`M_r`). With :math:`S` the inputs' second moment of trace 1, :math:`M =
    \alpha S ((\alpha - 1) S + I)^{-1}`, which is the same and needs no decomposition. Layers are linear ones, the head
    among them, convolutions without groups, and the input projection of self-attention.
    As in the released demo, the alphas are chosen by the product of accuracy on the retained images and error on the
    samples; those tried are the ones of the released tuning script.

    Attributes:
        alpha_r: Scale by which directions of the retained images are spared; None to search from 10 to 1000.
        alpha_f: Scale by which directions of the class are projected out; None to search from 1 to 100.
        per_class: Number of images of each retained class that are read.
        patches: Approximate number of inputs of a layer that are read, of each of the two sets.
    """

    name: ClassVar[str] = "svd"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        code="Patches are drawn from all over the image. The output projection of `nn.MultiheadAttention` is left as "
        "it is.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {
        "cifar10": {"alpha_r": 100.0, "alpha_f": 3.0},
        "cifar100": {"alpha_r": 1000.0, "alpha_f": 30.0, "per_class": 10},
        "imagenet": {"alpha_r": 100.0, "alpha_f": 10.0, "per_class": 1},
    }

    alpha_r: float | None = Field(default=None, gt=0)
    alpha_f: float | None = Field(default=None, gt=0)
    per_class: int = Field(default=100, ge=1)
    patches: int = Field(default=10_000, ge=1)

    @torch.no_grad()
    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Measure the inputs of each layer, project all layers, and keep the best alphas."""
        x, y, _ = data.forget
        weights = projected_weights(model, x[:1])
        before = {name: weight.clone() for name, weight in weights.items()}
        size = at_once(x, CACHED)  # unfolded for a 3x3 convolution they take nine times the memory
        retained = list(few_of_each(data.retain, self.per_class, runtime).batches(model.input, runtime.device, size))
        samples = list(zip(x.split(size), y.split(size), strict=True))
        used_f = self._moments(model, list(weights), [x for x, _ in samples], runtime.generator("forget patches"))
        used_r = self._moments(model, list(weights), [x for x, _ in retained], runtime.generator("retain patches"))
        scores = {}
        for alpha_f in ALPHAS_F if self.alpha_f is None else (self.alpha_f,):
            class_uses = spaces(used_f, alpha_f)
            for alpha_r in ALPHAS_R if self.alpha_r is None else (self.alpha_r,):
                project(weights, before, class_uses, spaces(used_r, alpha_r))
                scores[alpha_f, alpha_r] = accuracy(model, retained) * (1 - accuracy(model, samples))
        alpha_f, alpha_r = max(scores, key=scores.__getitem__)
        project(weights, before, spaces(used_f, alpha_f), spaces(used_r, alpha_r))
        return Outcome(model, "done", {"alpha_f": alpha_f, "alpha_r": alpha_r, "score": scores[alpha_f, alpha_r]})

    def _moments(
        self, model: Classifier, names: list[str], batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the second moment (d, d) of the inputs of each layer, scaled to trace 1."""
        total, moments = sum(map(len, batches)), dict.fromkeys(names, torch.zeros(()))
        for x in batches:
            with model.recording(names) as seen:
                model.logits(x)
            for name in names:
                rows = input_rows(model.module.get_submodule(name), seen[name])
                count = -(-self.patches * len(x) // total)
                rows = rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
                moments[name] = moments[name].to(rows) + rows.T @ rows
        return {n: m / m.trace().clamp_min(torch.finfo(m.dtype).tiny) for n, m in moments.items()}


def project(
    weights: dict[str, nn.Parameter], before: dict[str, Tensor], m_f: dict[str, Tensor], m_r: dict[str, Tensor]
) -> None:
    """Set each weight to its original, projected."""
    for name, weight in weights.items():
        flat = before[name].flatten(1).to(m_f[name].dtype)
        weight.copy_((flat - flat @ (m_f[name] - m_f[name] @ m_r[name]).T).view_as(weight))


def spaces(moments: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return M of each layer."""
    return {name: space(moment, alpha) for name, moment in moments.items()}


def accuracy(model: Classifier, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the share of images that are classified correctly."""
    right = sum(int((model.logits(x).argmax(1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def space(moment: Tensor, alpha: float) -> Tensor:
    """Return M (d, d) of a second moment (d, d) of trace 1: its directions, weighted by how much they are used."""
    unit = torch.eye(len(moment)).to(moment)
    found: Tensor = torch.linalg.solve((alpha - 1) * moment + unit, alpha * moment)
    return found


def few_of_each(images: LabelledImages, count: int, runtime: Runtime) -> LabelledImages:
    """Draw no more than ``count`` images of each class."""
    order = torch.randperm(len(images), generator=runtime.generator("retained images"))
    classes = images.y[order].cpu()
    return images.select(torch.cat([order[classes == c][:count] for c in classes.unique()]))


def projected_weights(model: Classifier, x: Tensor) -> dict[str, nn.Parameter]:
    """Return the weights that are projected, by the name of their layer; one of a head that is computed is left out."""
    head = [] if is_parametrized(model.head_layer) else [model.head]
    names = [*weight_layers(model, x), *head]
    weights = {n: model.module.get_submodule(n).get_parameter("weight") for n in names}
    for name, layer in model.module.named_modules():
        if isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
            weights[name] = layer.in_proj_weight
    return weights
