"""The phases of a run in their order, each from where it begins: the end of another, or a checkpoint in its middle."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aurora_m.tokens import TrainBatches
from aurora_m.workspace import DataError, Progress, RecipeError, format_count

from .chain import Chain
from .checkpoint import checkpoint_folder, first_at_or_after, list_checkpoints, read_record
from .config import PhaseConfig, TrainConfig
from .edits import is_finished, newest_record
from .lineage import ancestry, parents
from .rollback import leave_out_quarantined
from .schedule import Segment, build_segments
from .state import TrainingState, move_damaged, resume


class Course:
    """Where each phase stands, and the way of the state from one to the next.

    `finished`: the record of the last checkpoint of each phase that is through.
    """

    def __init__(
        self,
        config: TrainConfig,
        chain: Chain,
        out: Path,
        state: TrainingState,
        batches: TrainBatches,
        progress: Progress,
        base_rate: float | None = None,
    ) -> None:
        self._config, self._chain, self._out, self._progress = config, chain, out, progress
        self._state, self._batches, self._base_rate = state, batches, base_rate
        self._links = dict(chain)
        self._parents = dict(zip((phase.name for phase in config.phases), parents(config.phases), strict=True))
        self.look()

    def look(self) -> None:
        """Reads from the checkpoints which phases are finished."""
        newest = {name: newest_record(self._out, name, link) for name, link in self._chain[1:]}
        newest = self._state.ranks.from_main(newest)
        self.last_steps = {name: -1 if record is None else record["step"] for name, record in newest.items()}
        self.finished = {name: record for name, record in newest.items() if record and is_finished(record, name)}

    @property
    def unfinished(self) -> list[PhaseConfig]:
        """What is left to train, in order."""
        return [phase for phase in self._config.phases if phase.name not in self.finished]

    def check_end(self) -> None:
        """Of a run that is finished, loads the last checkpoint, which proves it whole; if it is not, its phase is left
        to train."""
        if not self.unfinished:
            resume(self._state, self._out, self._chain, self._progress)
            self.look()

    def next_phase(self) -> PhaseConfig | None:
        """Brings the state to the first phase that is left to train: into it, or to the place where it begins.

        Raises:
            RecipeError: no checkpoint is kept where the phase branches off.
        """
        while self.unfinished:
            phase = self.unfinished[0]
            if self._arrive(phase):
                self.last_steps[phase.name] = self._state.step if self._state.phase == phase.name else -1
                line = [(name, self._links[name]) for name in ancestry(self._config.phases, phase.name)]
                leave_out_quarantined(self._batches, self._out, line)
                return phase
        return None

    def segment(self, phase: PhaseConfig) -> Segment:
        """The learning rates of the phase that the state stands in, or at the beginning of."""
        state = self._state
        starts = {name: record["finished"][-1]["start_tokens"] for name, record in self.finished.items()}
        inside = sum(state.phase_tokens_by_domain.values()) if state.phase == phase.name else 0
        starts[phase.name] = state.tokens - inside
        names = [one.name for one in self._config.phases]
        return build_segments(self._config.phases, self._base_rate, starts)[names.index(phase.name)]

    def branches(self) -> dict[str, list[int]]:
        """By phase, the tokens of the run at which others branch from it."""
        points: dict[str, list[int]] = {}
        for phase in self._config.phases:
            if phase.origin and phase.origin.tokens is not None:
                points.setdefault(phase.origin.phase, []).append(phase.origin.tokens)
        return points

    def rows(self, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The ledger of all phases: the state's own, and what finished ones measured that it does not come from."""
        return self._together(own, (record["ledger"] for record in self.finished.values()), ("phase", "step", "domain"))

    def decisions(self, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The guardrails' decisions in all phases, in the same way."""
        return self._together(own, (end.get("decisions", []) for end in self.finished.values()), ("phase", "step"))

    def mixtures(self) -> list[dict[str, Any]]:
        """Every mixture of all phases, in the same way."""
        others = (record["batches"].get("history", []) for record in self.finished.values())
        return self._together(self._batches.history, others, ("phase", "tokens"))

    def _together(
        self, own: list[dict[str, Any]], others: Iterable[list[dict[str, Any]]], key: Sequence[str]
    ) -> list[dict[str, Any]]:
        rows = {tuple(row[name] for name in key): row for row in own}
        for row in (row for rows_of_one in others for row in rows_of_one):
            rows.setdefault(tuple(row[name] for name in key), row)
        places = {phase.name: place for place, phase in enumerate(self._config.phases)}
        return sorted(rows.values(), key=lambda row: (places.get(row["phase"], -1), row["tokens"]))

    def _arrive(self, phase: PhaseConfig) -> bool:
        """Whether the state could be brought to a phase; where not, the one before it is to be trained again."""
        state = self._state
        inside = state.phase == phase.name
        if not inside:
            self._batches.end_quarantine()
            inside = resume(state, self._out, [(phase.name, self._links[phase.name])], self._progress)
        if inside and state.step:
            place = f"step {state.step} of phase {state.phase} ({format_count(state.tokens)} tokens)"
            self._progress.say(f"resuming after {place}")
        return inside or self._go_to_beginning(phase)

    def _go_to_beginning(self, phase: PhaseConfig) -> bool:
        """Loads the checkpoint that a phase begins with, unless the state stands there."""
        state, parent = self._state, self._parents[phase.name]
        while parent in self.finished:
            with state.ranks.agreed():
                folder = state.ranks.from_main(self._beginning(phase, parent))
            if folder == checkpoint_folder(self._out / state.phase, state.step):
                return True
            try:
                state.load(folder)
                self._progress.say(
                    f"phase {phase.name} begins after step {state.step} of phase {parent} "
                    f"({format_count(state.tokens)} tokens)"
                )
                return True
            except DataError as error:
                self._progress.say(f"warning: {error}; going back to the one before it")
                if state.ranks.is_main:
                    move_damaged(self._out, folder)
                self.look()
        return parent is None

    def _beginning(self, phase: PhaseConfig, parent: str) -> Path:
        """The checkpoint that a phase begins with: the end of its parent, or the first at or after the branch.

        Raises:
            RecipeError: none is kept there.
        """
        folders = list_checkpoints(self._out / parent)
        branch = phase.origin.tokens if phase.origin else None
        if branch is None:
            return folders[-1]
        folder = first_at_or_after(folders, branch)
        by_name = {one.name: one for one in self._config.phases}
        slack = self._config.checkpoint.every + by_name[parent].tokens_per_step
        if folder is not None and read_record(folder)["tokens"] < branch + slack:
            return folder
        there = ", ".join(f"{parent}@{tokens}" for tokens in map(_tokens_of, folders) if tokens is not None)
        raise RecipeError(
            f"phase {phase.name}: from {phase.from_}: no checkpoint of {parent} is kept there; there are {there}; "
            "branch from one of them. A branch that is in the recipe while its phase is trained is kept by itself; "
            "train.checkpoint.keep_every keeps others"
        )


def _tokens_of(folder: Path) -> int | None:
    try:
        return read_record(folder)["tokens"]
    except DataError:
        return None
