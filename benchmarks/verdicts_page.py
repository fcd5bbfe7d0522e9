"""How often verdicts are wrong, as a page of the documentation."""

from __future__ import annotations

from typing import TypeAlias

Held: TypeAlias = "dict[str, dict[str, float]]"

HEAD = """# How sure a verdict is

Two models, the original and the compressed one, answer the same samples of *report*, which nothing was chosen by. The
drop is a paired estimate: what both get right or wrong cancels. Its 95 % upper bound is in the report and in the
verdict's sentence.

- Without `--certify` the estimate decides: `met` says that the drop was at most the floor on these samples.
- With `--certify` the bound decides. `undecided` (exit code 4) names the number of samples that would settle it.

The bound of a proportion (accuracy, agreement) is Tango's score interval. Where at most 200 samples changed, a
certificate also needs the exact unconditional test to agree (probability at most 5 %), as the interval is an
approximation. The bound of any other metric is a bootstrap of whole samples, widened for skewness and for few changed
samples; under 30 changed samples it is undecided.

The tables show how often a certificate is wrong where it is hardest: the true drop is the floor itself, so that every
certificate is wrong, and 5 % of them may be. Made by `python -m benchmarks.verdicts --page docs/verdicts.md`.
"""


def page(held: Held) -> str:
    """Return the results as Markdown."""
    exact = {tuple(key.split()[1:]): row for key, row in held.items() if key.startswith("accuracy")}
    drawn = {tuple(key.split()[1:]): row for key, row in held.items() if key.startswith("mean")}
    rules = ("wald", "tango", "easycompress")
    worst = ", ".join(f"{rule} {max(row[rule] for row in exact.values()):.1f} %" for rule in rules)
    lines = [HEAD, "## Accuracy", "", f"Wrong certificates, exactly. The worst of each rule: {worst}.", ""]
    lines += [
        "| samples | floor, points | changed for the better | Wald | Tango | easycompress |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {n} | {100 * float(floor):g} | {100 * float(better):g} % | "
        + " | ".join(f"{row[rule]:.1f} %" for rule in rules)
        + " |"
        for (n, floor, better), row in exact.items()
    ]
    most = max(row["wrong"] for row in drawn.values())
    bounded = max(row["wrong"] for key, row in drawn.items() if key[0] in ("equal", "uniform"))
    lines += ["", "## Other metrics", ""]
    lines += [
        f"Wrong certificates among those that were decided, of 3 000 draws a row: at most {bounded:.1f} % where scores",
        f"change by at most 1, {most:.1f} % where some change far more than others (lognormal: no bound on a loss).",
        "",
        "| size of a change | samples | changed | of these worse | wrong | undecided |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {n} | {100 * float(share):g} % | {100 * float(worse):g} % | {row['wrong']:.1f} % | "
        f"{row['undecided']:.0f} % |"
        for (name, n, share, worse), row in drawn.items()
    ]
    return "\n".join(lines) + "\n"
