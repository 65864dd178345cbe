"""The tokenizer: trained here or taken from a checkpoint, kept as a folder that transformers' AutoTokenizer loads."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from aurora_m.workspace import DataError, Progress, RecipeError, Task, format_count, read_json, write_json

from .config import SpecialTokens, TokenizerTrainConfig
from .sample import sample_documents

_TOKENIZER_FILE, _CONFIG_FILE, _MAP_FILE = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_EXTRA_FILES = ("chat_template.jinja",)
_LONGEST_WORD = 1000  # characters; training time grows with the square of a word's length
_NO_MAX_LENGTH = int(1e30)  # transformers' own way of saying that a tokenizer sets no limit; the model does


class Tokenizer:
    """Text to ids and back. Special tokens spelled out in a text are text: only the caller can place a special id.

    Attributes: `eod`, `eod_id`; `fim`, the ids of "prefix", "middle", "suffix", or None where it has none;
    `vocab_size`, one more than the highest id; `backend`, the `tokenizers.Tokenizer`; `folder`, where it lies.
    """

    def __init__(self, backend: tokenizers.Tokenizer, eod: str, special: SpecialTokens, folder: Path) -> None:
        self.backend, self.eod, self.folder = backend, eod, folder
        names = {"prefix": special.fim_prefix, "middle": special.fim_middle, "suffix": special.fim_suffix}
        ids = {part: id for part, name in names.items() if (id := backend.token_to_id(name)) is not None}
        self.fim = ids if len(ids) == len(names) else None
        # Some checkpoints list these as ordinary added tokens; then `encode_special_tokens` would not shield them.
        backend.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in (eod, *(names.values() if self.fim else ()))]
        )
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.eod_id = backend.get_vocab(with_added_tokens=True)[eod]
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any token at its beginning or end."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, for many texts, on all cores."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        return self.backend.decode(ids, skip_special_tokens=True)


def load_tokenizer(folder: Path, special: SpecialTokens | None = None) -> Tokenizer:
    """A tokenizer from a Hugging Face folder.

    Its end-of-document token is `special.eod` where it has that, else what its config calls the end of sequence. A
    folder the tokenize stage wrote needs no `special`: its config says.

    Raises:
        DataError: no fast tokenizer (tokenizer.json) there, a damaged one, or no end-of-document token.
    """
    path = folder / _TOKENIZER_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {_TOKENIZER_FILE}, the form of tokenizer that is read; convert it once with transformers "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(...)), or give tokenizer.train or tokenizer.path"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise DataError(f"{path} is no valid tokenizer ({error}); fetch or write it again") from None
    config = _read_config(folder)
    names = (
        [config.get("eos_token"), SpecialTokens().eod] if special is None else [special.eod, config.get("eos_token")]
    )
    for name in names:
        if isinstance(name, str) and backend.token_to_id(name) is not None:
            return Tokenizer(backend, name, special or SpecialTokens(), folder)
    raise DataError(
        f"{path} has none of {[name for name in names if name]} to mark the end of a document; name one of its tokens "
        "in tokenizer.special.eod"
    )


def import_tokenizer(path: str | Path, special: SpecialTokens, out: Path) -> Tokenizer:
    """Copies a tokenizer into `out`: `path` is a folder, a tokenizer.json, or a Hugging Face id.

    Raises:
        RecipeError: there is nothing at `path`.
        DataError: as `load_tokenizer`.
    """
    local = Path(path)
    folder = local if local.is_dir() else local.parent if local.is_file() else _download(str(path))
    source = local if local.is_file() else folder / _TOKENIZER_FILE
    out.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, out / _TOKENIZER_FILE)
    for name in _EXTRA_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    config = _read_config(folder)
    write_json(out / _CONFIG_FILE, config)
    try:
        tokenizer = load_tokenizer(out, special)
    except DataError as error:
        raise DataError(str(error).replace(str(out), str(folder))) from None
    _write_config(out, tokenizer.eod, config)
    return tokenizer


def train_tokenizer(
    config: TokenizerTrainConfig, special: SpecialTokens, curated: Path, out: Path, *, seed: int, progress: Progress
) -> Tokenizer:
    """Trains a byte-level BPE on a sample of the curated training documents and writes it to `out`.

    Digits stand alone and words take their leading space, as in StarCoder's tokenizer; every byte has a token, so
    any text can be encoded and comes back exactly. The same documents give the same file. Memory is bounded by
    `bytes_per_domain`, not by the corpus.

    Raises:
        DataError: a named domain has no curated documents.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=special.all(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    samples = {
        domain: sample_documents(curated, domain, config.bytes_per_domain, seed, "tokenizer.train.domains")
        for domain in config.domains
    }
    with progress.task("tokenizer", unit="bytes", total=None) as task:
        backend.train_from_iterator(_counted(samples, task), trainer)
    if backend.get_vocab_size() < config.vocab_size:
        progress.say(
            f"  tokenizer: {format_count(backend.get_vocab_size())} entries, not {format_count(config.vocab_size)}: "
            "the sample has no more pairs to join"
        )
    out.mkdir(parents=True, exist_ok=True)
    backend.save(str(out / _TOKENIZER_FILE))
    _write_config(out, special.eod, {"pad_token": special.fim_pad})
    return load_tokenizer(out, special)


def write_tokenizer(backend: tokenizers.Tokenizer, out: Path, like: Tokenizer) -> None:
    """Writes a tokenizer with the configuration and the chat template of another."""
    out.mkdir(parents=True, exist_ok=True)
    backend.save(str(out / _TOKENIZER_FILE))
    _write_config(out, like.eod, _read_config(like.folder))
    for name in _EXTRA_FILES:
        if (like.folder / name).is_file():
            shutil.copyfile(like.folder / name, out / name)


def _counted(samples: dict[str, Iterator[str]], task: Task) -> Iterator[list[str]]:
    for domain, texts in samples.items():
        for text in texts:
            task.advance(len(text.encode()), note=domain)
            yield _cut_long_words(text)


def _cut_long_words(text: str) -> list[str]:
    """The text, in pieces where it has words beyond reason (genome strings, encoded images)."""
    if max(map(len, text.split()), default=0) <= _LONGEST_WORD:
        return [text]
    return [text[start : start + _LONGEST_WORD] for start in range(0, len(text), _LONGEST_WORD)]


def _read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed by the older special_tokens_map.json; special tokens as plain strings."""
    config: dict[str, Any] = {}
    for name in (_MAP_FILE, _CONFIG_FILE):
        if (folder / name).is_file():
            content = read_json(folder / name)
            config |= content if isinstance(content, dict) else {}
    return {
        key: value["content"] if key.endswith("_token") and isinstance(value, dict) and "content" in value else value
        for key, value in config.items()
    }


def _write_config(folder: Path, eod: str, config: dict[str, Any]) -> None:
    """tokenizer_config.json such that transformers reads tokenizer.json as it stands, and runs no code of others.

    The class is named because transformers 5 rebuilds some others from their vocabulary alone: a tokenizer of class
    GPT2Tokenizer, StarCoder's, would lose its splitting of digits.
    """
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "tokenizer_class", "tokenizer_file")}
    defaults = {"bos_token": eod, "model_max_length": _NO_MAX_LENGTH, "clean_up_tokenization_spaces": False}
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eod}
    write_json(folder / _CONFIG_FILE, {**defaults, **kept, **fixed})


def _download(address: str) -> Path:
    """The tokenizer files of a Hugging Face repository, fetched or from the cache."""
    if address.count("/") > 1 or address.startswith((".", "/", "~")):
        raise RecipeError(
            f"tokenizer.path {address} does not exist; give a folder, a tokenizer.json or a Hugging Face id"
        )
    from huggingface_hub import snapshot_download

    try:
        files = [_TOKENIZER_FILE, _CONFIG_FILE, _MAP_FILE, *_EXTRA_FILES]
        return Path(snapshot_download(address, allow_patterns=files))
    except Exception as error:  # network, permission, name: a dozen types, one meaning
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"tokenizer.path {address!r} is no local path, and could not be fetched from Hugging Face: {reason}"
        ) from None
