r"""ClassStatistics, the guard: statistics of every class, collected once, that stand in for training data later.

For every class separately they hold

- the number of its images, and mean and covariance of the activations, at every position, of one or a few *replay
  points* (:mod:`unhot.models.replay`): draws from that Gaussian can be sent through the rest of the net;
- for each weight layer that can be preconditioned, the second moment of the inputs that its weights multiply.

The covariance at a replay point is kept in its principal directions, r rows B with :math:`S \approx B^\top B`; noise in
all other directions, even at their variance, would make the draws unlike the activations there. Second moments are
kept by frequent directions as rows and a scalar, :math:`S \approx B^\top B + \alpha I`, the rest of the trace spread
evenly. Both are exact as long as r rows suffice. Classes share nothing, so that dropping one leaves what would have
been collected without it.

All classes together have about 512 rows for each layer and each replay point, in bfloat16. At a replay point each class
has at least 32; as long as 25 MB suffice it has 200, first at the point nearest the head.

The statistics are derived from training images: class means and main directions, in the first layer those of patches of
pixels. A file reveals something about each class in it: protect it like the training images.
:meth:`ClassStatistics.excluding` removes a class.

Source: latent replay, there of stored activations, is from Pellegrini et al.: Latent replay for real-time continual
learning, IROS 2020; Liberty: Simple and deterministic matrix sketching, KDD 2013 (frequent directions); the even rest
is from Luo et al.: Robust frequent directions, JMLR 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from unhot.data.images import CACHED, at_once
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, InputError, raise_all, shortened
from unhot.files import write_atomic
from unhot.models.classifier import Classifier
from unhot.models.layers import some_rows, weight_layers
from unhot.models.replay import replay_points
from unhot.models.weights import FLOATS, read_tensors, sha256_of
from unhot.records.base import digest
from unhot.records.model import ClassLabel
from unhot.records.statistics import StatisticsInfo
from unhot.runtime import Runtime, usual_settings

ROWS = 512  # rows of all classes together, for each layer and each replay point
LEAST, MOST = 32, 200  # rows of a class at a replay point: five have too little spread; MOST if NUMBERS suffice
NUMBERS = 12_582_912  # numbers in the rows of all replay points: 25 MB
FLOWS = 1_000  # images of a class whose activations are described: the cost is cubic in them
SEEN = 2_000  # input rows of a class, from random positions, that describe a layer
AT_ONCE = 256  # rows that a sketch takes at once: the cost is cubic in them
MAX_IMAGES = 10_000  # images that are read by default
METADATA = "unhot_guard"


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of some classes of a model.

    Attributes:
        info: The model and the classes that they describe.
        tensors: For K classes in the order of ``info.classes``, and each replay point ``s``: ``s.mean`` (K, ...),
            float32, and ``s.rows`` (K, r, ...), bfloat16, of the shape of the activations there, and ``s.least`` (K,),
            float32: the Gaussian of each class, and the lowest value that occurred. For each layer ``l``:
            ``l.input_rows`` (K, r, d), bfloat16, ``l.input_rest`` (K,), float32: the second moment of its inputs.
    """

    info: StatisticsInfo
    tensors: dict[str, Tensor] = field(repr=False)

    @classmethod
    @usual_settings()
    def collect(
        cls, model: Classifier, images: ImageSource, runtime: Runtime | None = None, max_images: int | None = None
    ) -> ClassStatistics:
        """Collect statistics from one pass over training images.

        Args:
            model: The classifier; it is not changed.
            images: Images with labels, as the model was trained on.
            runtime: Device, seed and progress.
            max_images: Maximum number of images to read, the same number of each class; all if None.

        Raises:
            DataError: There are no images, or the model does not have their classes.
            ModelError: The model does not fit; every reason is listed.
        """
        runtime = runtime or Runtime()
        found = model.align(as_images(images), model.forgotten)
        if len(found) == 0:
            raise DataError("A guard needs images. Pass those that the model was trained on.")
        columns = found.y.unique().tolist()
        limit = len(found) if max_images is None else max(1, max_images // len(columns))
        some = found.inputs(torch.arange(min(2, len(found))), model.input, runtime.device)
        work, example = Classifier.wrap(model.copy(runtime.device), example=some), some[:1]
        work.module.eval()
        layers = weight_layers(work, example)
        reached, points = _nearest(work, replay_points(work, layers, example), example, len(columns))
        sizes = dict.fromkeys(layers, max(1, ROWS // len(columns)))
        described = []
        with torch.no_grad(), runtime.progress("images", min(len(found), limit * len(columns))) as advance:
            for column in columns:
                mine = (found.y == column).nonzero().flatten()
                mine = mine[torch.randperm(len(mine), generator=runtime.generator("guard", column))[:limit]]
                rows = runtime.generator("guard rows", column)
                sketches = _Class(points, sizes, -(-SEEN // len(mine)), rows)
                for index in mine.split(at_once(some, CACHED)):
                    sketches.add(work, found.inputs(index, model.input, runtime.device))
                    advance(len(index))
                described.append(sketches.tensors())
        info = StatisticsInfo(
            model_sha256=model.sha256(),
            classes=tuple(model.classes[c] for c in columns),
            counts=tuple(int((found.y == c).sum()) for c in columns),
            layers=tuple(layers),
            replay_points=reached,
            origin=found.origin,
        )
        return cls(info, {n: torch.stack([d[n] for d in described]) for n in described[0]})

    def excluding(self, labels: Iterable[ClassLabel]) -> ClassStatistics:
        """Return the guard without these classes.

        Raises:
            DataError: No class would be left.
        """
        gone = {c.index for c in labels}
        kept = [i for i, c in enumerate(self.info.classes) if c.index not in gone]
        if not kept:
            raise DataError("No class would be left in the guard. Drop fewer.")
        classes, counts = ([values[i] for i in kept] for values in (self.info.classes, self.info.counts))
        info = self.info.model_copy(update={"classes": tuple(classes), "counts": tuple(counts)})
        return ClassStatistics(info, {n: t[kept] for n, t in self.tensors.items()})

    def check(self, model: Classifier) -> None:
        """Refuse a model that the guard was not collected from.

        Raises:
            DataError: It was collected from another model.
        """
        if self.info.model_sha256 != model.sha256():
            raise DataError(
                "The guard was collected from another model: its SHA-256 differs. Collect one from this model."
            )

    def to(self, like: Tensor) -> ClassStatistics:
        """Return the guard in the number type and on the device of a tensor."""
        return replace(self, tensors={n: t.to(like) for n, t in self.tensors.items()})

    def second_moment(self, layer: str) -> tuple[Tensor, Tensor]:
        """Return rows B (n, d) and a scalar a: the mean of x x^T over the inputs x of a layer is B^T B + a I."""
        rows, rest = self.tensors[f"{layer}.input_rows"], self.tensors[f"{layer}.input_rest"]
        counts = torch.tensor(self.info.counts, dtype=torch.float32)
        shares = counts / counts.sum()  # of each class, of all images
        return (shares.sqrt().to(rows)[:, None, None] * rows).flatten(0, 1), (shares.to(rest) * rest).sum()

    def draw(self, point: str, classes: Tensor, generator: torch.Generator, around: Tensor | None = None) -> Tensor:
        """Draw activations of a replay point from the Gaussians of some classes.

        Args:
            point: A replay point of ``info.replay_points``.
            classes: Positions in ``info.classes``, int64 (N,).
            generator: A generator on the CPU.
            around: Means in place of those of the classes, (N, ...).

        Returns:
            Activations (N, ...), in the number type of the guard, clipped below at the lowest value that occurred.
        """
        mean, rows, least = (self.tensors[f"{point}.{part}"] for part in ("mean", "rows", "least"))
        drawn = mean[classes] if around is None else around.clone()
        along = torch.randn((len(classes), rows.shape[1]), generator=generator).to(drawn)
        for k in classes.unique():
            drawn[classes == k] += torch.tensordot(along[classes == k], rows[k].to(drawn), 1)
        return drawn.clamp_min(least.min())

    def sha256(self) -> str:
        """Return the SHA-256 of all that the guard holds."""
        return sha256_of(self.tensors, digest(self.info.model_dump(mode="json")))

    def save(self, path: str | Path) -> None:
        """Write the guard to one safetensors file, whole or not at all.

        Raises:
            OutputError: The disk is full.
        """
        tensors = {n: t.cpu().contiguous() for n, t in self.tensors.items()}
        write_atomic(Path(path), save(tensors, {METADATA: self.info.to_json()}))

    @classmethod
    def load(cls, path: str | Path) -> ClassStatistics:
        """Read a file of :meth:`save`.

        Raises:
            InputError: It is missing, damaged, not a guard, or of a newer unhot.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"There is no guard at {path}. Check the path, or make one with: unhot guard collect.")
        try:
            metadata, tensors = read_tensors(path)
        except Exception as error:  # of an unknown number type it raises a KeyError
            raise InputError(f"{path} is not a readable safetensors file ({error}).") from error
        if METADATA not in metadata:
            raise InputError(f"{path} is not a guard. Make one with: unhot guard collect.")
        guard = cls(StatisticsInfo.parse(metadata[METADATA], str(path)), tensors)
        raise_all(InputError, f"{path} is damaged", list(guard._problems()))
        return guard

    def _problems(self) -> Iterator[str]:
        """Yield every mismatch between the tensors and ``info``."""
        info = self.info
        through = set(info.replay_points.values())
        dims = {f"{p}.least": 1 for p in through}
        dims |= {
            f"{layer}.{part}": n for layer in info.layers for part, n in {"input_rows": 3, "input_rest": 1}.items()
        }
        shaped = {f"{p}.{part}" for p in through for part in ("mean", "rows")}
        if differing := sorted((dims.keys() | shaped) ^ self.tensors.keys()):
            yield f"it should hold other tensors; these are missing or too many: {shortened(differing, 3)}."
        odd = [n for n, v in self.tensors.items() if v.dtype not in FLOATS]
        if odd:
            yield f"{shortened(odd, 3)} is not of floating numbers of 16 to 64 bits."
            return
        for name, value in self.tensors.items():
            if (
                value.shape[:1] != (len(info.classes),)
                or not value.numel()
                or value.ndim != dims.get(name, max(value.ndim, 2))
            ):
                yield f"{name} has the shape {tuple(value.shape)}, which does not fit its {len(info.classes)} classes."
            if not value.isfinite().all():
                yield f"{name} holds NaN or infinite values."
        for point in through:
            mean, rows = (self.tensors.get(f"{point}.{part}") for part in ("mean", "rows"))
            if mean is not None and rows is not None and mean.shape[1:] != rows.shape[2:]:
                yield f"{point} has a mean and rows of different shapes."


def _nearest(
    model: Classifier, found: dict[str, str], x: Tensor, classes: int
) -> tuple[dict[str, str], dict[str, int]]:
    """Return the layers nearest the head that there is room for, with their replay points, and the rows of each."""
    with torch.no_grad(), model.recording(found.values()) as seen:
        model.logits(x)
    kept: dict[str, str] = {}
    values: dict[str, int] = {}
    least, left = max(LEAST, ROWS // classes), NUMBERS // classes
    for layer, point in reversed(found.items()):
        size = 0 if point in values else seen[point].numel()
        if values and least * size > max(left, 0):
            break
        kept[layer], left = point, left - least * size
        values[point] = seen[point].numel()
    rows = {}
    for point, size in values.items():
        more = max(0, min(MOST - least, left // size))
        rows[point], left = least + more, left - more * size
    return dict(reversed(kept.items())), rows


class _Class:
    """The statistics of one class, while they are collected.

    Args:
        points: The replay points, and the number of rows of each.
        layers: The layers, and the number of rows of each.
        seen: Number of inputs of a layer for each image.
        generator: Chooses the inputs.
    """

    def __init__(self, points: dict[str, int], layers: dict[str, int], seen: int, generator: torch.Generator) -> None:
        self.points, self.seen, self.generator, self.count = points, seen, generator, 0
        self.flows: dict[str, list[Tensor]] = {p: [] for p in points}
        self.sketches = {layer: Sketch(size) for layer, size in layers.items()}

    def add(self, model: Classifier, x: Tensor) -> None:
        """Take images of the class, (B, C, H, W)."""
        with model.recording({*self.flows, *self.sketches}) as seen:
            model.logits(x)
        for point, flow in self.flows.items():
            flow.append(seen[point][: max(0, FLOWS - self.count)].float())
        for name, sketch in self.sketches.items():
            layer = model.module.get_submodule(name)
            sketch.add(some_rows(layer, seen[name].float(), self.seen * len(x), self.generator))
        self.count += len(x)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of :class:`ClassStatistics`, of one class, on the CPU."""
        found: dict[str, Tensor] = {}
        for point, flow in self.flows.items():
            h = torch.cat(flow)
            rows = principal((h - h.mean(0)).flatten(1), self.points[point]).view(-1, *h.shape[1:])
            found |= {f"{point}.mean": h.mean(0), f"{point}.rows": rows.bfloat16(), f"{point}.least": h.min()}
        for name, sketch in self.sketches.items():
            rows, rest = sketch.mean()
            found |= {f"{name}.input_rows": rows.bfloat16(), f"{name}.input_rest": rest}
        return {n: t.cpu() for n, t in found.items()}


def principal(h: Tensor, size: int) -> Tensor:
    """Return B (min(size, d), d) such that B^T B is h^T h / n of h (n, d) in its ``size`` principal directions."""
    n, d = h.shape
    _, vectors = torch.linalg.eigh((h @ h.T).double())
    vectors = vectors.flip(1)[:, : min(size, n, d)].to(h)
    rows = h.new_zeros((min(size, d), d))  # the same number for every class, however few its images
    rows[: vectors.shape[1]] = vectors.T @ h / n**0.5
    return rows


class Sketch:
    """At most ``size`` rows B for many rows A (n, d), such that B^T B + a I is near A^T A.

    A^T A - B^T B has no negative eigenvalue, and none above the trace of A^T A over ``size`` + 1; with n or d no more
    than ``size`` it is 0.
    """

    def __init__(self, size: int) -> None:
        self.size, self.count, self.trace = size, 0, 0.0
        self.rows: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Take more rows, (n, d)."""
        self.count += len(rows)
        self.trace += rows.double().square().sum().item()
        for some in rows.split(AT_ONCE):
            self.rows = _shrunk(some if self.rows is None else torch.cat([self.rows, some]), self.size)

    def mean(self) -> tuple[Tensor, Tensor]:
        """Return B (min(size, d), d) and a for the mean of x x^T over the rows, of one number type."""
        assert self.rows is not None
        d = self.rows.shape[1]
        left = max(self.trace - self.rows.double().square().sum().item(), 0.0) / d
        rows = self.rows.new_zeros((min(self.size, d), d))  # the same number for every class, however few its images
        rows[: len(self.rows)] = self.rows[: len(rows)]
        return rows / self.count**0.5, torch.tensor(left / self.count, dtype=rows.dtype)


def _shrunk(rows: Tensor, size: int) -> Tensor:
    """Rotate rows (n, d) into orthogonal ones and take the (size + 1)-th eigenvalue of A^T A off the others."""
    wide = rows.double()
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    kept = min(size, *rows.shape)
    less = values[size] if len(values) > size else values.new_zeros(())
    scale = ((values - less).clamp_min(0) / values.clamp_min(torch.finfo(values.dtype).tiny)).sqrt()
    shrunk: Tensor = scale[:kept, None] * (vectors[:, :kept].T @ wide)
    return shrunk.to(rows.dtype)
