"""LabelledImages: images of any origin behind one ``batch`` call; the only place where pixels become model inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unhot.data.decoding import THREADS, Picture, broken, check_decodes, decode, has_frames, unreadable
from unhot.data.labels import check_labels
from unhot.errors import DataError, DataWarning, shortened, spelled, warn
from unhot.files import sha256
from unhot.records.base import digest
from unhot.records.model import InputSpec

CACHED_BYTES = 2 << 30  # a set whose pixels take less than this is decoded once and cached
BLOCK = 1_024  # pictures that are decoded at once to be cached
FORWARD = 512  # images in one forward pass: thousands at once would not fit into memory
CACHED = 64  # small ones, which stay in the cache of a CPU: twice as fast as 512
PIXELS, FEWEST = 16 * 224 * 224, 16  # pixels of the images in one pass; images that are never taken apart
PIXEL_BYTES = 16 << 10  # of the memory of a GPU for each of these pixels: a pass and its gradients take 1 to 8 KiB
T = TypeVar("T")


def at_once(like: Tensor | Sequence[int] | None, most: int = FORWARD, device: torch.device | None = None) -> int:
    """Return how many inputs one pass takes: 16 of 224 by 224 pixels, more on a large GPU.

    Args:
        like: Such inputs, or their shape (..., H, W), if it is known.
        most: The largest number.
        device: Where the pass runs, if only the shape is given; on the CPU if None.
    """
    if like is None:
        return most
    shape, device = (like.shape, like.device) if isinstance(like, Tensor) else (like, device)
    memory = (
        torch.cuda.get_device_properties(device).total_memory if device is not None and device.type == "cuda" else 0
    )
    return min(most, max(FEWEST, max(PIXELS, memory // PIXEL_BYTES) // (shape[-2] * shape[-1])))


@dataclass(frozen=True)
class Pictures:
    """Pictures that are decoded when they are needed.

    Attributes:
        load: Returns picture number ``i`` at its original size.
        count: Number of pictures.
        pixels: Pixels of all pictures, uint8 (N, C, H, W), if they are in memory already.
        name: Returns the name of picture number ``i`` for error messages.
        threads: Number of threads that may call ``load`` at once.
        file: Returns the file of picture number ``i``, if each picture is a file of its own.
        moving: Names of the moving pictures that were warned of.
    """

    load: Callable[[int], Picture]
    count: int
    pixels: Tensor | None = None
    name: Callable[[int], str] = "picture {}".format
    threads: int = 1
    file: Callable[[int], Path] | None = None
    moving: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def of_array(cls, array: np.ndarray) -> Pictures:
        """Take pictures that are in memory, uint8 (N, H, W) or (N, H, W, C)."""
        x = torch.from_numpy(array)
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
        grey = array[..., 0] if array.shape[3:] == (1,) else array
        plain = grey.ndim == 3 or grey.shape[3] == 3
        return cls(lambda i: Image.fromarray(grey[i]) if plain else grey[i], len(array), x, threads=THREADS)

    def __len__(self) -> int:
        return self.count

    def select(self, index: Tensor) -> Pictures:
        """Return the pictures at these positions, int64 (M,)."""
        chosen = index.tolist()
        pixels = None if self.pixels is None else self.pixels[index]
        file = self.file
        return Pictures(
            lambda i: self.load(chosen[i]),
            len(chosen),
            pixels,
            lambda i: self.name(chosen[i]),
            self.threads,
            None if file is None else lambda i: file(chosen[i]),
            self.moving,
        )

    def decode(
        self, index: Tensor, spec: InputSpec, origin: str = "The images", keys: Sequence[object] | None = None
    ) -> Tensor:
        """Return the pixels of some pictures, uint8 (B, C, H, W), converted and resized as ``spec`` says.

        Args:
            index: Numbers of the pictures, int64 (B,).
            spec: The input of a model.
            origin: Where the pictures are from, for messages.
            keys: What each picture is called there; its name if None.

        Raises:
            DataError: Some cannot be decoded; all of these are named.
        """
        if self.pixels is not None and tuple(self.pixels.shape[1:]) == spec.shape:
            return self.pixels[index]

        def one(i: int) -> Tensor:
            image, name = self.load(i), self.name(i)
            if has_frames(image):
                moving.append(name)
            return decode(image, spec, name)

        moving: list[str] = []
        pixels, problems = self._each(one, index.tolist())
        if problems:
            called = [(str(keys[i]) if keys else self.name(i), error) for i, error in problems]
            raise problems[0][1] if len(problems) == 1 else broken(called, len(index), origin)
        if new := sorted(set(moving) - self.moving):
            self.moving.update(new)
            warn(f"Only the first frame is used of pictures that have several: {shortened(new)}.", DataWarning)
        return torch.stack(pixels)

    def broken(self, index: Sequence[int]) -> dict[int, DataError]:
        """Decode some pictures and return what is wrong with those that are broken, by their numbers."""
        found = dict[int, DataError]()

        def check(i: int) -> None:
            try:
                check_decodes(self.load(i), self.name(i))
            except DataError as error:
                found[i] = error

        self._each(check, index)
        return dict(sorted(found.items()))

    def _each(self, task: Callable[[int], T], index: Sequence[int]) -> tuple[list[T], list[tuple[int, DataError]]]:
        """Run a task for some pictures, in threads if these may load them; return results, and problems by number."""

        def attempt(i: int) -> T | DataError:
            try:
                return task(i)
            except DataError as error:
                return error

        if self.threads == 1:
            results = [attempt(i) for i in index]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                results = list(pool.map(attempt, index))
        problems = [(i, r) for i, r in zip(index, results, strict=True) if isinstance(r, DataError)]
        return [r for r in results if not isinstance(r, DataError)], problems

    def array(self, i: int) -> np.ndarray:
        """Return the pixels of picture number ``i`` as they are stored, at its own size.

        Raises:
            DataError: It cannot be decoded.
        """
        try:
            return np.asarray(self.load(i))
        except DataError:
            raise
        except Exception as error:
            raise unreadable(self.name(i), error) from error


@dataclass(frozen=True)
class LabelledImages:
    """Images and the class of each.

    Attributes:
        x: Pixels, uint8 (N, C, H, W); or inputs of a model, floating (N, C, H, W), which are not changed; or
            pictures still to be decoded.
        y: int64 (N,), positions in ``class_names``, or class indices of the model where there are no names.
        class_names: None if the classes have no names.
        origin: Where the images are from, in words.
        keys: Name of each image: its position in its data set, or its file.
    """

    x: Tensor | Pictures
    y: Tensor
    class_names: tuple[str, ...] | None
    origin: str
    keys: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.x, Tensor):
            check_tensor(self.x)
        if len(self.x) != len(self.y):
            raise DataError(f"{self.origin}: {len(self.x)} images and {len(self.y)} labels. Give one label an image.")
        check_labels(self.y, self.class_names, self.keys, self.origin)

    def __len__(self) -> int:
        return len(self.y)

    def select(self, index: Tensor) -> LabelledImages:
        """Return the images at these positions, int64 (M,)."""
        x = self.x.select(index) if isinstance(self.x, Pictures) else self.x[index]
        return replace(self, x=x, y=self.y[index], keys=tuple(self.keys[i] for i in index.tolist()))

    def where(self, chosen: Tensor) -> LabelledImages:
        """Return the images for which ``chosen``, bool (N,), holds."""
        return self.select(chosen.nonzero().flatten())

    def of(self, labels: Sequence[int]) -> LabelledImages:
        """Return the images that have one of these labels."""
        return self.where(torch.isin(self.y, torch.tensor(labels, dtype=torch.int64)))

    def without(self, labels: Sequence[int]) -> LabelledImages:
        """Return the images that have none of these labels."""
        return self.where(~torch.isin(self.y, torch.tensor(labels, dtype=torch.int64)))

    def check_scale(self, spec: InputSpec | None) -> None:
        """Refuse floating tensors that hold pixels, 0..1 or 0..255, where the model takes normalised ones.

        Normalised pixels lie on both sides of 0, and far from 255: values that are all within 0..1, for a model that
        subtracts a mean, are not normalised.

        Raises:
            DataError: The values look like pixels.
        """
        if spec is None or not isinstance(self.x, Tensor) or not self.x.is_floating_point():
            return
        black, white, _ = pixel_range(spec, torch.device("cpu"))
        low, high = (float(end) for end in self.x.aminmax())
        unit = low >= 0 and low < high <= 1 and float(black.max()) < -0.1
        bytes_ = low >= 0 and 3 * float(white.max()) < high <= 255
        if unit or bytes_:
            taken = f"{float(black.min()):.2f} to {float(white.max()):.2f}"
            raise DataError(
                f"{self.origin}: the values of the images are within 0..{1 if unit else 255}, like pixels, and the "
                f"model takes normalised ones, {taken}. Give pixels as uint8, or subtract the mean and divide by the "
                "standard deviation of the model's input."
            )

    def inputs(self, index: Tensor, spec: InputSpec | None, device: torch.device) -> Tensor:
        """Return some images as inputs of a model: floating (B, C, H, W), normalised as ``spec`` says."""
        return prepare(self.pixels(index, spec).to(device, non_blocking=True), spec)

    def pixels(self, index: Tensor, spec: InputSpec | None) -> Tensor:
        """Return some images, not yet normalised: (B, C, H, W), uint8, or floating where the caller gave that."""
        if not isinstance(self.x, Pictures):
            return self.x[index]
        if spec is None:
            wrap = "Wrap it with unhot.Classifier.wrap(model, input=unhot.InputSpec(...)), or pass tensors."
            error = DataError(f"{self.origin}: the model does not say the size of its inputs. {wrap}")
            raise spelled(error, wrap, "Give --image-size, and --mean and --std if they are not those of photos.")
        return self.x.decode(index, spec, self.origin, self.keys)

    def batches(
        self, spec: InputSpec | None, device: torch.device, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in order, as (inputs, labels): as many as one pass takes, if no size is given."""
        shape = spec.shape if spec else self.x.shape if isinstance(self.x, Tensor) else None
        for index in torch.arange(len(self)).split(size or at_once(shape, device=device)):
            yield self.inputs(index, spec, device), self.y[index].to(device)

    def cached(self, spec: InputSpec) -> LabelledImages:
        """Decode the pictures once and keep their pixels, if these take less than 2 GiB."""
        if isinstance(self.x, Tensor) or len(self) * int(np.prod(spec.shape)) > CACHED_BYTES:
            return self
        pixels = torch.empty((len(self), *spec.shape), dtype=torch.uint8)
        for start in range(0, len(self), BLOCK):
            index = torch.arange(start, min(start + BLOCK, len(self)))
            pixels[start : start + BLOCK] = self.x.decode(index, spec, self.origin, self.keys)
        return replace(self, x=pixels)

    def without_broken(self) -> LabelledImages:
        """Decode every picture once and leave out those that cannot be decoded, with a warning that names them.

        Raises:
            DataError: None can be decoded.
        """
        found = self.x.broken(range(len(self))) if isinstance(self.x, Pictures) and self.x.pixels is None else {}
        if not found:
            return self
        problems = [(str(self.keys[i]), error) for i, error in found.items()]
        if len(found) == len(self):
            raise broken(problems, len(self), self.origin)
        warn(
            f"{self.origin}: {len(found)} of {len(self)} images cannot be read and are left out: "
            f"{shortened(name for name, _ in problems)}.",
            DataWarning,
        )
        return self.select(torch.tensor([i for i in range(len(self)) if i not in found], dtype=torch.int64))

    def digests(self) -> tuple[str, ...]:
        """Return the SHA-256 of each image: of its pixels (or values) at its own size, with shape and dtype."""
        if isinstance(self.x, Pictures):
            return tuple(_digest(self.x.array(i)) for i in range(len(self)))  # one in memory at a time
        x, name = self.x.cpu(), str(self.x.dtype).removeprefix("torch.")
        x = x.view(torch.int16) if x.dtype == torch.bfloat16 else x  # numpy has no bfloat16
        return tuple(_digest(a, name) for a in x.numpy())

    def sha256(self) -> str:
        """Return the SHA-256 of all content: the images, their labels, and the names of classes and images.

        Images that are files are read and not decoded.
        """
        file, pixels = (self.x.file, self.x.pixels) if isinstance(self.x, Pictures) else (None, None)
        if file is not None:
            images = tuple(sha256(file(i)) for i in range(len(self)))
        else:
            images = (self if pixels is None else replace(self, x=pixels)).digests()
        return digest([self.class_names, self.y.tolist(), self.keys, images])


