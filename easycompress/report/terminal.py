"""What a person sees in the terminal: progress, the plan, the result. One Console, standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from easycompress.core.errors import printable
from easycompress.executor.told import tuning_words
from easycompress.report import units
from easycompress.report.attempts import counted
from easycompress.report.attempts import table as attempts_table
from easycompress.report.columns import Column, table, wrapped
from easycompress.report.live import Picture
from easycompress.report.reading import compared, disturbed_words, read, repeats_words
from easycompress.report.region import Region
from easycompress.report.sparkline import BARS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from easycompress.artifact.rows import TensorRow
    from easycompress.core.outcome import Report, Verdict
    from easycompress.core.plan import Plan
    from easycompress.core.profile import ModelProfile
    from easycompress.core.progress import Event
    from easycompress.report.brief import Brief

MOST_LAYERS = 12
"""How many layers a plan lists, the ones with the most parameters; the rest are summed in one line."""

HANG = 6
"""Cells from the left edge at which a labelled paragraph stands."""

LETTERS = f"{BARS}±…"
"""What the live lines are drawn with where the screen has it."""

STYLES: dict[Verdict, str] = {
    "met": "bold green",
    "target-missed": "bold yellow",
    "floor-missed": "bold red",
    "undecided": "bold cyan",
}


class Screen(Console):
    """Standard output without guessing: no markup, emoji or highlighting in what comes from the user."""

    def __init__(self) -> None:
        # A path or a "≤" that the screen's encoding lacks must not end a run of twenty minutes.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        # Colours may be forced into a log (FORCE_COLOR); what moves the cursor would ruin it.
        interactive = None if sys.stdout.isatty() else False
        super().__init__(highlight=False, markup=False, emoji=False, force_interactive=interactive)

    def on_broken_pipe(self) -> None:
        """Go on in silence when the reader (`| head`) has left: the result is still to be written."""
        self.quiet = True


def lacks(console: Console, letters: str) -> bool:
    """Tell whether a screen's encoding has no such letters."""
    try:
        letters.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return True
    return False


