# %% [markdown]
# # A method of your own
#
# As a plain function and as a class, checked, and compared with `nhle-cwm` on bundled digits. Run this file as a script
# (`python examples/method_of_your_own.py`), or cell by cell.

# %%
from typing import ClassVar

import torch
from pydantic import Field

import unhot
from unhot import Classifier, Data, Outcome, Runtime, Use
from unhot.testing import check_method

# %% [markdown]
# ## A function
#
# Its keyword-only arguments are the hyperparameters. `uses` names the data that it may read; here it is none.


# %%
@unhot.method("fade", uses=())
def fade(model: Classifier, data: Data, runtime: Runtime, *, share: float = 0.1) -> str:
    """Shrink the class's row of the head.

    Source: this example.

    Attributes:
        share: Factor by which the row shrinks.
    """
    with torch.no_grad():
        model.head_layer.weight[data.columns] *= share
    return f"shrunk to {share}"


# %% [markdown]
# ## A class
#
# Its fields are the hyperparameters, with their ranges, and `run` is the algorithm. unhot copies the model, seeds the
# generators, and checks and records the result.


# %%
class FadeAll(unhot.Method):
    """Shrink the class's row of the head, and shift its logit below those of the samples.

    Source: this example.

    Attributes:
        share: Factor by which the weights shrink.
    """

    name: ClassVar[str] = "fade-all"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)

    share: float = Field(default=0.1, ge=0, le=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Shrink and shift."""
        with torch.no_grad():
            model.head_layer.weight[data.columns] *= self.share
            model.head_layer.bias[data.columns] = data.forget.logits.min()
        return Outcome(model, "done")


# %% [markdown]
# ## Is it a method?
#
# `check_method` says what is wrong: a hyperparameter that does nothing, data that is read without being named, weights
# that differ from run to run, and so on.

# %%
check_method(FadeAll)

# %% [markdown]
# ## Beside the default method

# %%
source = unhot.load_source("digits")
model, _ = unhot.train(source, "lenet5", settings={"epochs": 10})
samples = unhot.draw(source.train_images, classes=[3], shots=16)
auditor = unhot.Auditor(model, test=source.test_images, train=source.train_images)
for method in (unhot.methods.get("fade")(share=0.2), FadeAll(), unhot.methods.get("nhle-cwm")()):
    result = unhot.forget(model, samples, method=method)
    audit = auditor.audit(result.classifier, [3], quick=True)
    print(f"{method.name:10} forget accuracy {audit['forget_accuracy'].value:.3f}: {audit.record.verdict.label}")

# %% [markdown]
# ## In a package
#
# An installed package brings a method without any code that runs first, by an entry point in its pyproject.toml. Then
# `unhot forget --method fade-all` and grids know it by name:
#
# ```toml
# [project.entry-points."unhot.methods"]
# fade-all = "my_package.fade:FadeAll"
# ```
