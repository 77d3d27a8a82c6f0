"""Tables of what forgetting costs and leaves: features, seconds and memory, plain nets."""

from __future__ import annotations

import statistics

import plain_nets
from blocks.records import promised, read
from unhot.bench import tables


def features() -> str:
    """One row a data set, net and class: what is left in the features, beside masked original and retrained model."""
    found = promised()
    rows = (r for r in found.rows if "retrained" in r.values["probe_accuracy"])
    return tables.features(found.model_copy(update={"rows": tuple(rows)}))


def cost_growth() -> str:
    """One row a point: what forgetting and auditing took, as the work grows."""
    rows = []
    for c in read("cost-growth")["cells"]:
        size = f"{c['parameters'] / 1e6:.1f} M" if c["axis"] == "parameters" else str(c["point"][c["axis"]])
        floor, memory = c["seconds"] / c["floor_seconds"], c["peak_memory_bytes"] / 2**20
        rows.append([f"{c['what']}, {c['axis']}", size, f"{c['seconds']:.2f}", f"{floor:.1f}", f"{memory:,.0f}"])
    return tables.grid(["what grows", "to", "seconds", "of the floor", "peak memory, MiB"], rows)


def plain() -> str:
    """One row a data set and use of it: what plain nets lost beside what was estimated."""
    groups = tables.grouped(read("plain-nets-nhle-cwm")["cells"], lambda c: (c["dataset"], plain_nets.role(c)))
    rows = []
    for (dataset, role), found in groups.items():
        drops, worst = [c["retain_drop_masked"] for c in found], [c["worst_class_drop"] for c in found]
        kept = sum(c["forget_accuracy"] == 0 and c["retain_drop_masked"] <= 0.035 for c in found)
        row = [dataset, role, str(len({c["net"] for c in found})), f"{kept} of {len(found)}"]
        row += [f"{statistics.mean(drops):.4f}", f"{max(drops):.3f}", f"{max(worst):.3f}"]
        row += [f"{statistics.mean(c['estimate'] for c in found):.4f}"]
        row += [str(sum(c["retain_drop_masked"] > c["at_most"] > 0 for c in found))]
        rows.append([*row, str(sum(c["at_most"] == 0 for c in found))])
    heads = ["data", "cells were", "nets", "promise kept", "retain drop, masked: mean", "worst cell"]
    heads += ["worst class drop", "estimate: mean", "upper end exceeded", "cut alone"]
    return tables.grid(heads, rows, text=2)


def speed() -> str:
    """One row a net: seconds of forgetting when all steps up to the cap are taken, and what they are a multiple of."""
    rows = []
    for c in read("speed")["cells"]:
        seconds = c["floor_seconds"] * c["multiple_at_step_cap"]
        share = c["share_of_training"] * seconds / c["forget_seconds"]
        row = [c["arch"], f"{c['parameters']:,}", f"{c['floor_seconds']:.3f}", f"{seconds:.2f}"]
        rows.append([*row, f"{c['multiple_at_step_cap']:.1f}", f"1 / {1 / share:,.0f}"])
    return tables.grid(["net", "parameters", "one pass, s", "forget, s", "passes", "of training"], rows)


def imagenet() -> str:
    """One row a run on a net of 1,000 classes: steps, seconds and passes, accuracies and audit."""
    rows = []
    for c in read("imagenet-net")["runs"]:
        passes, audit = c["seconds"] / c["pass_seconds"], c["audit_seconds"] / (2 * c["forward_seconds"])
        row = [c["class"], str(c["draw"]), str(c["settings"]["budget"]), str(c["steps"]), f"{c['seconds']:.1f}"]
        row += [f"{passes:.1f}", f"{c['class_before'][0]} to {c['class_after']} of {c['class_before'][1]}"]
        (before, n), after = c["others_before"], c["others_after"]
        rows.append([*row, f"{before / n:.3f} to {after / n:.3f}", f"{audit:.2f}"])
    heads = [
        "class",
        "draw",
        "budget",
        "steps",
        "CPU seconds",
        "passes",
        "test photos of the class",
    ]
    return tables.grid([*heads, "accuracy on other classes", "quick audit, of its forward passes"], rows)


def audit_speed() -> str:
    """One row a kind of audit."""
    record = read("audit-speed")
    rows = [
        [
            f"{record['dataset']}, {record['models']} models, {'--quick' if c['quick'] else 'full'}",
            str(c["audit_seconds"]),
            str(c["forward_seconds"]),
            str(c["ratio"]),
        ]
        for c in record["cells"]
    ]
    return tables.grid(["audit", "seconds", "of these, forward passes", "ratio"], rows)