def _digest(array: np.ndarray, dtype: str | None = None) -> str:
    return hashlib.sha256(f"{dtype or array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def prepare(x: Tensor, spec: InputSpec | None) -> Tensor:
    """Scale and normalise pixels, uint8 (B, C, H, W); leave floating inputs as they are.

    Raises:
        DataError: The tensor does not have the channels and the size that the model takes.
    """
    if spec is not None and tuple(x.shape[1:]) != spec.shape:
        raise DataError(
            f"Expected images of shape {spec.shape} (channels, height, width), got {tuple(x.shape[1:])}. "
            "Tensors are taken as they are: resize them, or pass image files."
        )
    if x.dtype != torch.uint8:
        return x
    x = x.to(torch.float32).div_(255)
    if spec is None:
        return x
    mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return x.sub_(mean).div_(std)


def pixel_range(spec: InputSpec, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs of black and of white pixels, and their difference, each (C, 1, 1)."""
    ends = torch.tensor([0, 255], dtype=torch.uint8, device=device).view(2, 1, 1, 1)
    black, white = prepare(ends.expand(2, *spec.shape), spec)[:, :, :1, :1]
    return black, white, white - black


def input_range(x: Tensor, spec: InputSpec | None) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest values of inputs, each (C, 1, 1).

    If the model does not say how pixels become inputs, they are those of the inputs x (B, C, H, W).
    """
    if spec is not None:
        return pixel_range(spec, x.device)[:2]
    return x.amin((0, 2, 3), keepdim=True)[0], x.amax((0, 2, 3), keepdim=True)[0]


def check_tensor(x: Tensor) -> None:
    """Refuse a tensor that cannot be a batch of images.

    Raises:
        DataError: Its shape, its type or its values do not fit.
    """
    if x.ndim != 4:
        raise DataError(f"Expected images of shape (N, C, H, W), got {tuple(x.shape)}.")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise DataError(f"Expected uint8 pixels or floating inputs, got {x.dtype}.")
    if x.is_floating_point() and not x.isfinite().all():
        raise DataError("The images hold NaN or infinite values. Remove or repair them.")
