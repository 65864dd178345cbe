"""A merge under way: the models of a run and of candidates, their scores, and the one that is published."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aurora_m.model import Decoder, check_mergeable, interpolate, load_model, save_model
from aurora_m.workspace import DataError, Progress, atomic_folder, fingerprint, read_json, recover_folder, write_json

from .ancestry import check_ancestor
from .chain import fingerprint_large
from .checkpoint_average import export_average, last_checkpoints
from .config import TrainConfig
from .device import pick_device
from .ledger import ledger_rows, write_ledger
from .merge_choice import Aim, Point, Scores
from .merge_config import MergeConfig
from .merge_scores import ScoreBook

MERGED = "merged"
_SAME_MODEL = 0.02  # a relative difference of bpb that rounding, precision and device never make


@dataclass
class MergeWork:
    """A merge under way: the folders of the run, what identifies the models in them, and the book of scores."""

    config: TrainConfig
    tokens: Path
    out: Path
    facts: dict[str, Any]
    reference: Path
    base: Path
    final: Path
    book: ScoreBook
    progress: Progress
    checkpoints: list[Path]
    average: Path
    """Where the mean of the checkpoints lies once it is needed."""
    identities: dict[Path, Any]

    @property
    def averaged(self) -> int:
        return max(1, len(self.checkpoints))

    def score_base(self) -> Scores:
        """The reference of every change, scored here and now: the ledger may be of another machine."""
        made_of = {"final": self.identities[self.reference]}
        scores = self.book.score(made_of, lambda: load_model(self.reference, device=self.book.device))
        self._compare_with_ledger(scores, self.reference, self._reference_step)
        return scores

    def score(self, average_last: int, base_share: float) -> Scores:
        scores = self.book.score(self._made_of(average_last, base_share), lambda: self._build(average_last, base_share))
        if average_last == 1 and base_share == 0:
            self._compare_with_ledger(scores, self.final, self._last_step)
        return scores

    def publish(self, chosen: Point) -> None:
        """Writes the chosen model, unless it lies there already; with it stands what it is made of."""
        recover_folder(self.out / MERGED)
        if chosen.is_unmerged or self._is_published(chosen):
            return
        model = self._build(chosen.average_last, chosen.base_share).to("cpu")
        with atomic_folder(self.out / MERGED) as temporary:
            save_model(model, temporary / "model", self.tokens / "tokenizer", eod_id=self._eod_id)
            write_json(temporary / "made_of.json", {"fingerprint": self._identity(chosen), "name": chosen.name})

    def finish(self, chosen: Point, aim: Aim) -> dict[str, Any]:
        """Lets the run go on with the chosen model, and clears up."""
        rows = [row for row in self.ledger if row["phase"] != MERGED]
        if not chosen.is_unmerged:
            rows += ledger_rows(
                rows,
                chosen.scores,
                phase=MERGED,
                step=self._last_step,
                tokens=self.facts["tokens"],
                reference_step=self._reference_step,
                base_bits={domain: score.bits for domain, score in aim.base.items() if score.bits is not None},
            )
        write_ledger(rows, self.out / "ledger.parquet")
        unmerged = relative(self.final, self.out)
        note = {
            "chosen": chosen.name,
            "of": unmerged,
            "base": relative(self.base, self.out),
            "base_share": chosen.base_share,
            "average_last": chosen.average_last,
            "fingerprint": self._identity(chosen),
        }
        final = unmerged if chosen.is_unmerged else f"{MERGED}/model"
        facts = self.facts | {"final_model": final, "merge": note}
        write_json(self.out / "train.json", facts)
        if chosen.is_unmerged:
            shutil.rmtree(self.out / MERGED, ignore_errors=True)
        shutil.rmtree(self.average, ignore_errors=True)
        self.book.forget_others()
        return facts

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "ledger.parquet").to_pylist()

    @property
    def _reference_step(self) -> int:
        return self.facts["phases"][0]["steps"] if self.facts["base_model"] == "base/model" else 0

    @property
    def _last_step(self) -> int:
        return max(row["step"] for row in self.ledger)

    @property
    def _eod_id(self) -> int:
        return read_json(self.tokens / "tokens.json")["tokenizer"]["eod_id"]

    def _made_of(self, average_last: int, base_share: float) -> dict[str, Any]:
        trunk = self.identities[self.final if average_last == 1 else self.average]
        return {"final": trunk} | ({"base": self.identities[self.base], "share": base_share} if base_share else {})

    def _identity(self, point: Point) -> str:
        return fingerprint(self._made_of(point.average_last, point.base_share))

    def _is_published(self, point: Point) -> bool:
        path = self.out / MERGED / "made_of.json"
        return path.exists() and read_json(path).get("fingerprint") == self._identity(point)

    def _build(self, average_last: int, base_share: float) -> Decoder:
        trunk = self.final if average_last == 1 else self._averaged_model()
        return interpolate(self.base, trunk, base_share, device=self.book.device)

    def _averaged_model(self) -> Path:
        """The mean of the last checkpoints as a folder, made when it is first needed."""
        if not (self.average / "model").exists():
            export_average(
                self.checkpoints,
                self.out / "initial" / "model" if self.config.lora else self.final,
                self.average / "model",
                lora=self.config.lora,
                tokenizer=self.tokens / "tokenizer",
                eod_id=self._eod_id,
                progress=self.progress,
            )
        return self.average / "model"

    def _compare_with_ledger(self, scores: Scores, model: Path, step: int) -> None:
        """Refuses a model that is not the one the ledger was kept of: its folder was exchanged since."""
        measured = {row["domain"]: row["bpb"] for row in self.ledger if row["step"] == step and row["phase"] != MERGED}
        for domain, bpb in measured.items():
            if domain in scores and abs(scores[domain].bpb / bpb - 1) > _SAME_MODEL:
                raise DataError(
                    f"{model} is not the model this run measured: {domain} scores {scores[domain].bpb:.4f} bits per "
                    f"byte, and {bpb:.4f} stands in the ledger at step {step}; delete the folder and run the train "
                    "stage again"
                )


def open_work(config: TrainConfig, tokens: Path, out: Path, base_folder: Path | None, progress: Progress) -> MergeWork:
    facts = read_json(out / "train.json")
    reference = out / facts["base_model"]
    final = out / facts.get("merge", {"of": facts["final_model"]})["of"]
    for folder in (reference, final):
        if not folder.is_dir():
            raise DataError(f"{folder} is gone; run the train stage again, which writes it anew from its checkpoint")
    base = base_folder or reference
    check_mergeable(base, final)
    if base_folder:
        check_ancestor(base, final)
    book = ScoreBook(
        out / "merging",
        tokens,
        facts["heldout_sequence_length"],
        config.ledger.heldout_tokens,
        config.precision,
        device=pick_device(),
    )
    count = (config.merge or MergeConfig()).average_last
    checkpoints, files = last_checkpoints(final.parent, count) if count > 1 else ([], [])
    average = out / "merging" / f"average-{fingerprint(files)[:8]}"
    for leftover in (out / "merging").glob("average-*"):
        if leftover != average:
            shutil.rmtree(leftover)
    identities: dict[Path, Any] = {folder: fingerprint_large(folder) for folder in {reference, base, final}}
    identities[average] = files
    return MergeWork(
        config, tokens, out, facts, reference, base, final, book, progress, checkpoints, average, identities
    )


def relative(folder: Path, out: Path) -> str:
    """A model's folder as `train.json` names it; one that lies elsewhere by its whole path."""
    return folder.relative_to(out).as_posix() if folder.is_relative_to(out) else str(folder)
