"""Repair after training: scores models between the base and the final one, and keeps the best inside the budget.

Forgetting is in part a matter of how far the weights went: a model a little nearer to the base has often lost less of
what that knew and little of what it learned (Wortsman et al. 2022). How much is right is measured, not guessed.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from aurora_m.model import BaseConfig
from aurora_m.workspace import AuroraError, Progress, write_json

from .config import TrainConfig
from .merge_budget import merge_aim
from .merge_choice import Aim, Point, choose, judge, next_shares
from .merge_config import MergeConfig
from .merge_work import MERGED, open_work, relative
from .ranks import Ranks


def merge_trained(
    config: TrainConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    *,
    progress: Progress,
    base_folder: Path | None = None,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Merges the model that training ended with and returns the new `train.json`; `merge.json` tells all about it.

    Scores that are known are not taken again: a call that was killed goes on, and one that changes nothing is quick.

    Args:
        tokens: the tokenize stage's folder.
        out: the train stage's folder, after its last phase.
        base_folder: an ancestor to merge with, if it is not the ledger's base.
        beat: called after each candidate.

    Raises:
        RecipeError: there is no budget, or it names no domain that was scored.
        DataError: the two models cannot be merged, or are not what the ledger measured; a file is damaged.
    """
    started = time.monotonic()
    if config.threads:
        torch.set_num_threads(config.threads)
    work = open_work(config, tokens, out, base_folder, progress)
    budget, learned = merge_aim(config, base, work.facts["phases"], work.book.domains)
    with progress.task("merge", unit="candidates") as task:

        def at(average_last: int, base_share: float) -> Point:
            point = judge(average_last, base_share, work.score(average_last, base_share), aim)
            task.advance(1, note=f"{point.name}: {point.worst} {point.changes[point.worst][0]:+.2%}")
            beat()
            return point

        aim = Aim(work.score_base(), budget, learned)
        points = sweep(config.merge or MergeConfig(), work.averaged, at)
    chosen, reason = choose(points, aim)
    progress.say(f"merge: {chosen.name}: {reason}")
    result = {
        "base": relative(work.base, out),
        "final": relative(work.final, out),
        "budget": budget,
        "learned": learned,
        "candidates": [point.row() for point in points],
        "chosen": chosen.name,
        "model": relative(work.final, out) if chosen.is_unmerged else f"{MERGED}/model",
        "reason": reason,
        "inside": any(point.inside for point in points),
        "seconds": round(time.monotonic() - started, 3),
    }
    work.publish(chosen)
    write_json(out / "merge.json", result)
    return work.finish(chosen, aim)


def sweep(settings: MergeConfig, averaged: int, at: Callable[[int, float], Point]) -> list[Point]:
    """The candidates, scored: unmerged, the mean of the last `averaged` checkpoints, base shares, then finer ones.

    Shares of the base are tried on the final weights, or on the mean where that both learned more and lost less.

    Args:
        at: scores the mean of so many checkpoints with a share of the base.
    """
    points = [at(1, 0.0)]
    trunk = points[0]
    if averaged > 1:
        points.append(at(averaged, 0.0))
        if points[1].learning < trunk.learning and points[1].excess < trunk.excess:
            trunk = points[1]
    line = [trunk, *(at(trunk.average_last, share) for share in sorted(set(settings.base_shares)))]
    for _ in range(settings.refinements):
        line += [at(trunk.average_last, share) for share in next_shares(line)]
    return points + sorted(line[1:], key=lambda point: point.base_share)


def merge_after_training(
    config: TrainConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    trained: dict[str, Any],
    ranks: Ranks,
    progress: Progress,
) -> dict[str, Any]:
    """Merges if the recipe says so, and returns the `train.json` that stands then, else `trained`.

    The main rank of a job does it; the others wait and hear of each candidate, so that none takes it for lost.
    """
    if not config.merge:
        if (out / MERGED).exists():
            progress.say("the merged model of an earlier call is not used: the recipe has no train.merge")
        return trained
    gc.collect()  # the trained model and its moments are no longer needed, and the candidates want their room
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    news: Any = None
    if ranks.is_main:
        try:
            news = merge_trained(config, base, tokens, out, progress=progress, beat=lambda: ranks.from_main(None))
        except AuroraError as error:
            news = error
        ranks.from_main(news)
    while news is None:
        news = ranks.from_main(None)
    if isinstance(news, AuroraError):
        raise news
    return news
