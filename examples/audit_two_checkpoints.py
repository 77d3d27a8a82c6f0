# %% [markdown]
# # Audit two checkpoints
#
# Two people were asked to make the same net forget the digit 3. One set a row of the last layer to a value that never
# wins; the other trained the net again without the class. Both nets no longer answer *3*. Which one forgot?
# Run this file as a script (`python examples/audit_two_checkpoints.py`), or cell by cell.

# %%
import torch

import unhot

# %% [markdown]
# ## The checkpoints
#
# Here they are made. Yours are there: `unhot.load` reads bundles and folders of transformers or timm, and any
# `torch.nn.Module` can be given as it is.

# %%
digits = unhot.load_source("digits")
original, _ = unhot.train(digits, "lenet5", settings={"epochs": 12})

hidden = original.copy()
with torch.no_grad():
    hidden.head_layer.weight[3] = 0
    hidden.head_layer.bias[3] = -1e4

again, _ = unhot.train(digits, "lenet5", exclude=[3], seed=1, settings={"epochs": 12})

# %% [markdown]
# ## The audit
#
# An `Auditor` audits several models against one original; what belongs to the original is computed once. The retrained
# model that it is given must be another one than the model that is audited.

# %%
reference, _ = unhot.train(digits, "lenet5", exclude=[3], seed=2, settings={"epochs": 12})
auditor = unhot.Auditor(original, retrained=[reference], test=digits.test_images, train=digits.train_images)
audits = {
    name: auditor.audit(model, [3], quick=True)
    for name, model in {"row set to 0": hidden, "trained again": again}.items()
}

# %% [markdown]
# ## What it says
#
# Both have a forget accuracy of 0. What can be recovered of the class with five of its images tells them
# apart.

# %%
for name, audit in audits.items():
    forgotten, recovered = audit["forget_accuracy"].value, audit["recovery_5_shot"].value
    print(f"{name:14} forget accuracy {forgotten:.3f}, recovered from five images {recovered:.3f}")
    for holder, verdict in audit.record.verdict.holders.items():
        print(f"{'':14} whoever holds the {holder}: {verdict.label}")

# %% [markdown]
# ## The pages
#
# Each audit is a folder with `report.html`, to read, and `audit.json`, for programs.

# %%
for name, audit in audits.items():
    audit.save(f"audit-{name.replace(' ', '-')}")
