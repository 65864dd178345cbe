"""What can keep a model from being released."""

from aurora_m.workspace import AuroraError


class ReleaseError(AuroraError):
    """The release is not what it says it is: other logits, another tokenizer, changed files. Nothing is published."""
