"""The release stage: a folder that transformers, vLLM and lm-evaluation-harness load as it is, with its evidence."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from aurora_m.workspace import AuroraError, Progress, fingerprint, read_json, write_json, write_text

from .cards import data_card, model_card
from .chat import chat_template, complete_tokenizer
from .checksums import write_checksums
from .config import ReleaseConfig
from .errors import ReleaseError
from .facts import RunFacts, read_facts
from .verify import Verification, verify_model
from .wording import without_secrets

# trainer_state.json: the learning rate that training ended with, for those who continue from the model.
_MODEL_FILES = (
    *("config.json", "generation_config.json", "trainer_state.json"),
    *("*.safetensors", "*.safetensors.index.json"),
)
# By family: GPT-2's key, Llama's, BLOOM's.
_POSITION_KEYS = ("n_positions", "max_position_embeddings", "seq_length")
_TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


def release(config: ReleaseConfig, run: Path, out: Path, recipe: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Fills `out` with model, tokenizer, cards, recipe and checksums; returns the content of release.json.

    Nothing counts as released before transformers has loaded the folder and agreed with our model on held-out text.
    Hand in a temporary folder: where this raises, what is in it is not a release.

    Raises:
        ReleaseError: the folder is not the model that was trained.
        AuroraError: a stage before has not finished.
    """
    facts = read_facts(run)
    original, tuned = final_model(facts)
    tokenizer = (facts.tokens or {}).get("tokenizer")
    if tokenizer is None:
        raise AuroraError(f"{run / 'tokens' / 'tokens.json'} is missing; run the tokenize stage first")
    vocabulary = read_json(original / "config.json")["vocab_size"]
    if vocabulary < tokenizer["vocab_size"]:
        raise ReleaseError(
            f"{original} has a vocabulary of {vocabulary}, the tokenizer one of {tokenizer['vocab_size']}; "
            "they are not of the same run, train again"
        )
    out.mkdir(parents=True, exist_ok=True)
    progress.say(f"release: copying {original.relative_to(run)}")
    copy_model(original, run / "tokens" / "tokenizer", out, tuned)
    progress.say("release: comparing with transformers on held-out text")
    proof = verify_model(out, original, run / "tokens", facts.domains, tokenizer["eod_id"])
    summary = _summary(config, facts, recipe, original, tuned, proof)
    public = without_secrets(recipe)
    write_text(out / "recipe.yaml", yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=100))
    write_text(out / "README.md", model_card(config, facts, public, summary))
    if config.include_data_card:
        write_text(out / "DATA_CARD.md", data_card(facts, summary))
    write_json(out / "release.json", summary)
    files = write_checksums(out)
    progress.say(f"release: {files} files; largest logit difference to transformers {proof.max_logit_difference:.2g}")
    return summary


def final_model(facts: RunFacts) -> tuple[Path, bool]:
    """The folder of the last model of a run, and whether it was tuned on instructions.

    Raises:
        AuroraError: training has not finished, or the folder is gone.
    """
    if facts.train is None:
        raise AuroraError(f"{facts.run / 'train' / 'train.json'} is missing; run the train stage first")
    folder = facts.run / "train" / facts.train["final_model"]
    tuned = False
    if facts.align is not None:
        aligned = (facts.run / "align" / facts.align["final_model"]).resolve()
        # Where tuning is switched off, align.json points at the trained model.
        tuned = aligned != folder.resolve()
        folder = aligned
    folder = folder.resolve()
    if not folder.is_dir():
        raise AuroraError(f"{folder}, the last model of this run, is gone; run the stage that writes it again")
    return folder, tuned


def copy_model(original: Path, tokenizer: Path, out: Path, tuned: bool) -> None:
    """Copies weights, configs and tokenizer files, and nothing else that may lie about, into `out`."""
    for source, patterns in ((original, _MODEL_FILES), (tokenizer, _TOKENIZER_FILES)):
        for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
            try:
                shutil.copyfile(path, out / path.name)
            except OSError as error:
                raise AuroraError(f"{path} could not be copied to {out} ({error}); free some space and retry") from None
    from aurora_m.tokens import load_tokenizer

    template = None
    if tuned:
        from aurora_m.safety import INSTRUCTION_TEMPLATE

        template = chat_template(INSTRUCTION_TEMPLATE)
    config = read_json(out / "config.json")
    positions = next((config[key] for key in _POSITION_KEYS if config.get(key)), None)
    complete_tokenizer(out, load_tokenizer(out).eod, positions, template)


def _summary(
    config: ReleaseConfig, facts: RunFacts, recipe: dict[str, Any], original: Path, tuned: bool, proof: Verification
) -> dict[str, Any]:
    """What release.json holds: what was released, from where, and the evidence that it is that."""
    languages = [d["lang"] for d in (recipe.get("domains") or {}).values() if d.get("lang")]
    model = read_json(original / "config.json")
    return {
        "name": config.name or recipe.get("name") or facts.run.name,
        "license": config.license,
        "author": config.author,
        "languages": config.languages or list(dict.fromkeys(languages)),
        "aurora_m": version("aurora-m"),
        "model": {
            "from": original.relative_to(facts.run.resolve()).as_posix(),
            "instruction_tuned": tuned,
            "type": model["model_type"],
            "dtype": model.get("torch_dtype") or model.get("dtype"),
            "parameters": (facts.train or {}).get("parameters"),
            "tokens": (facts.train or {}).get("tokens"),
        },
        "verification": proof.as_dict(),
        "recipe": fingerprint(recipe),
        "stages": {stage: manifest.fingerprint for stage, manifest in facts.manifests.items() if stage != "release"},
    }
