"""What a recipe says about raw documents: domains, their sources, and the settings of the curation passes."""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..workspace import Count, RecipeError, Section, Share
from .pair_settings import PairsConfig

RedactionKind = Literal["key", "email", "ip", "iban", "card", "national_id", "phone", "author"]
PositiveCount = Annotated[Count, Field(gt=0)]
_KINDS_OF_RECORDS = ("jsonl", "parquet", "hf", "tsv", "moses", "tmx")
DOCUMENT_FIELDS = ("text", "id", "source", "url", "license", "lang")


class SourceConfig(Section):
    """Where documents of a domain come from.

    `kind`: `jsonl` (one JSON object per line, .gz and .zst too, or a small JSON array), `parquet`, `text` (a .txt/.md
    file or a folder of them), `code` (a tree of source files), `docstrings` (docstrings of a tree of Python files;
    the path `stdlib:` is the standard library of the running Python), `warc` (web archives: the main text of the
    pages of .warc files, the text of .wet files, .gz too; needs `aurora-m[web]`), `hf` (a Hugging Face dataset
    address), `conll` (one token per line, CoNLL-U too), and pairs of sentences, which need `columns`:
    `tsv`, `moses` (files `<path>.<column>` side by side), `tmx`. With `pairs` the records of any kind are such pairs.
    """

    kind: Literal["jsonl", "parquet", "text", "code", "docstrings", "warc", "hf", "conll", "tsv", "moses", "tmx"]
    path: str = Field(min_length=1)
    """A file, a folder or a glob; any fsspec address (`s3://`, `gs://`, `https://`) works. For `hf`: `owner/dataset`
    (or any fsspec address of a folder of parquet files, from which `subset` and `split` are chosen)."""
    name: str | None = Field(None, min_length=1)
    """Name in the reports; the path's own name where left out. A record's own `source` field wins over it."""
    fields: dict[str, str] = {}
    """Our column (text, id, source, url, license, lang, meta.<anything>) -> the record's field, where they differ."""
    template: Annotated[list[str], Field(min_length=1)] | str | None = None
    """A Jinja2 template over the record that makes the text, instead of a text field. Of a list each record has one, by
    a hash of what it holds: both directions of a translation, say."""
    columns: Annotated[list[str], Field(min_length=1)] = []
    """Of `tsv` the names of the columns, of `moses` and `tmx` the languages: fields of the record."""
    pairs: PairsConfig | None = None
    """What to make of records that say the same in two languages."""
    sample: Annotated[Share, Field(gt=0, le=1)] = 1.0
    """The share of documents that is taken, by a hash of their ids: always the same ones."""
    where: str | None = None
    """A Jinja2 expression over the record: only records for which it holds are taken, e.g. `split == "train"`."""
    license: str | None = None
    """Licence of the records that name none themselves."""
    lang: str | None = None
    """Language of the records that name none themselves; the domain's where left out."""
    limit_documents: PositiveCount | None = None
    limit_bytes: PositiveCount | None = None
    subset: str | None = None
    """`hf` only: the dataset's configuration (a folder of its parquet files)."""
    split: str | None = None
    """`hf` only: the split, `train` where left out."""
    revision: str | None = None
    """`hf` only: branch, tag or commit; where left out, the parquet files of `main`."""

    @model_validator(mode="after")
    def _pairs_have_columns(self) -> "SourceConfig":
        in_columns = self.kind in ("tsv", "moses", "tmx")
        written = self.pairs or self.template or self.fields.get("text", "text") in self.columns
        if in_columns and not (self.columns and written):
            raise ValueError(
                f"kind {self.kind} needs `columns` (such as [en, fi]) and a `template` over them "
                "('{{ en }}\\n{{ fi }}'), or `pairs`, or a column that is the text"
            )
        if self.columns and not in_columns:
            raise ValueError(f"columns is for tsv, moses and tmx, not for {self.kind}")
        return self

    @model_validator(mode="after")
    def _pairs_are_records(self) -> "SourceConfig":
        if self.pairs is None:
            return self
        if self.kind not in _KINDS_OF_RECORDS:
            raise ValueError(f"pairs is for {', '.join(_KINDS_OF_RECORDS)}, not for {self.kind}")
        if self.template is not None:
            raise ValueError("has `template` beside `pairs`: the template of pairs is `pairs.template`")
        missing = [side for side in self.pairs.sides if self.columns and side not in self.columns]
        if missing:
            raise ValueError(f"pairs needs {missing[0]!r}, which is not among the columns {', '.join(self.columns)}")
        return self

    @field_validator("fields")
    @classmethod
    def _known_columns(cls, fields: dict[str, str]) -> dict[str, str]:
        unknown = sorted(name for name in fields if name not in DOCUMENT_FIELDS and not name.startswith("meta."))
        if unknown:
            raise ValueError(f"fields has {unknown[0]!r}, expected one of {', '.join(DOCUMENT_FIELDS)} or meta.<name>")
        return fields


