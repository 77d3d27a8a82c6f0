"""export(): write a classifier in the form in which others run it."""

from __future__ import annotations

from pathlib import Path

import torch

from unhot.errors import OptionError, shortened, spelled
from unhot.files import sha256
from unhot.models.bundle import check_is_classifier
from unhot.models.classifier import Classifier
from unhot.models.formats.exports import catalogue
from unhot.models.formats.exports.comparison import compare, masked_classes
from unhot.records.export import ExportRecord
from unhot.runtime import usual_settings
from unhot.version import __version__


@usual_settings()
def export(model: Classifier, to: str, out: str | Path, *, keep_keys: bool = False) -> ExportRecord:
    """Write a classifier in the form in which others run it, and compare it with the classifier.

    What was written is loaded again and run on random images, in batches of several sizes, before it is put in its
    place.

    Args:
        model: The classifier, of ``unhot.load`` or ``result.classifier``.
        to: Name of the format: ``state_dict``, ``hf``, ``timm``, ``onnx``, ``torchscript`` or ``pt2``.
        out: The file or folder; it must not exist yet (a folder may be empty).
        keep_keys: Whether the names of the weights are to be exactly those that came in. A head without a bias gets
            none: the weights of a masked class are then the mean of those of the other classes, so that its logit is
            never the largest, and not -10,000.

    Returns:
        What was written, and how it compares.

    Raises:
        InputError: The model cannot be exported so, a package is missing, or ``out`` cannot be written.
        ExportFailedError: It differs from the classifier; nothing is written.

    Example:
        >>> result = unhot.forget(net, unhot.draw((x, y), classes=[2], shots=4))
        >>> unhot.export(result.classifier, to="state_dict", out=tmp / "net.safetensors").to
        'state_dict'
    """
    check_is_classifier(model)
    kind, place = catalogue.get(to), Path(out)
    if keep_keys and not kind.holds_weights_alone:
        able = shortened(name for name in catalogue if catalogue.get(name).holds_weights_alone)
        error = OptionError(f"keep_keys=True is for formats of weights alone ({able}). Leave it out for {to}.")
        raise spelled(error, "keep_keys=True", "--keep-keys")
    with kind.staged(to, place) as path:
        original = model.copy(torch.device("cpu"))
        original.module.eval()
        target = kind(original.copy(), keep_keys)
        target.write(path)
        comparison = compare(original, target.load(path), target.has_other_cut)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        digests = {str(p.relative_to(path.parent if path.is_file() else path)): sha256(p) for p in files}
    return ExportRecord(
        to=to,
        out=str(out),
        files=digests,
        model_sha256=model.sha256(),
        classes=model.classes,
        masked=masked_classes(model),
        added=target.added,
        stripped=target.stripped,
        comparison=comparison,
        unhot_version=__version__,
    )
