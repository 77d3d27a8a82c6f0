"""How much of the original is left: what regression predicts of its features and outputs on forgotten images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from torch import Tensor
from torch.nn.functional import normalize

from unhot.evaluation.metric import Case, Labelled, NotMeasurable
from unhot.evaluation.representations import DIMENSIONS, normal_scores, telling, variance_ratios
from unhot.evaluation.stats import Estimate, around
from unhot.evaluation.view import View

LEAST = 5  # images of each forgotten class to learn from
LEARNT_FROM = 600  # retained images at most
AXES = 64
OUTLIER = 3.0  # median deviations from the median, in the middle one of an image's numbers
CLIP = 5.0
KERNEL = 150  # images that the radial kernel compares with
KERNEL_WEIGHT = 10.0  # of its numbers, which are small, beside the standardised ones
BITS = range(8, 19)  # of a mantissa's 23, read as numbers of their own
STRENGTHS = np.logspace(-10, 4, 15)  # of the ridge, chosen by generalised cross-validation

Read = Callable[[View], Tensor]


def original_features_r2(case: Case) -> Estimate:
    """Return how much of the original's features of forgotten images regression predicts from this model's; 0 to 1.

    Undoing a change of the features is a regression. So features that hold what the original's held give nearly what
    the original's own give, which is 1 with images enough, however they are encoded, as far as ridge regression sees
    through the code.
    """
    return _explained(case, _penultimate(case), _features)


def original_layers_r2(case: Case) -> Estimate:
    """Return how much of the original's features of forgotten images regression predicts from any layer; 0 to 1.

    That is :func:`original_features_r2` with the features of earlier layers, too, of which two regressions tell.
    """
    layers = [_errors(case, partial(View.layer, name=name), _features, few=True) for name in case.view.layers]
    return _explained(case, torch.cat([_penultimate(case), *layers]), _features)


def _features(view: View) -> Tensor:
    return view.features


def _penultimate(case: Case) -> Tensor:
    return case.once(("features told", case.split), lambda: _errors(case, _features, _features))


def original_outputs_r2(case: Case) -> Estimate:
    """Return how much of the original's outputs for forgotten images regression predicts from this model's; 0 to 1.

    Outputs are logarithms of probabilities; the original's are those of the retained classes.
    """
    return _explained(case, _errors(case, lambda view: view.outputs, _retained), _retained)


def _retained(view: View) -> Tensor:
    return view.retained_outputs


def _explained(case: Case, errors: Tensor, aim: Read) -> Estimate:
    r"""Return how much of some numbers of the original regression predicts, by medians over forgotten queries; 0 to 1.

    That is :math:`1 - \operatorname{med}|h-\hat h|^2 / \operatorname{med}|h-\mu|^2` with the original's numbers h,
    their mean :math:`\mu` over the gallery's images of the class, and what the best regression predicts. A mean would
    be moved by a single image that a change left out. The interval is that of 20 bootstrap samples.

    Args:
        case: The model.
        errors: Those of regressions, see :func:`_errors`.
        aim: What is to be told of the original, (N, e).
    """
    known, wanted = _of_original(case, aim)
    whole = torch.cat(
        [
            (wanted.features[wanted.y == c] - known.features[known.y == c].mean(0)).square().sum(1)
            for c in case.views.columns
        ]
    )
    if not whole.any():
        raise NotMeasurable("the original gives the same for all forgotten images")
    generator = torch.Generator().manual_seed(0)

    def share(index: Tensor) -> float:
        best = errors[:, index].median(1).values.min()
        return max(0.0, float(1 - best / whole[index].median().clamp_min(1e-300)))

    drawn = [torch.randint(len(whole), (len(whole),), generator=generator) for _ in range(20)]
    return around(share(torch.arange(len(whole))), [share(i) for i in drawn], len(whole))


def _of_original(case: Case, aim: Read) -> tuple[Labelled, Labelled]:
    """Return what is read of the original, of images to learn from and of queries, float64, on at most 64 axes.

    These are the principal axes of the images of the forgotten classes to learn from.
    """
    original = Case(case.views, "original", case.split)
    return original.once(("told", aim, case.split), lambda: _on_axes(original, aim))


def _on_axes(original: Case, aim: Read) -> tuple[Labelled, Labelled]:
    known, wanted = (Labelled(h.double(), y) for h, y in (original.gallery_of(aim), original.queries_of(aim)))
    own = known.features[original.is_forget(known.y)]
    axes = torch.linalg.svd(own - own.mean(0), full_matrices=False).Vh[:AXES].T
    return known._replace(features=known.features @ axes), wanted._replace(features=wanted.features @ axes)


def _errors(case: Case, read: Read, aim: Read, few: bool = False) -> Tensor:
    """Return the squared errors of :func:`_regressions` on forgotten queries, class by class, (R, n).

    Args:
        case: The model.
        read: What is read of it, (N, d).
        aim: What is to be told of the original, (N, e).
        few: Whether two regressions must do.
    """
    gallery, queries = case.gallery_of(read), case.queries_of(read)
    known, wanted = _of_original(case, aim)
    fewest = min(int((gallery.y == c).sum()) for c in case.views.columns)
    if fewest < LEAST or not case.is_forget(queries.y).any():
        raise NotMeasurable(f"only {fewest} images of a forgotten class to learn from, at least {LEAST} are needed")
    retained = ~case.is_forget(gallery.y)
    if int(retained.sum()) <= len(gallery.y[retained].unique()):
        raise NotMeasurable("too few images of the retained classes to learn from")
    order = torch.randperm(len(retained), generator=case.runtime.generator("regression"))
    some = torch.cat([order[retained[order]][:LEARNT_FROM], (~retained).nonzero().flatten()])
    learn, of_forgotten = Labelled(gallery.features[some], gallery.y[some]), ~retained[some]
    parts = []
    for column in case.views.columns:
        mine = queries.y == column
        found = _regressions(learn, known.features[some], column, of_forgotten, queries.features[mine], few)
        parts.append(torch.stack([(wanted.features[mine] - h).square().sum(1) for h in found]))
    return torch.cat(parts, 1)


def _regressions(
    learn: Labelled, aims: Tensor, column: int, forgotten: Tensor, asked: Tensor, few: bool
) -> Iterator[Tensor]:
    """Tell the original's numbers from a model's by eighteen ridge regressions or more.

    These take the numbers as :func:`_readings` gives them, learnt from images of all classes or of the class alone;
    linear ones or with a radial kernel. Numbers are standardised by median and median deviation, and clipped; or they
    are normal scores of their ranks, which are the same after every increasing function of a number. Images that lie
    far off are not learnt from. Of all classes a linear regression takes every number unclipped, too, which undoes
    every invertible linear map.

    Args:
        learn: Images to learn from.
        aims: What the original gives for them, (N, e).
        column: The forgotten class.
        forgotten: Which images are of forgotten classes, bool (N,).
        asked: Images of the class to tell them for, (M, d).
        few: Whether only the numbers as they are, without ranks, and images of all classes are taken.
    """
    groups = [torch.ones_like(forgotten), *([] if few else [learn.y == column])]
    for reading in [Tensor.double] if few else _readings(learn.features[~forgotten], learn.y[~forgotten]):
        for rows in groups:
            z, of = _standardised(reading(learn.features), rows, reading(asked))
            if not z.shape[1]:  # nothing is told by numbers that are the same for all images
                same = (2 if few else 4) + int(rows.all())  # as many for every class
                yield from [aims[rows].mean(0).expand(len(asked), -1)] * same
                continue
            near = rows & (z.abs().median(1).values <= OUTLIER)
            chosen = telling(z[~forgotten], learn.y[~forgotten])
            forms = [(z[near].clamp(-CLIP, CLIP), of.clamp(-CLIP, CLIP))]
            if not few:
                ranked = normal_scores(z[near])
                forms.append((ranked(z[near]), ranked(of)))
            pairs = [(z[near], of)] if rows.all() else []
            for form in forms:
                x, q = (h[:, chosen] for h in form)
                kernel = Nystroem(gamma=0.1 / len(chosen), n_components=min(KERNEL, len(x)), random_state=0).fit(x)
                known, wanted = (torch.from_numpy(np.c_[h, KERNEL_WEIGHT * kernel.transform(h)]) for h in (x, q))
                pairs += [(x, q), (known, wanted)]
            for known, wanted in pairs:
                fit = RidgeCV(STRENGTHS).fit(known.numpy(), aims[near].numpy())
                yield torch.from_numpy(fit.predict(wanted.numpy())).view(len(asked), -1)


def _readings(h: Tensor, y: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give ways to read features (N, d) as numbers: as they are, and divided by their length.

    If the last bits of the mantissas, which are noise, tell retained classes apart, they are read, too: as many bits as
    tell most.
    """
    yield Tensor.double
    yield lambda h: normalize(h.double(), eps=1e-300)
    found = {bits: float(variance_ratios(_last_bits(h, bits), y).nan_to_num().log1p().sum()) for bits in BITS}
    best = max(found, key=lambda bits: found[bits])
    if len(telling(_last_bits(h, best), y)) > DIMENSIONS:
        yield partial(_last_bits, bits=best)


def _last_bits(h: Tensor, bits: int) -> Tensor:
    """Read the last bits of a mantissa as a number from 0 to 1; of a number that is 0 that is the middle."""
    mask = (1 << bits) - 1
    return ((h.contiguous().view(torch.int32) & mask).double() / mask).where(h != 0, 0.5)


def _standardised(h: Tensor, rows: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise by median and median absolute deviation over some rows; dimensions that are constant there go."""
    middle = h[rows].median(0).values
    spread = 1.4826 * (h[rows] - middle).abs().median(0).values
    usual = h[rows].std(0)
    spread = torch.where(spread > 1e-9 * usual, spread, usual)  # of most images at one value, as behind a ReLU
    varies = spread > 0
    first, second = ((x - middle)[:, varies] / spread[varies] for x in (h, asked))
    return first, second
