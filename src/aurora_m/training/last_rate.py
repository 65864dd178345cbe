"""The learning rate a model's training ended with, beside its weights, so that a later training can take it up.

trainer_state.json     as the Trainer of transformers writes it: the last entry of `log_history` that has a
                       `learning_rate` counts; of the file we write, that is all there is
"""

from pathlib import Path

from aurora_m.workspace import DataError, read_json, write_json

FILE = "trainer_state.json"


def write_last_rate(folder: Path, rate: float | None) -> None:
    """Records a rate; nothing is written where it is not known."""
    if rate is not None:
        write_json(folder / FILE, {"log_history": [{"learning_rate": rate}]})


def read_last_rate(folder: Path) -> float | None:
    """The rate recorded in a model's folder, None where there is none.

    Raises:
        DataError: the file is not what a Trainer writes.
    """
    if not (folder / FILE).exists():
        return None
    state = read_json(folder / FILE)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise DataError(f"{folder / FILE} has no list log_history; write the rate in the place of `last`")
    rates = [entry.get("learning_rate") for entry in history if isinstance(entry, dict)]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate >= 0]
    return known[-1] if known else None
