"""A run folder whose model, tokenizer and tokens are real, if tiny; all other figures are those of the invented run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.report.run_folder import DOMAINS, make_run

from aurora_m.tokens import TokenizerConfig, tokenize
from aurora_m.workspace import Progress, read_json, write_json

QUIET = Progress(quiet=True)
TEXTS = {
    "en": "The old library opens at nine, and nobody reads the notice on its door.\n",
    "code": "def double(values):\n    return [2 * value for value in values]  # twice\n",
    "fi": "Vanha kirjasto avataan yhdeksältä, eikä kukaan lue oven ilmoitusta.\n",
    "hi": "पुराना पुस्तकालय नौ बजे खुलता है और दरवाज़े की सूचना कोई नहीं पढ़ता।\n",
    "ja": "古い図書館は九時に開き、扉の掲示を読む人はいません。\n",
    "vi": "Thư viện cũ mở cửa lúc chín giờ và không ai đọc tờ thông báo trên cửa.\n",
}


def make_release_run(run: Path, family: str = "gpt_bigcode", vocab_size: int = 400) -> Path:
    """An invented run with a real model at `train/CAT/model` and a differing one at `align/SFT/model`."""
    make_run(run)
    for domain in DOMAINS:
        for split, count in (("train", 12), ("heldout", 4)):
            texts = [f"{number} 🙂 " + TEXTS[domain] * (number + 1) for number in range(count)]
            _write_documents(run / "curated" / domain / f"{split}-00000.parquet", domain, texts)
    config = TokenizerConfig.model_validate({"train": {"vocab_size": vocab_size, "domains": list(DOMAINS)}})
    tokenize(config, run / "curated", run / "tokens", seed=1, progress=QUIET)
    for folder, seed in (("train/CAT/model", 1), ("align/SFT/model", 2)):
        write_model(run / folder, run / "tokens" / "tokenizer", family, seed)
    return run


def write_model(folder: Path, tokenizer: Path, family: str, seed: int) -> None:
    from aurora_m.model import ArchitectureConfig, Decoder, save_model
    from aurora_m.tokens import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    sizes = {"family": family, "layers": 2, "hidden_size": 32, "heads": 4, "max_positions": 256}
    model = Decoder(ArchitectureConfig.model_validate(sizes).model_config_for(loaded.vocab_size))
    model.init_weights(seed)
    save_model(model, folder, tokenizer, eod_id=loaded.eod_id)


def edit_json(path: Path, **changes) -> None:
    write_json(path, {**read_json(path), **changes})


def _write_documents(path: Path, domain: str, texts: list[str]) -> None:
    columns = {
        "id": [f"{domain}-{n}" for n in range(len(texts))],
        "text": pa.array(texts, pa.large_string()),
        "source": [f"own/{domain}"] * len(texts),
        "lang": pa.array([None if domain == "code" else domain] * len(texts), pa.string()),
    }
    pq.write_table(pa.table(columns), path)
