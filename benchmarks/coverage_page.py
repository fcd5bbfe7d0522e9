"""How the coverage table is shown: lines on the terminal, a page of the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

STAGES = ("pruned", "runs", "exported", "agrees", "int8", "int8 runs")

PAGE_HEAD = """# Which models can be compressed

Every classification model of torchvision and small transformers, with random weights. Each is pruned to half of its
parameters, run, exported to ONNX, compared with ONNX Runtime, quantized to int8 and run again; `ok` means all of that.
`left` is the share of the parameters after pruning. Channels are found by the `layout` of a transformer's blocks, by
watching one `run`, or by `torch-pruning`. Seconds are of one processor thread, imports included. Made by
`python -m benchmarks.coverage --page docs/coverage.md`.
"""


def line(result: dict[str, Any]) -> str:
    """Return a row of the table."""
    stages = [result["stages"].get(stage, "") for stage in STAGES]
    cells = "  ".join(
        f"{'ok' if s == 'ok' else '-' if not s else s.split(':')[0]:>{len(n)}}"
        for s, n in zip(stages, STAGES, strict=True)
    )
    reason = next((s for s in stages if s not in ("ok", "")), "")
    facts = f"{result['name']:20} {result['params'] / 1e6:7.2f} M {result['left']:5.0%} {result['traced']:13}"
    return f"{facts} {result['seconds']:6.1f} s  {cells}  {reason}".rstrip()


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Return how many rows work, how many say why not, how many fail."""
    shown = [result["stages"] for result in results]
    good = sum(all(stages.get(stage) == "ok" for stage in STAGES) for stages in shown)
    said = sum(any(str(s).startswith(("explained", "skipped")) for s in stages.values()) for stages in shown)
    return f"{good} of {len(shown)} work, {said} explained or skipped, {len(shown) - good - said} fail"


def page(results: Sequence[dict[str, Any]]) -> str:
    """Return the table, smallest models first, as a page of the documentation."""
    results = sorted(results, key=lambda result: (result["params"], result["name"]))
    lines = [PAGE_HEAD, f"**{summary(results)}.**", ""]
    lines.append("| model | parameters | left | channels found by | seconds | result |")
    lines.append("|---|---:|---:|---|---:|---|")
    for result in results:
        stages = [result["stages"].get(stage, "") for stage in STAGES]
        reason = next((text for text in stages if text not in ("ok", "")), "ok")
        facts = f"{result['params'] / 1e6:.2f} M | {result['left']:.0%} | {result['traced'] or '-'}"
        lines.append(f"| {result['name']} | {facts} | {result['seconds']:.0f} | {reason} |")
    return "\n".join(lines) + "\n"
