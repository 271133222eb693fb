"""How vectors interact, a module each, which holds the cell `Interaction`:

    Interaction.outputs(fields, network)    values that it gives for a sample
    Interaction.values(fields, network)     values of its parameters
    Interaction.inner(fields, network)      values for a sample before these, for the plan of memory; none if absent
    Interaction(fields, network, rng, operators, compute_dtype)
        Inputs: bottom [B, D], the bottom MLP's output; vectors [B, F, D]. Outputs: [B, outputs].

with D the last size of the bottom MLP. The list below needs no MindSpore; docs/extending.md shows one of one's own.
"""

from importlib import import_module
from typing import Any

INTERACTIONS = ("dot", "cat", "dcnv2")


def interaction_of(name: str) -> Any:
    """The class `Interaction` of a module.

    Raises:
        ValueError: there is no interaction of this name.
    """
    if name not in INTERACTIONS:
        raise ValueError(f"interaction is {name!r}; it is one of {', '.join(INTERACTIONS)}")
    return import_module(f"{__name__}.{name}").Interaction