class Terminal:
    """A `Watcher` on the screen, and the views of a plan, a result and a file.

    On a terminal the last lines are drawn anew while a run goes on; a file or a pipe gets plain lines. Use it as a
    context manager: leaving it takes the live lines away. With `quiet` no progress is shown, a plan is its steps, and a
    result is its verdict line.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Screen()
        self._quiet = quiet
        self._live = self._console.is_interactive and not self._console.is_dumb_terminal
        self._picture = Picture(plain=lacks(self._console, LETTERS))
        self._region: Region | None = None
        self._phase: str | None = None

    def __enter__(self) -> Terminal:  # noqa: PYI034 - Self needs Python 3.11, and this class has no subclass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._still()

    def say(self, text: str) -> None:
        """Print a finished fact, above the live lines."""
        if not self._quiet:
            self._phase = self._phase or ""
            self._print(Text(wrapped(text, self._width)))

    def now(self, text: str) -> None:
        """Show what is being tried in the live lines.

        Where the screen is a file or a pipe, the first text of each phase is a line of its own: a phase is what stands
        before the first colon, so an attempt is told and each of its epochs is not. Before the first finished fact
        there is none, so that a run that is refused leaves nothing but its one line of refusal.
        """
        if self._quiet:
            return
        text = " ".join(text.split())
        if not self._live:
            phase = text.partition(":")[0]
            if self._phase not in (None, phase):
                self._phase = phase
                self._print(Text(text))
            return
        self._picture.now(text)
        if self._region is None:
            self._region = Region(self._console, self._picture.lines)
            self._region.start()

    def event(self, event: Event) -> None:
        """Take note of what happened: the live lines show it."""
        self._picture.event(event)

    def plan_view(self, plan: Plan, profile: ModelProfile, brief: Brief) -> None:
        """Print goal and means, the model, every rule asked with its answer and evidence, the steps and the notes."""
        self._still()
        if not self._quiet:
            self._head("Task")
            columns = (Column("", cut="end"), Column("Asked", cut="end"), Column("Given", cut="end"))
            self._print(table(columns, brief.rows(), self._width))
            self._model(profile)
            self._decisions(plan)
        chains = {
            "Steps tried first, without training": plan.quick,
            "Steps": plan.steps,
            "Steps for as much as the floor permits, where these miss the target": plan.lesser,
            "Steps tried where these miss the target": plan.last,
        }
        for head, steps in chains.items():
            if steps:
                self._head(head)
            for index, step in enumerate(steps, 1):
                self._item(str(index), step.describe())
        if not any(chains.values()):
            self._head("Steps")
            self._item("-", "none: nothing would be changed")
        notes = (*brief.notes, *plan.notes)
        if notes and not self._quiet:
            self._head("Notes")
            for note in notes:
                self._item("-", note)

    def closing(self, report: Report) -> None:
        """Print before and after, then the verdict in one sentence."""
        self._still()
        if not self._quiet:
            self._attempts()
            self._head("Result")
            columns = (Column("", cut="end"), *[Column(head, right=True) for head in ("Before", "After", "Change")])
            rows = [(row.label, row.before, row.after, row.change) for row in compared(report, read(report))]
            self._print(table(columns, rows, self._width))
            for told in (disturbed_words(report.final.latency_ms), repeats_words(report, read(report))):
                if told and told not in report.summary:
                    self._print(Text(f"\n{wrapped(told, self._width)}"))
            if report.tuning is not None:
                told = tuning_words(report.tuning, percent=read(report).percent)
                self._print(Text(f"\n{wrapped(told, self._width)}"))
            self._print(Text())
        label = report.summary.partition(":")[0]
        text = Text(wrapped(report.summary, self._width))
        text.stylize(STYLES[report.verdict], 0, len(label))
        self._print(text)

    def inspect_view(self, rows: Sequence[TensorRow], file_bytes: int) -> None:
        """Print a file tensor by tensor, their total, the file's bytes and how much of it is not weights."""
        self._still()
        numbers = [Column(head, right=True) for head in ("Shape", "Bits/weight", "Bytes")]
        lines = [
            (
                row.name,
                row.form,
                "x".join(map(str, row.shape)) or "scalar",
                f"{row.bits_per_weight:.2f}",
                units.count(row.bytes),
            )
            for row in rows
        ]
        total, weights = sum(row.bytes for row in rows), sum(row.weights for row in rows)
        bits = f"{8 * total / weights:.2f}" if weights else units.UNKNOWN
        tensors = f"{len(rows)} tensor{'' if len(rows) == 1 else 's'}"
        lines.append(("total", tensors, units.count(weights), bits, units.count(total)))
        self._print(table((Column("Tensor", cut="start"), Column("Form", cut="end"), *numbers), lines, self._width))
        overhead = file_bytes - total
        share = units.share(overhead / file_bytes) if file_bytes else units.UNKNOWN
        told = (
            f"file {units.count(file_bytes)} bytes, overhead {units.count(overhead)} bytes ({share}): graph and header"
        )
        self._print(Text(f"\n{told}"))

    @property
    def _width(self) -> int | None:
        """What lines must fit; None for a file or a pipe, where a cut name or sentence can't be searched for."""
        return self._console.width if self._console.is_terminal else None

    def _model(self, profile: ModelProfile) -> None:
        """Print the profile: totals, shares by family, and the largest layers."""
        self._head("Model")
        shape = "x".join(map(str, profile.input_shape))
        self._plain(f"{profile.architecture}, input {shape}, {units.count(profile.outputs)} outputs")
        self._plain(f"{units.count(profile.params)} parameters, {units.macs(profile.macs)} a sample")
        self._plain(", ".join(f"{number} {kind}" for kind, number in profile.counts().items()))
        self._print(Text())
        macs = profile.mac_share()
        shares = [(name, units.share(part), units.share(macs[name])) for name, part in profile.param_share().items()]
        columns = (Column("Family"), Column("Parameters", right=True), Column("MACs", right=True))
        self._print(table(columns, shares, self._width))
        self._print(Text())
        self._print(_layers(profile, self._width))

    def _decisions(self, plan: Plan) -> None:
        # Four columns of sentences would be four narrow towers at 80 columns: question, answer and evidence share one.
        self._head("Decisions")
        for decision in plan.decisions:
            self._item(decision.rule, decision.question)
            self._item("", f"-> {decision.answer}", style="bold")
            if decision.evidence:
                self._item("", decision.evidence, style="dim")

    def _attempts(self) -> None:
        """Print the attempts that were watched: on a terminal the table that was live, else one line for several."""
        done = self._picture.done
        made = attempts_table(done, None, self._console.width - 1, plain=self._picture.plain) if self._live else None
        if made is not None:
            self._head("Attempts")
            self._print(Text("\n".join([made.head, *[line for line, _ in made.lines]])))
        elif len(done) > 1:
            self._print(Text(counted(done)))

    def _head(self, text: str) -> None:
        self._print(Text.assemble("\n", (text, "bold")))

    def _plain(self, text: str) -> None:
        self._print(Text(wrapped(text, self._width)))

    def _item(self, label: str, text: str, *, style: str = "") -> None:
        """Print a paragraph that hangs from its label."""
        lead = f"{label:<{HANG - 2}}  "
        line = Text(wrapped(lead + text, self._width, indent=HANG), style=style)
        line.stylize("cyan", 0, len(label))
        self._print(line)

    def _print(self, text: Text) -> None:
        text.plain = printable(text.plain)
        # Everything is wrapped or cut by now; Rich would break "5 000" at its space.
        self._console.print(text, soft_wrap=True)

    def _still(self) -> None:
        if self._region is not None:
            self._region.stop()
            self._region = None


def _layers(profile: ModelProfile, width: int | None) -> Text:
    """Return the table of the largest layers, in the model's order; what it leaves out is its last line."""
    largest = sorted(range(len(profile.layers)), key=lambda index: -profile.layers[index].params)[:MOST_LAYERS]
    rows = [
        _amounts(layer.name, layer.type, layer.params, layer.macs, profile)
        for index, layer in enumerate(profile.layers)
        if index in largest
    ]
    rest = [layer for index, layer in enumerate(profile.layers) if index not in largest]
    if rest:
        params, macs = sum(layer.params for layer in rest), sum(layer.macs for layer in rest)
        rows.append(_amounts(f"{len(rest)} smaller ones", "", params, macs, profile))
    numbers = [Column(head, right=True) for head in ("Parameters", "Share", "MACs", "Share")]
    return table((Column("Layer", cut="start"), Column("Type", cut="end"), *numbers), rows, width)


def _amounts(name: str, kind: str, params: int, macs: int, profile: ModelProfile) -> tuple[str, ...]:
    shares = units.share(params / (profile.params or 1)), units.share(macs / (profile.macs or 1))
    return name, kind, units.count(params), shares[0], units.macs(macs), shares[1]
