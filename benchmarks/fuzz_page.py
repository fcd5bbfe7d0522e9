"""The fuzzer's outcomes as a table, and in the page of the documentation."""

from __future__ import annotations

from collections import Counter
from typing import Any

BEGIN, END = "<!-- numbers: python -m benchmarks.fuzz -->", "<!-- end -->"

WORDS = {
    "refused": "refused in one line",
    "refused_apart": "refused by ONNX Runtime in the child process, or there over its memory limit",
    "stopped_apart": "slow in the child process, where it would be stopped",
    "crashed_apart": "crashed the child process: refused in one line",
    "identical": "read, the same model",
    "another": "read, another valid model",
    "wrong": "**read, another model under an old checksum**",
    "crashed": "**crashed the reader**",
    "hung": "**took over 5 s**",
    "over_memory": "**over twice the declared memory**",
    "unclean": "**another error than a refusal**",
}
"""Every outcome in words; failures of the product stand out."""


def table(facts: dict[str, Any]) -> str:
    """Return the outcomes as Markdown."""
    kinds = sorted(facts["outcomes"])
    sums = {kind: Counter[str]() for kind in kinds}
    for kind in kinds:
        for counted in facts["outcomes"][kind].values():
            sums[kind].update(counted)
    head = [f"`{kind}` ({sums[kind].total()})" for kind in kinds]
    lines = [f"| outcome | {' | '.join(head)} |", "|---|" + "---:|" * len(kinds)]
    lines += [f"| {words} | {' | '.join(str(sums[kind][name]) for kind in kinds)} |" for name, words in WORDS.items()]
    return "\n".join(lines)


def numbers(facts: dict[str, Any]) -> str:
    """Return the paragraph and the tables that the page holds."""
    stale = [kind for kind in facts["outcomes"].get(".ecz", {}) if not kind.startswith("sealed")]
    old = Counter[str]()
    for kind in stale:
        old.update(facts["outcomes"][".ecz"][kind])
    begin = (
        f"{facts['files']} damaged files (seed {facts['seed']}), made of {facts['whole_files']} whole ones; "
        f"{facts['files_a_second']} for each second of one core; {len(facts['failures'])} failures."
    )
    unsealed = (
        f"Of the `.ecz` files, {old.total()} were damaged without new checksums: {old['refused']} were refused, "
        f"{old['identical']} had not changed, {old['wrong']} were read as another model."
    )
    lines = [
        begin,
        "",
        table(facts),
        "",
        unsealed,
        "",
        "| mutation | files | refused | read, the same | read, another valid model | failures |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for suffix, kinds in sorted(facts["outcomes"].items()):
        for name, counted in kinds.items():
            refused = sum(counted.get(key, 0) for key in ("refused", "refused_apart", "stopped_apart", "crashed_apart"))
            same, another = counted.get("identical", 0), counted.get("another", 0)
            files = sum(counted.values())
            failed = files - refused - same - another
            lines.append(f"| `{suffix}`, {name} | {files} | {refused} | {same} | {another} | {failed} |")
    return "\n".join(lines)


def with_numbers(page: str, facts: dict[str, Any]) -> str:
    """Return the page with what lies between its two marks written anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{numbers(facts)}\n\n{END}{after}"
