"""Which layers to prune: none, one family, or all of them (global)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.budget import split
from easycompress.selection.heuristics import PRUNABLE
from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.core.profile import Family
    from easycompress.selection.heuristics import Heuristics

MUST_REMAIN = 0.05
"""Share of the parameters of a family that stays at least: layers can't be emptied."""

TOO_MUCH = 0.80
"""Share of one family's arithmetic beyond which pruning it alone costs more quality than a little everywhere."""


def _removable(heuristics: Heuristics) -> Answer:
    families = heuristics.removable
    if families:
        return "yes", f"removable outputs in {', '.join(families)} layers"
    return "no", "every layer of weights gives the model's own output or is of another kind"


def _objective(heuristics: Heuristics) -> Answer:
    answer = "size" if heuristics.objective == "size" else "time or operations"
    return answer, f"objective {heuristics.objective}"


def _carriers(heuristics: Heuristics) -> Answer:
    """Take removable families by falling parameter share until what may go of them is enough."""
    ratio = split(heuristics).pruning
    must_go = 1 - 1 / ratio
    taken: list[Family] = []
    carried = 0.0
    for family, share in heuristics.profile.param_share().items():
        if family not in heuristics.removable:
            continue
        taken.append(family)
        carried += (1 - MUST_REMAIN) * share
        if carried >= must_go:
            break
    names = " and ".join(taken) or "nothing"
    evidence = f"pruning must remove {must_go:.0%} of the parameters; {names} can carry {carried:.0%}"
    alone = len(taken) == 1 and carried >= must_go
    return taken[0] if alone else "no single one", evidence


def _busiest(heuristics: Heuristics) -> tuple[Family, float]:
    """Return the family with most of the multiply-accumulates and its share; a removable one if there is any."""
    shares = heuristics.profile.mac_share()
    return max(((f, shares.get(f, 0.0)) for f in heuristics.removable or PRUNABLE), key=lambda item: item[1])


def _arithmetic(heuristics: Heuristics) -> Answer:
    family, share = _busiest(heuristics)
    return family, f"{family} layers do {share:.0%} of the multiply-accumulates"


def _overburdened(heuristics: Heuristics) -> Answer:
    family, share = _busiest(heuristics)
    must_go = 1 - 1 / split(heuristics).pruning
    # Compared as products: a family may do no arithmetic at all.
    answer = "yes" if must_go > TOO_MUCH * share else "no"
    return answer, f"{must_go:.0%} of all multiply-accumulates must go and {family} layers do {share:.0%}"


S1 = Rule(
    "S1",
    "Is there a layer whose outputs can be removed?",
    _removable,
    "a lone linear layer is the model's output, and so is a lone convolution without a linear layer",
    "ours: the thesis always prunes; a model that is one layer has nothing to prune",
)
S2 = Rule(
    "S2",
    "What is to fall?",
    _objective,
    "none: size is a matter of parameters, everything else of arithmetic",
    "EasyCompress thesis, section 4.2.2",
)
S3 = Rule(
    "S3",
    "Which single family of layers can carry the whole reduction that is left for pruning?",
    _carriers,
    f"{MUST_REMAIN:.0%} of the parameters of a family must remain (MUST_REMAIN)",
    "EasyCompress thesis, section 4.2.2; there what int8 brings is not taken off the target first",
)
S4 = Rule(
    "S4",
    "Which family of layers with removable outputs does most of the arithmetic?",
    _arithmetic,
    "none: the largest share of the multiply-accumulates",
    "EasyCompress thesis, section 4.2.2, which names convolutions for CNNs and attention for transformers; measured "
    "here, so that plain networks and feed-forward blocks count too",
)
S5 = Rule(
    "S5",
    "Would too much of that family have to go?",
    _overburdened,
    f"more than {TOO_MUCH:.0%} of its multiply-accumulates (TOO_MUCH)",
    "EasyCompress thesis, section 4.2.2: recovery drops beyond 80 % of the parameters; of the operations here",
)

STRATEGY = Ask(
    S1,
    {
        "no": Leaf("none"),
        "yes": Ask(
            S2,
            {
                "size": Ask(
                    S3,
                    {
                        "linear": Leaf("linear"),
                        "convolutional": Leaf("convolutional"),
                        "attention": Leaf("attention"),
                        "no single one": Leaf("global"),
                    },
                ),
                "time or operations": Ask(
                    S4,
                    {
                        "linear": Ask(S5, {"no": Leaf("linear"), "yes": Leaf("global")}),
                        "convolutional": Ask(S5, {"no": Leaf("convolutional"), "yes": Leaf("global")}),
                        "attention": Ask(S5, {"no": Leaf("attention"), "yes": Leaf("global")}),
                    },
                ),
            },
        ),
    },
)
