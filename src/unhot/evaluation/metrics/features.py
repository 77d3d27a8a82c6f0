"""What can still be read from the features: probe, nearest neighbours, class means, separability, CKA.

A retrained model's features separate a class that it never saw, too: read every value beside the retrained model's.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize

from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.stats import Estimate, around, averaged, mean, proportion

NEIGHBOURS = 20
PROBE_C = 0.1  # inverse strength of the probe's L2 penalty on standardised features
SILHOUETTE_IMAGES = 2_000


def probe_accuracy(case: Case) -> Estimate:
    """Return the accuracy on the forgotten classes of a softmax regression of all classes on the frozen features.

    It is fitted to standardised features of the train images (or of half of the test images), L2 penalty 1/C = 10.

    Source: "linear probe", METHODS of CMF (AISTATS 2026) and ESC (CVPR 2025); unlike there, fitted by L-BFGS.
    """
    return probe(case, None)


def probe(case: Case, layer: str | None) -> Estimate:
    """Return :func:`probe_accuracy` on the features of a layer."""
    gallery, queries = case.gallery(layer), case.queries(layer)
    _enough(case, gallery.y, queries.y, 5)
    asked = case.is_forget(queries.y)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=200, tol=1e-3))
    model.fit(gallery.features.numpy(), gallery.y.numpy())
    predicted = model.predict(queries.features[asked].numpy())
    return proportion(torch.from_numpy(predicted) == queries.y[asked])


def knn_accuracy(case: Case) -> Estimate:
    """Return the accuracy on the forgotten classes of the 20 nearest neighbours by cosine, of all classes."""
    gallery, queries = case.gallery(), case.queries()
    _enough(case, gallery.y, queries.y, NEIGHBOURS)
    asked = case.is_forget(queries.y)
    near = normalize(queries.features[asked]) @ normalize(gallery.features).T
    found = gallery.y[near.topk(NEIGHBOURS, dim=1).indices]
    return proportion(found.mode(dim=1).values == queries.y[asked])


def ncm_accuracy(case: Case) -> Estimate:
    """Return the accuracy on the forgotten classes of the nearest class mean, Euclidean, of all classes."""
    gallery, queries = case.gallery(), case.queries()
    _enough(case, gallery.y, queries.y, 5)
    asked = case.is_forget(queries.y)
    classes = gallery.y.unique()
    means = torch.stack([gallery.features[gallery.y == c].mean(0) for c in classes])
    predicted = classes[torch.cdist(queries.features[asked], means).argmin(1)]
    return proportion(predicted == queries.y[asked])


def feature_fisher_ratio(case: Case) -> Estimate:
    r"""Return how far the forgotten class lies from its nearest class: :math:`\min_k |\mu_f-\mu_k|^2 / tr \Sigma_f`.

    With several forgotten classes the mean of theirs. The interval is that of 20 bootstrap samples of the images.
    """
    view, rng = case.view, np.random.default_rng(0)
    if min(int((view.y == f).sum()) for f in view.forgotten) < 2:
        raise NotMeasurable("fewer than 2 images of a forgotten class")
    everyone = torch.arange(len(view.y))
    whole = _fisher(view.features, view.y, view.forgotten)
    drawn = [torch.from_numpy(rng.integers(0, len(everyone), len(everyone))) for _ in range(20)]
    drawn = [i for i in drawn if view.is_forget[i].any() and not view.is_forget[i].all()]
    tries = [_fisher(view.features[i], view.y[i], view.forgotten) for i in drawn]
    return around(whole, tries, int(view.is_forget.sum()))


def feature_silhouette(case: Case) -> Estimate:
    """Return the mean silhouette of forgotten images among all classes, Euclidean, on at most 2,000 images; -1 to 1."""
    view = case.view
    order = torch.randperm(len(view.y), generator=case.runtime.generator("silhouette"))[:SILHOUETTE_IMAGES]
    y = view.y[order]
    asked = case.is_forget(y).numpy()
    if asked.sum() < 5:
        raise NotMeasurable("fewer than 5 images of the forgotten classes")
    if len(y.unique()) < 2:
        raise NotMeasurable("no images of the other classes")
    values = silhouette_samples(view.features[order].numpy(), y.numpy())
    return mean(values[asked], -1.0, 1.0)


def feature_cka(case: Case) -> Estimate:
    """Return the linear CKA of the features of forgotten images with the original model's; 1 is unchanged."""
    view = case.view
    return _cka_estimate(view.features[view.is_forget], case.original.features[view.is_forget])


def feature_cka_to_retrained(case: Case) -> Estimate:
    """Return the linear CKA of the features of forgotten images with a retrained model's; the mean over these."""
    view = case.view
    found = [_cka_estimate(view.features[view.is_forget], r.features[view.is_forget]) for r in case.references()]
    return averaged(found)._replace(n=found[0].n)  # of the same images


def cka(a: Tensor, b: Tensor) -> float:
    r"""Return linear CKA, :math:`|A^\top B|_F^2 / (|A^\top A|_F |B^\top B|_F)` of centred features.

    Args:
        a: (N, d).
        b: (N, e).

    Source: Kornblith, Norouzi, Lee, Hinton: Similarity of neural network representations revisited, ICML 2019.
    """
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    across, own_a, own_b = (torch.linalg.matrix_norm(m) for m in (a.T @ b, a.T @ a, b.T @ b))
    return float(across**2 / (own_a * own_b).clamp_min(1e-300))


def _cka_estimate(a: Tensor, b: Tensor) -> Estimate:
    """Estimate CKA, with the interval of 20 bootstrap samples of the images."""
    if len(a) < 5:
        raise NotMeasurable("fewer than 5 images of the forgotten classes")
    if not any((x != x[0]).any() for x in (a, b)):
        raise NotMeasurable("the features of the forgotten images are all the same")
    rng, value = np.random.default_rng(0), cka(a, b)
    drawn = [torch.from_numpy(rng.integers(0, len(a), len(a))) for _ in range(20)]
    tries = [cka(a[i], b[i]) for i in drawn]
    return around(value, tries, len(a))


def _fisher(features: Tensor, y: Tensor, forgotten: list[int]) -> float:
    means = {int(c): features[y == c].mean(0) for c in y.unique()}
    ratios = []
    for f in (f for f in forgotten if f in means):
        spread = features[y == f].var(0, correction=0).sum().clamp_min(1e-12)
        ratios.append(min(float((means[f] - m).square().sum() / spread) for c, m in means.items() if c != f))
    if not ratios:
        raise NotMeasurable("no images of the forgotten classes")
    return sum(ratios) / len(ratios)


def _enough(case: Case, y: Tensor, asked: Tensor, least: int) -> None:
    """Refuse to learn a class from fewer images than ``least``, or to ask about none."""
    if not case.is_forget(asked).any():
        raise NotMeasurable("no images of the forgotten classes to evaluate on")
    if case.is_forget(y).all():
        raise NotMeasurable("images to learn from are of the forgotten classes only")
    fewest = min(int((y == c).sum()) for c in case.views.columns)
    if fewest < least:
        raise NotMeasurable(f"only {fewest} images of a forgotten class to learn from, at least {least} are needed")
