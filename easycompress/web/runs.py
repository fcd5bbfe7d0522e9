"""What the page asks to be done with a run: each checks what was given, then changes run.json and the queue."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.web.fields import MODEL_FIELDS, Wrong
from easycompress.web.schema import check_settings
from easycompress.web.store import EVENTS, LOOK, OUT, OUTPUT, PLAN, RECIPE
from easycompress.web.uploads import PREFIX

if TYPE_CHECKING:
    from easycompress.web.fields import Fields
    from easycompress.web.queue import Queue
    from easycompress.web.store import Run, Store
    from easycompress.web.uploads import Uploads


class Runs:
    """The verbs of the page."""

    def __init__(self, store: Store, uploads: Uploads, fields: Fields, queue: Queue) -> None:
        self._store, self._uploads, self._fields, self._queue = store, uploads, fields, queue

    def create(self, given: dict[str, Any]) -> Run:
        """Create a run of a model and let it be looked at. Raises Wrong."""
        given = {name: given[name] for name in MODEL_FIELDS if given.get(name)}
        run = self._store.new(given, self._fields.model(given))
        self._store.tell(run.id, "state", stage="look", state="queued")
        self._queue.nudge()
        return run

    def look(self, number: str, given: dict[str, Any]) -> Run:
        """Look at another model, or at the same one with other fields. Raises Wrong; BadInput while it is at work."""
        run = self._resting(number)
        if run.stage == "compress":
            raise BadInput("this run has begun; copy it to change the model")
        given = {name: given[name] for name in MODEL_FIELDS if given.get(name)}
        run = run.model_copy(update={"given": given, "flags": self._fields.model(given), "goal": {}, "steps": None})
        self._clear(number, LOOK, PLAN)
        return self._queue.add(self._store.save(run), "look")

    def plan(self, number: str, goal: dict[str, Any]) -> Run:
        """Make a plan for a goal. What an earlier attempt at another goal left is removed. Raises Wrong, BadInput."""
        run = self._resting(number)
        seen = self._store.part(number, LOOK)
        if seen is None:
            raise BadInput("the model has to be looked at first")
        if run.stage == "compress" and run.state == "done":
            raise BadInput("this run is over; copy it to set another goal")
        flags = self._fields.goal(goal, seen["metric"])
        run = run.model_copy(update={"given": {**self._model_part(run), **goal}, "goal": flags, "steps": None})
        self._clear(number, PLAN, OUT, RECIPE)
        return self._queue.add(self._store.save(run), "plan")

    def start(self, number: str, steps: object) -> Run:
        """Carry out the plan, or its `steps` as edited. Raises Wrong with a line for each setting that can't be."""
        run = self._resting(number)
        planned = self._store.part(number, PLAN)
        if planned is None or run.stage == "compress":
            raise BadInput("there is no plan to carry out; make one first")
        edited = None if steps is None else self._edited(steps, planned["steps"])
        run = run.model_copy(update={"steps": edited})
        self._clear(number, OUT, RECIPE)
        return self._queue.add(self._store.save(run), "compress")

    def resume(self, number: str) -> Run:
        """Go on with what was cancelled or failed, from where it stopped."""
        run = self._resting(number)
        if run.state == "done":
            raise BadInput("this is done already")
        return self._queue.add(run, run.stage)

    def copy(self, number: str) -> Run:
        """Return a new run of the same model and goal that has not begun yet."""
        old = self._store.get(number)
        run = self._store.new(old.given, old.flags).model_copy(update={"goal": old.goal})
        seen = self._store.part(number, LOOK)
        if seen is None:
            self._store.save(run)
            self._queue.nudge()
            return run
        shutil.copyfile(self._store.place(number) / LOOK, self._store.place(run.id) / LOOK)
        self._store.tell(run.id, "state", stage="look", state="done")
        return self._store.save(run.model_copy(update={"state": "done"}))

    def remove(self, number: str) -> None:
        """Remove a run that is not at work, and the uploads that no other uses."""
        run = self._resting(number)
        self._store.remove(number)
        still = {value for other in self._store.all() for value in other.given.values() if isinstance(value, str)}
        for value in run.given.values():
            if isinstance(value, str) and value.startswith(PREFIX) and value not in still:
                self._uploads.drop(value)

    def _resting(self, number: str) -> Run:
        run = self._store.get(number)
        if not run.resting:
            raise BadInput("this run is at work; wait for it, or cancel it")
        return run

    def _model_part(self, run: Run) -> dict[str, Any]:
        return {name: value for name, value in run.given.items() if name in MODEL_FIELDS}

    def _clear(self, number: str, *names: str) -> None:
        place = self._store.place(number)
        for name in (*names, OUTPUT, *([EVENTS] if LOOK in names else [])):
            if (place / name).is_dir():
                shutil.rmtree(place / name)
            else:
                (place / name).unlink(missing_ok=True)

    def _edited(self, steps: object, planned: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        """Return edited steps, each held against the schema of the planned one at its place."""
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise BadInput("the steps are not a list of settings")
        kept: list[dict[str, Any]] = []
        wrong: dict[str, str] = {}
        for step in steps:
            place, settings = step.get("place"), step.get("settings")
            if not isinstance(place, int) or not 0 <= place < len(planned) or not isinstance(settings, dict):
                raise BadInput("a step that is not of this plan; reload the page")
            lines = check_settings(settings, planned[place]["schema"])
            wrong |= {f"{place}.{name}": line for name, line in lines.items()}
            kept.append({**settings, "kind": planned[place]["kind"]})
        if wrong:
            raise Wrong(wrong)
        if not kept:
            raise BadInput("every step is switched off: nothing would be compressed; leave one on")
        return tuple(kept)
