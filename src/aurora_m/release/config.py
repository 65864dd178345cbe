"""What a recipe can say about its release."""

from pydantic import field_validator

from aurora_m.workspace import Section


class ReleaseConfig(Section):
    """How the finished model is named and described when it is handed to other people."""

    name: str | None = None  # the model's name on its card; default: the recipe's name
    license: str = "other"  # an identifier of the Hugging Face hub (`apache-2.0`, `cc-by-4.0`, ...)
    author: str | None = None
    languages: list[str] | None = None  # default: the languages of the recipe's domains
    include_data_card: bool = True

    @field_validator("name", "license", "author")
    @classmethod
    def _is_one_short_line(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or len(value) > 200 or not value.isprintable()):
            raise ValueError(f"{value[:60]!r} cannot stand on a model card; write one line of 1 to 200 characters")
        return value
