"""Finding the weights of a net in what a file holds: under which key, and under which names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unhot.errors import ModelError, ModelWarning, shortened, warn

# under which names programs keep the weights, the usual first
KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "model_state", "module"),
    *("model_weights", "backbone", "classifier", "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema"),
)
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile, in any order
INSIDE = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")  # anywhere in a name
MOST_NESTED = 4


def state_in(loaded: Any, path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights in the content of a file, by their names without those of torch's wrappers.

    Args:
        loaded: The content.
        path: The file, for messages.
        key: Under which key they are; it is found if None. Keys of nested dictionaries are joined by dots.

    Raises:
        ModelError: There are none, or it is not clear which ones are meant.
    """
    if key is not None:
        loaded = _under(loaded, key, path)
    for _ in range(MOST_NESTED):
        if isinstance(loaded, nn.Module):
            loaded = loaded.state_dict()
        if not isinstance(loaded, dict) or _is_state(loaded):
            break
        if (found := _chosen(loaded, path)) is None:
            break
        loaded = loaded[found]
    if not _is_state(loaded):
        raise ModelError(f"{path} holds no state_dict. Save model.state_dict().")
    for part in INSIDE:
        loaded = {k.replace(part, ""): v for k, v in loaded.items()}
    while prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in loaded)), None):
        loaded = {k.removeprefix(prefix): v for k, v in loaded.items()}
    return dict(loaded)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def _holds_state(content: Any) -> bool:
    """Return whether a part of a file is weights, or a dictionary around them."""
    if isinstance(content, nn.Module) or _is_state(content):
        return True
    return isinstance(content, dict) and any(_is_state(v) or isinstance(v, nn.Module) for v in content.values())


def _under(loaded: Any, key: str, path: Path) -> Any:
    """Return the part of a file under a key that the user names."""
    if isinstance(loaded, dict) and key in loaded:
        return loaded[key]
    first, _, rest = key.partition(".")
    if rest and isinstance(loaded, dict) and first in loaded:
        return _under(loaded[first], rest, path)
    known = shortened(str(k) for k in loaded) if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
    raise ModelError(f"{path} has nothing under the key {key!r}. It holds {known}. Check --key.")


def _chosen(loaded: dict[Any, Any], path: Path) -> Any:
    """Return the key under which the weights of a net are; None if there are none."""
    found = [k for k, v in loaded.items() if _holds_state(v)]
    usual = [k for k in KEYS if k in found]
    if not usual and len(found) > 1:
        raise ModelError(f"{path} holds the weights of several nets. Name the ones to use: --key {_either(found)}.")
    if not found:
        return None
    chosen = usual[0] if usual else found[0]
    if others := [k for k in found if k != chosen and k not in ("optimizer", "optimizers")]:
        warn(
            f"{path.name} holds several sets of weights. Those under {chosen!r} are used; --key {_either(others)} uses "
            "others.",
            ModelWarning,
        )
    return chosen


def _either(names: Collection[Any]) -> str:
    return " or ".join(map(str, names))


def of_net(
    state: Mapping[str, Tensor], own: Collection[str], path: Path, prefix: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a net among those of a file, and what their names in the file begin with.

    A prefix that all names of the net have in the file is taken off, and said; what has another prefix then belongs to
    something else, such as a loss or an average.

    Args:
        state: The weights by their names in the file.
        own: The names in the net.
        path: The file, for messages.
        prefix: The prefix that the user names.

    Raises:
        ModelError: No name begins with ``prefix``, or the net's weights are there several times.
    """
    if prefix is None:
        if all(k in state for k in own) or not own:
            return _without_counters(state, own), ""
        prefix = _prefix(state, own, path)
        if not prefix:
            return dict(state), ""
        warn(
            f"In {path.name} the names of the weights begin with {prefix!r}, which was removed from them.", ModelWarning
        )
    elif not any(k.startswith(prefix) for k in state):
        raise ModelError(
            f"In {path} no name begins with {prefix!r}. The first names are {shortened(list(state)[:3])}. "
            "Check --prefix."
        )
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if (outside := len(state) - len(inside)) and (names := [k for k in state if not k.startswith(prefix)]):
        warn(
            f"{path.name}: {outside} tensors do not begin with {prefix!r} and are left out: {shortened(names, 3)}.",
            ModelWarning,
        )
    return inside, prefix


def _without_counters(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Return weights without what an average of weights adds to them."""
    return {k: v for k, v in state.items() if k in own or k not in ("n_averaged", "initted", "step")}


def _prefix(state: Mapping[str, Tensor], own: Collection[str], path: Path) -> str:
    """Return what precedes every name of a net in a file; empty if there is nothing like that.

    Most of the net's names are enough: what is missing is listed when the weights are loaded.
    """
    some = next(iter(own))
    candidates = sorted({k.removesuffix(some) for k in state if k.endswith(f".{some}")}, key=lambda p: (len(p), p))
    whole = [p for p in candidates if all(p + k in state for k in own)]
    if len(whole) > 1:
        raise ModelError(
            f"{path} holds the weights of several such nets. Name the prefix of the ones to use: "
            f"--prefix {_either(whole)}."
        )
    if whole:
        return whole[0]
    shared = [p for p in candidates if all(k.startswith(p) for k in state)]
    return shared[-1] if shared else ""