class HeldoutConfig(Section):
    """The part of a domain that is never trained on: `share` of its documents, but at least and at most so many."""

    share: Annotated[Share, Field(ge=0, le=0.25)] = 0.02
    min_documents: Annotated[Count, Field(ge=0)] = 8
    max_documents: Annotated[Count, Field(ge=0)] = 400


class DomainConfig(Section):
    """A domain: the unit of mixing and of measuring."""

    lang: str | None = None
    """Code of a language file; None for code and for mixed languages."""
    rules: Literal["text", "code", "pairs", "none"] = "text"
    """Quality rules. `pairs` is for sources with `pairs`, `none` for instructions: only normalised, redacted, exact
    duplicates gone."""
    sources: list[SourceConfig] = []
    heldout: HeldoutConfig | None = None
    near_duplicates: bool = True
    repeated_text: bool = True
    """Whether text that the corpus has before is removed; only where `rules` is `text`."""
    redact: bool = True
    decontaminate: bool = True
    """False for what is close to an evaluation set on purpose, such as the training split of the same benchmark."""
    code_languages: Annotated[list[str], Field(min_length=1)] | None = None
    """Of code: programming languages to keep (`python`, `c++`); all where left out. The report counts them."""
    word_lists: Annotated[str, Field(min_length=1)] | None = None
    """A YAML file with lists in the place of the language's: `stop_words`, `flagged_words`, `flagged_contexts` (words
    by kind of text), `policy_phrases`."""
    thresholds: dict[str, float | None] = {}
    """Overrides of the language file's thresholds (docs/curation.md lists them); null switches a rule off."""

    @model_validator(mode="after")
    def _code_languages_are_of_code(self) -> "DomainConfig":
        if self.code_languages is None:
            return self
        from .code_language import LANGUAGES

        if self.rules != "code":
            raise ValueError(f"code_languages is for domains with rules: code, not {self.rules}")
        for name in self.code_languages:
            if name not in LANGUAGES:
                near = get_close_matches(name, LANGUAGES, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f", expected one of {', '.join(sorted(LANGUAGES))}"
                raise ValueError(f"code_languages has {name!r}{hint}")
        return self

    @model_validator(mode="after")
    def _pairs_have_rules_of_their_own(self) -> "DomainConfig":
        if self.rules in ("text", "code") and any(source.pairs for source in self.sources):
            raise ValueError(
                f"has a source with `pairs` and rules: {self.rules}, which are not for text in two languages; expected "
                "rules: pairs"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_are_known(self) -> "DomainConfig":
        if self.thresholds and self.rules != "none":
            from .thresholds import effective_thresholds

            try:
                effective_thresholds(self.rules, None, self.thresholds)
            except RecipeError as error:  # here it has the line of the recipe, and is seen before any work
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _lists_have_a_language(self) -> "DomainConfig":
        if self.word_lists is not None and self.lang is None:
            raise ValueError("has `word_lists` and no `lang`: say whose words they are")
        return self


class NearDuplicateConfig(Section):
    """MinHash with banding: texts whose sets of n-grams overlap by `threshold` (Jaccard) are near-duplicates.

    Banding finds the candidates: of pairs that overlap by s, the share 1 - (1 - s ** rows) ** bands. More bands find
    more and cost time; what they find is verified by the n-grams themselves.
    """

    bands: Annotated[int, Field(ge=1, le=256)] = 14
    rows: Annotated[int, Field(ge=1, le=64)] = 8
    shingle: Literal["words", "characters"] = "words"
    """What n-grams are of. Characters (of words, without what stands between) find more of edited copies, and take
    several times the time and disk."""
    ngram: Annotated[int, Field(ge=1, le=64)] = 5
    """Where left out, 5 words or 13 characters."""
    threshold: Annotated[Share, Field(gt=0, le=1)] = 0.7
    largest_cluster: Annotated[Share, Field(gt=0, le=1)] = 0.01
    """A cluster of more than this share of all documents is warned about: unlike documents may be chained together."""
    largest_loss: Annotated[Share, Field(gt=0, le=1)] = 0.5
    """A source that loses more than this share of its documents as near-duplicates is warned about."""

    upsampling_weights: dict[int, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {
        1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1,
    }  # fmt: skip
    """The column `upsampling_weight` of a document, by the size of its cluster: that at the largest size it reaches.
    The figures are those of FineWeb-2's rehydration; the largest clusters are seldom good text."""
    keep_index: bool = False
    """Keeps what duplicates are found by in `curated/_index`, for later curations to be compared with this one."""
    against: list[Annotated[str, Field(min_length=1)]] = []
    """Folders of earlier runs that kept their index: duplicates of their documents are dropped."""

    @field_validator("upsampling_weights")
    @classmethod
    def _every_size_has_a_weight(cls, table: dict[int, float]) -> dict[int, float]:
        if 1 not in table:
            raise ValueError("upsampling_weights has no weight for 1, a document without duplicates")
        if (least := min(table)) < 1:
            raise ValueError(f"upsampling_weights has a weight for the cluster size {least}, expected 1 and more")
        return table

    @model_validator(mode="before")
    @classmethod
    def _usual_ngram(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("shingle") == "characters":
            return {"ngram": 13, **values}
        return values


class RepeatedTextConfig(Section):
    """Text that the corpus has before, in the same or in another document, is removed. Prose only, never code."""

    unit: Literal["paragraphs", "lines", "none"] = "paragraphs"
    """What is compared as a whole; `none` compares nothing."""
    min_words: Annotated[int, Field(ge=1, le=1000)] = 20
    """Shorter ones are left alone; two Han or kana characters, or two numbers, count as one word."""
    min_words_left: Annotated[int, Field(ge=0)] = 20
    """A document that keeps fewer words than this is dropped."""
    spans: Literal["none", "count", "remove"] = "none"
    """What becomes of runs of words that came before, at any place of a document and whatever its lines."""
    span_words: Annotated[int, Field(ge=10, le=1000)] = 50
    """Words of such a run, at least; a Han or kana character is a word."""

    @property
    def is_on(self) -> bool:
        """Whether anything is compared."""
        return self.unit != "none" or self.spans != "none"


class EvaluationSetConfig(Section):
    """An evaluation set that must not be trained on: a local .jsonl, .json, .csv, .tsv (.gz, .zst) or .parquet file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    path: str = Field(min_length=1)
    fields: Annotated[list[str], Field(min_length=1)]
    """Where the texts of an item are: keys, joined by dots where nested (`qas.question`); lists are gone through."""
    items: str | None = Field(None, min_length=1)
    """Where the items are in a JSON file that is one object: `data.paragraphs`."""


class DecontaminateConfig(Section):
    """Documents that share a run of words with an evaluation set are dropped (13-grams as in Brown et al. 2020)."""

    against: list[EvaluationSetConfig] = []
    ngram: Annotated[int, Field(ge=5, le=100)] = 13
    """Words of a run that is too much; two Han or kana characters, or two numbers, count as one word."""
    whole: Annotated[int, Field(ge=3, le=100)] = 8
    """Evaluation texts shorter than `ngram` but of so many words are looked for as a whole; shorter ones not at all."""

    @field_validator("against")
    @classmethod
    def _names_differ(cls, against: list[EvaluationSetConfig]) -> list[EvaluationSetConfig]:
        names = [one.name for one in against]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two evaluation sets are named {twice!r}; their counts could not be told apart")
        return against


class LicenseConfig(Section):
    """Licences that may be trained on: SPDX ids or globs (`CC-BY-NC*`), in any case, in one list or the other."""

    allow: Annotated[list[str], Field(min_length=1)] | None = None
    deny: Annotated[list[str], Field(min_length=1)] | None = None
    unknown: Literal["keep", "drop"] | None = None
    """What becomes of documents without a licence: where left out, dropped beside `allow`, kept otherwise."""

    @model_validator(mode="after")
    def _one_list(self) -> "LicenseConfig":
        if self.allow is not None and self.deny is not None:
            raise ValueError(
                "has both `allow` and `deny`, expected one: what is not allowed is denied, and the reverse"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether any document may be dropped."""
        return self.allow is not None or self.deny is not None or self.unknown == "drop"


class UrlConfig(Section):
    """Documents whose address is not wanted, by lists of the user's own."""

    hosts: list[Annotated[str, Field(min_length=1)]] = []
    """`example.com` takes its subdomains with it."""
    host_files: list[Annotated[str, Field(min_length=1)]] = []
    """Text files of such hosts, one a line."""
    words: list[Annotated[str, Field(min_length=1)]] = []
    """Words that no letter or digit touches, anywhere in the address."""

    @property
    def is_on(self) -> bool:
        """Whether any document may be dropped."""
        return bool(self.hosts or self.host_files or self.words)


class BoilerplateConfig(Section):
    """Lines at the edges of many documents of a source (headers, footers) are removed. Text only, never code."""

    max_share: Annotated[Share, Field(gt=0, le=1)] = 0.1
    """A line is removed where it stands in more than this share of a source's documents; 1 removes none."""
    min_documents: Annotated[Count, Field(ge=2)] = 20
    edge_lines: Annotated[int, Field(ge=1, le=100)] = 10
    """How many lines from the beginning and from the end count as the edge; blank ones are not counted."""
    sample_documents: PositiveCount = 2_000
    """What is frequent is learned from so many documents of a source, the first, and at most so many bytes."""
    sample_bytes: PositiveCount = 8_000_000


class ClassifierConfig(Section):
    """A fastText classifier whose probability of one label is a score of documents: quality, toxicity, a topic.

    A limit is compared with the score after scoring, and the score is kept with the documents; without limits documents
    are only scored. `aurora-m train-classifier` makes a model and tells what each limit would keep.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
    """The score is the column `classifier.<name>`."""
    model: str = Field(min_length=1)
    """A fastText classifier, .bin or .ftz."""
    label: str = Field("__label__positive", min_length=1)
    """The label whose probability is the score; the prefix `__label__` may be left out."""
    domains: list[str] | None = None
    langs: list[str] | None = None
    """Which domains are scored: those named, and those in one of these languages; without both, all with text rules."""
    min: Annotated[float, Field(ge=0, le=1)] | None = None
    max: Annotated[float, Field(ge=0, le=1)] | None = None
    """Documents that score below `min` or above `max` are dropped."""

    @model_validator(mode="after")
    def _some_may_stay(self) -> "ClassifierConfig":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: no document would be kept")
        return self


class PerplexityConfig(Section):
    """An n-gram model of KenLM that scores the text domains of a language (`aurora-m[kenlm]`)."""

    lang: str
    model: str = Field(min_length=1)
    """An .arpa or binary file, made of text in the form that `perplexity.normalised_lines` gives."""
    min: Annotated[float, Field(gt=0)] | None = None
    max: Annotated[float, Field(gt=0)] | None = None
    """Documents of less or more perplexity are dropped."""
    buckets: tuple[float, float] | None = None
    """The greatest perplexities of `head` and of `middle`; the rest is `tail` (column `perplexity_bucket`)."""


class CurateConfig(Section):
    """Settings of the curation passes, the same for all domains."""

    licenses: LicenseConfig = LicenseConfig()
    urls: UrlConfig = UrlConfig()
    boilerplate: BoilerplateConfig = BoilerplateConfig()
    language_check: Literal["document", "paragraph", "off"] = "document"
    """`document` drops documents in another language; `paragraph` also takes paragraphs that are confidently in another
    one out of those that stay; `true` and `false` mean `document` and `off`."""
    language_model: Annotated[str, Field(min_length=1)] | None = None
    """A fastText file that identifies languages; None: lid.176.ftz, which needs no download."""
    classifiers: list[ClassifierConfig] = []
    perplexity: list[PerplexityConfig] = []
    near_duplicates: NearDuplicateConfig = NearDuplicateConfig()
    repeated_text: RepeatedTextConfig = RepeatedTextConfig()
    heldout: HeldoutConfig = HeldoutConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    redact: list[RedactionKind] = ["key", "email", "ip", "iban", "card", "national_id", "phone", "author"]
    redact_style: Literal["placeholder", "pseudonym"] = "placeholder"
    """What stands in for personal data: its kind (`<EMAIL>`), or an invented value, always the same one for the same
    value and seed, from ranges that belong to nobody."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """None: as many as there are cores and `memory` is enough for. The result does not depend on it."""
    memory: PositiveCount = 2_000_000_000
    """Bytes that curation may take, about, however large the corpus; mapped files and the index of duplicates, about
    100 bytes for a document, come on top. It limits the threads, unless `threads` are given."""
    engine: Literal["threads", "ray"] = "threads"
    """`ray` does the first reading, partition by partition, on the workers of a Ray cluster that all see the run folder
    and the sources at the same paths; needs `aurora-m[ray]`. The result does not depend on it."""
    ray_address: Annotated[str, Field(min_length=1)] | None = None
    """Where the cluster is; RAY_ADDRESS where left out, else one is started on this machine."""
    partition_bytes: PositiveCount = 256_000_000
    """Files of a source are taken together up to this size. A partition that is finished is not done again when the
    command was interrupted, and is what one worker gets at a time; a single file is never split."""
    keep_scored: bool = True
    """Keeps the partitions when curation is done, in `runs/<name>/curating`: when thresholds or limits change, they are
    judged anew and nothing is read or scored again. They take about as much disk as the texts."""
    max_document_bytes: PositiveCount = 10_000_000
    max_line_bytes: PositiveCount = 64_000_000
    dropped_sample: Annotated[int, Field(ge=0)] = 20
    """How many dropped documents to keep, per domain, pass and reason, to look at."""

    @field_validator("language_check", mode="before")
    @classmethod
    def _as_mode(cls, value: object) -> object:
        # YAML reads a bare `off` as false.
        return {True: "document", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("classifiers")
    @classmethod
    def _scores_differ(cls, classifiers: list[ClassifierConfig]) -> list[ClassifierConfig]:
        names = [one.name for one in classifiers]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two classifiers are named {twice!r}; their scores would be one column")
        return classifiers
