"""Patches: what a request changed in a model, to carry it out again elsewhere, and to undo it bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from unhot.deletion.ledger import read_ledger, repeated, undone
from unhot.deletion.statement import PATCH_TYPE, opened, patch_statement, signed
from unhot.deletion.weights_file import FILES, INFO, LENGTH, RUN, WEIGHTS, BundleFiles, Tensor, WeightsFile
from unhot.errors import InputError, ModelError, invalid_values, shortened
from unhot.files import sha256, staged_folder
from unhot.reading import read_text
from unhot.records.base import canonical
from unhot.records.ledger import LEDGER, Ledger, Line
from unhot.records.model import BundleInfo, ClassLabel
from unhot.records.patch import FileChange, Form, PatchRecord, Side, TensorChange

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

PATCH, TENSORS, SIGNED = "patch.json", "tensors.safetensors", "patch.dsse.json"
CLASSES = TypeAdapter(tuple[ClassLabel, ...])
End = Literal["before", "after"]
OTHER: dict[End, End] = {"before": "after", "after": "before"}


def diff(original: Path, unlearned: Path, out: Path, signer: CryptoSigner | None = None) -> PatchRecord:
    """Write what differs between two bundles to a folder that does not exist yet or is empty.

    Args:
        original: The bundle before.
        unlearned: The bundle after.
        out: The folder.
        signer: The private key to sign the patch with; it is not signed if None.

    Raises:
        InputError: One is no bundle, both are the same, or they are given in the wrong order.
        OutputError: The folder is taken or cannot be written.
    """
    ends = BundleFiles.read(original), BundleFiles.read(unlearned)
    if ends[0].files == ends[1].files:
        raise ModelError(f"{original} and {unlearned} hold the same files. There is nothing to keep.")
    if known := _forgotten(ends[0].info) - _forgotten(ends[1].info):
        raise ModelError(
            f"{original} has forgotten {shortened(sorted(c.name for c in known))}, and {unlearned} has not. Give the "
            "model before the request first, and the one after it second."
        )
    weights = WeightsFile.read(original / WEIGHTS), WeightsFile.read(unlearned / WEIGHTS)
    changes, arrays = _tensors(*weights)
    with staged_folder(out) as stage:
        (stage / TENSORS).write_bytes(save(arrays))
        record = PatchRecord(
            before_sha256=ends[0].weights_sha256,
            after_sha256=ends[1].weights_sha256,
            files=tuple(_files(*ends, *weights)),
            tensors=tuple(changes),
            requests=_added(read_ledger(original), read_ledger(unlearned)),
            tensors_sha256=sha256(stage / TENSORS),
        )
        record.write(stage / PATCH)
        if signer is not None:
            (stage / SIGNED).write_text(signed(_statement(stage, record), signer), encoding="utf-8")
    return record


def apply(model: Path, patch: Path, out: Path, key: SSlibKey | None = None) -> PatchRecord:
    """Write the bundle that a patch leads to.

    Args:
        model: The bundle that the patch begins with; any other is refused.
        patch: What :func:`diff` wrote.
        out: A folder that does not exist yet or is empty.
        key: The public key of who signed the patch; its signature is not checked if None.

    Raises:
        InputError: The model is another one, the patch was changed, or it was not signed with this key.
        OutputError: The folder is taken or cannot be written.
    """
    record, ledger = _read(patch, key), read_ledger(model)
    _write(model, patch, record, "after", repeated(ledger, record.requests), out)
    return record


def revert(model: Path, patch: Path, out: Path, key: SSlibKey | None = None) -> PatchRecord:
    """Write the bundle that a patch begins with; as :func:`apply`, the other way."""
    record, ledger = _read(patch, key), read_ledger(model)
    _write(model, patch, record, "before", undone(ledger, record.before_sha256, record.after_sha256), out)
    return record


def _read(patch: Path, key: SSlibKey | None) -> PatchRecord:
    """Read a patch, and check its signature if there is a key."""
    record = PatchRecord.read(patch / PATCH)
    if key is not None:
        found = opened(read_text(patch / SIGNED), key, str(patch / SIGNED), PATCH_TYPE)
        if canonical(found) != canonical(_statement(patch, record)):
            raise InputError(f"{patch} does not hold what was signed: it was changed since.")
    return record


def _statement(patch: Path, record: PatchRecord) -> dict[str, Any]:
    return patch_statement(record, {name: sha256(patch / name) for name in (PATCH, TENSORS)})


def _forgotten(info: BundleInfo) -> set[ClassLabel]:
    """Return the classes that a bundle lists as forgotten."""
    found = set(info.forgotten)
    for edit in info.head_edits:
        if edit.get("kind") == "forgotten":
            try:
                found |= set(CLASSES.validate_python(edit.get("classes")))
            except ValidationError as error:
                raise ModelError(
                    f"{INFO} lists forgotten classes that are none: {invalid_values(error)[0]}."
                ) from error
    return found


def _tensors(before: WeightsFile, after: WeightsFile) -> tuple[list[TensorChange], dict[str, np.ndarray]]:
    changes: list[TensorChange] = []
    arrays: dict[str, np.ndarray] = {}
    for name in sorted({*before.tensors, *after.tensors}):
        old, new = before.tensors.get(name), after.tensors.get(name)
        if old == new:
            continue
        changes.append(TensorChange(name=name, before=_form(old), after=_form(new)))
        if old is not None and new is not None and _form(old) == _form(new):
            arrays[f"xor/{name}"] = _bytes(old) ^ _bytes(new)
        else:
            arrays |= {f"{end}/{name}": _bytes(t) for end, t in (("before", old), ("after", new)) if t is not None}
    return changes, arrays


def _form(tensor: Tensor | None) -> Form | None:
    return None if tensor is None else Form(dtype=tensor.dtype, shape=tensor.shape)


def _bytes(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, np.uint8)


def _files(before: BundleFiles, after: BundleFiles, old: WeightsFile, new: WeightsFile) -> list[FileChange]:
    found = []
    for name in FILES:
        ends = [bundle.files.get(name) for bundle in (before, after)]
        if name == WEIGHTS:
            texts = [weights.header[LENGTH:].decode() for weights in (old, new)]
        else:
            texts = [read_text(b.folder / name) if name in b.files else "" for b in (before, after)]
        sides = [
            None if digest is None else Side(sha256=digest, text=text if len(set(ends)) > 1 else None)
            for digest, text in zip(ends, texts, strict=True)
        ]
        if any(ends):
            found.append(FileChange(name=name, before=sides[0], after=sides[1]))
    return found


def _added(before: Ledger, after: Ledger) -> tuple[Line, ...]:
    """Return the requests that the later ledger has beyond the earlier one."""
    known = {line.sha256 for line in before.lines}
    return tuple(line for line in after.in_force if line.sha256 not in known)


def _write(model: Path, patch: Path, record: PatchRecord, end: End, ledger: Ledger, out: Path) -> None:
    found = BundleFiles.read(model)
    _check_model(found, record, OTHER[end])
    with staged_folder(out) as stage:
        for change in record.files:
            side: Side | None = getattr(change, end)
            if side is None:
                continue
            if change.name == WEIGHTS:
                content = _weights(model / WEIGHTS, patch, record, end, side)
            elif side.text is None:
                content = (model / change.name).read_bytes()
            else:
                content = side.text.encode()
            (stage / change.name).write_bytes(content)
            if sha256(stage / change.name) != side.sha256:
                raise InputError(f"{patch} does not lead to the {change.name} that it names: it was changed.")
        if ledger.lines:
            (stage / LEDGER).write_text(ledger.to_text(), encoding="utf-8")


def _check_model(found: BundleFiles, record: PatchRecord, end: End) -> None:
    """Refuse any other model than the one at an end of a patch.

    Raises:
        ModelError: With what to do, where a later request on it has to be undone first.
    """
    expected: dict[str, str] = {c.name: s.sha256 for c in record.files if (s := getattr(c, end)) is not None}
    differ = [name for name in FILES if name != RUN and found.files.get(name) != expected.get(name)]
    if not differ and (unchanged := _unchanged_run(record)) is not None and found.files.get(RUN) != unchanged:
        differ = [RUN]
    if not differ:
        return
    wanted = record.before_sha256 if end == "before" else record.after_sha256
    requests = read_ledger(found.folder).in_force
    left = [line.after_sha256 for line in requests]
    advice = "Give the model that it was made of."
    if end == "after" and wanted in left[:-1]:
        later = [line.id for line in requests[: left.index(wanted) : -1]]
        advice = (
            f"That one is earlier in its chain: undo {shortened(later)} first, in this order, then this, and carry the "
            "later ones out again with unhot replay."
        )
    raise ModelError(
        f"{found.folder} is not the model that the patch {'begins with' if end == 'before' else 'leads to'}: its "
        f"{differ[0]} is another ({(found.files.get(differ[0]) or 'missing')[:12]}, not "
        f"{(expected.get(differ[0]) or 'missing')[:12]}). {advice}"
    )


def _unchanged_run(record: PatchRecord) -> str | None:
    """Return the digest of the record of the run, where a patch does not hold its text."""
    sides = [s for c in record.files if c.name == RUN for s in (c.before, c.after)]
    return next((s.sha256 for s in sides if s is not None and s.text is None), None)


def _weights(path: Path, patch: Path, record: PatchRecord, end: End, side: Side) -> bytes:
    """Return the bytes of the file of weights at an end of a patch."""
    weights = WeightsFile.read(path)
    if side.text is None:
        return weights.to_bytes()
    arrays, tensors, header = _arrays(patch, record), dict(weights.tensors), side.text.encode()
    try:
        for change in record.tensors:
            own = tensors.pop(change.name, None)
            form: Form | None = getattr(change, end)
            if form is None:
                continue
            bits = arrays.get(f"xor/{change.name}")
            data = arrays[f"{end}/{change.name}"] if bits is None or own is None else _bytes(own) ^ bits
            tensors[change.name] = Tensor(form.dtype, form.shape, data.tobytes())
        return WeightsFile(len(header).to_bytes(LENGTH, "little") + header, tensors).to_bytes()
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{patch / PATCH} does not fit the tensors beside it: it was changed.") from error


def _arrays(patch: Path, record: PatchRecord) -> dict[str, np.ndarray]:
    path = patch / TENSORS
    try:
        content = path.read_bytes()
        if sha256(path) != record.tensors_sha256:
            raise InputError(f"{path} is not the file that {PATCH} describes: it was changed.")
        return dict(load(content))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}. Restore the patch.") from error


def described(record: PatchRecord) -> str:
    """Say in a sentence what a patch changes."""
    new = [c.name for c in record.tensors if c.before is None or c.after is None or c.before != c.after]
    files = [c.name for c in record.files if (c.before and c.before.sha256) != (c.after and c.after.sha256)]
    more = f" ({shortened(new)} in form, too)" if new else ""
    return f"{len(record.tensors)} tensors{more}, and {shortened(files)}"
