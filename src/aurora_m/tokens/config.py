"""The tokenizer's and fill-in-the-middle's part of the recipe. Light: nothing heavy is imported here."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from aurora_m.workspace import Count, Section, Share


class SpecialTokens(Section):
    """The tokens with a meaning of their own; the names are StarCoder's, so that its checkpoints fit as they are.

    A loaded tokenizer that lacks `eod` uses its own end-of-sequence token; one that lacks the FIM names has no FIM.
    """

    eod: str = "<|endoftext|>"
    fim_prefix: str = "<fim_prefix>"
    fim_middle: str = "<fim_middle>"
    fim_suffix: str = "<fim_suffix>"
    fim_pad: str = "<fim_pad>"

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        names = self.all()
        if "" in names or len(set(names)) != len(names):
            raise ValueError(f"special tokens {names} must be five different, non-empty strings")
        return self

    def all(self) -> list[str]:
        """The five strings in the order a trained tokenizer numbers them."""
        return [self.eod, self.fim_prefix, self.fim_middle, self.fim_suffix, self.fim_pad]


class _SampledDomains(Section):
    """The domains that are learned from: the same number of bytes of each."""

    domains: list[str] = Field(min_length=1)
    bytes_per_domain: Count = Field(default=20_000_000, gt=0)

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, domains: list[str]) -> list[str]:
        repeated = sorted({domain for domain in domains if domains.count(domain) > 1})
        if repeated:
            raise ValueError(f"domains {repeated} are named twice; name each once, all get the same number of bytes")
        return domains


class TokenizerTrainConfig(_SampledDomains):
    """A byte-level BPE trained on the curated documents: the same number of bytes from each named domain."""

    vocab_size: Count = Field(gt=0)  # entries in all: 256 bytes, the special tokens, the merges


class TokenizerExtendConfig(_SampledDomains):
    """New tokens for some domains on top of a byte-level BPE, whose own tokens and merges stay as they are.

    `init`: how the base model's rows for new tokens begin: `mean` of the rows of the old tokens each replaces, or
    `random`, spread as the old rows are.
    """

    new_tokens: Count = Field(gt=0)
    init: Literal["mean", "random"] = "mean"


_WEIGHTS = ["weight", "meta.weight"]


class TokenizerConfig(Section):
    """`train` trains one, `path` loads one (folder, tokenizer.json, Hugging Face id), neither takes the base's.

    `extend` gives the one of `path`, or the base's, new tokens.
    """

    train: TokenizerTrainConfig | None = None
    extend: TokenizerExtendConfig | None = None
    path: str | None = None
    special: SpecialTokens = SpecialTokens()
    threads: Annotated[int, Field(ge=1)] | None = None  # all cores this process may use where None; changes no file
    # Columns of curated documents, or values in their meta, whose product is how often a document is read an epoch.
    weights: list[str] = Field(default=_WEIGHTS, exclude_if=lambda names: names == _WEIGHTS)
    shuffle: bool = False  # training documents lie in a random order in the shards, not in the curated one
    shuffle_memory_bytes: Count = Field(default=1_000_000_000, ge=1_000_000)  # about; changes no file

    @model_validator(mode="after")
    def _check_one_origin(self) -> Self:
        if self.train and self.path:
            raise ValueError(f"tokenizer has both train and path ({self.path!r}); keep one of them")
        if self.train and self.extend:
            raise ValueError("tokenizer has both train and extend; train one with a larger vocab_size, or extend one")
        if self.train and self.train.vocab_size < 256 + len(self.special.all()):
            raise ValueError(
                f"tokenizer.train.vocab_size {self.train.vocab_size} is too small: 256 bytes and "
                f"{len(self.special.all())} special tokens need {256 + len(self.special.all())}; 8K or more is usual"
            )
        return self


class FimConfig(Section):
    """Fill-in-the-middle (Bavarian et al. 2022): which domains, and how often; the rates are StarCoder's.

    `rate` is the share of a domain's documents rearranged, `spm_rate` the share of those in suffix-prefix-middle order.
    """

    domains: list[str] = Field(min_length=1)
    rate: Share = Field(default=0.5, ge=0, le=1)
    spm_rate: Share = Field(default=0.5, ge=0, le=1)


class MixtureRule(Section):
    """How the part of a mixture that has no fixed shares is dealt to `domains`, by what they hold.

    `temperature`: in proportion to size ** (1 / T). `unimax`: as evenly as at most so many epochs of each allow.
    """

    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    unimax: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    domains: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.temperature is None) == (self.unimax is None):
            raise ValueError("a mixture by rule has temperature or unimax, one of them")
        if len(set(self.domains)) < len(self.domains):
            raise ValueError(f"domains {self.domains} of a mixture: each is named once")
        return self
