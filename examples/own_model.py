# %% [markdown]
# # Forget a class in a model of your own
#
# A net that you trained yourself forgets the digit 3 from 16 of its images. Run this file as a script
# (`python examples/own_model.py`), or cell by cell in an editor that knows `# %%`.

# %%
import torch
from torch import nn

import unhot

# %% [markdown]
# ## Your data and your net
#
# Images are tensors as the net takes them. The digits come with scikit-learn.

# %%
SIZE = unhot.InputSpec(height=16, width=16, channels=1, mean=(0.5,), std=(0.5,))


def tensors(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    digits = unhot.load_named("digits", train=train)
    return digits.inputs(torch.arange(len(digits)), SIZE, torch.device("cpu")), digits.y


x, y = tensors(train=True)
test_x, test_y = tensors(train=False)


def trained(x: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    for _ in range(12):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


net = trained(x, y, seed=0)

# %% [markdown]
# ## Forget
#
# `samples` are the 16 images. `check` are images of the other classes, on which the accuracy before and after is
# compared; the method does not read them. `result.model` is a copy, and `net` stays as it was.

# %%
samples = unhot.draw((x, y), classes=[3], shots=16)
result = unhot.forget(net, samples, check=(test_x[test_y != 3], test_y[test_y != 3]))
accuracy = result.record.retained_accuracy
print(f"accuracy on the other classes: {accuracy.before:.3f} before, {accuracy.after:.3f} after")
print(f"images of the class still recognised: {result.record.recognised[0].after} of 16")

# %% [markdown]
# ## Audit
#
# What is left of the class in the outputs, the features and the weights? It is compared with what can be recovered from
# a model that was trained without the class.

# %%
retrained = trained(x[y != 3], y[y != 3], seed=1)
audit = unhot.audit(
    original=net,
    unlearned=result.model,
    classes=[3],
    test=(test_x, test_y),
    train=(x, y),
    retrained=retrained,
    quick=True,
)
for holder, verdict in audit.record.verdict.holders.items():
    print(f"whoever holds the {holder}: {verdict.label}")

# %% [markdown]
# ## Keep it
#
# The weights have the names and shapes of your net, so that your own code loads them. The class is cut from the last
# layer.

# %%
torch.save(result.model.state_dict(), "unlearned.pt")
audit.save("own-model-audit")
print("Open own-model-audit/report.html.")
