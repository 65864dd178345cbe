"""The instruction format of the safety tuning, as a chat template in the tokenizer's config."""

import json
from pathlib import Path
from typing import Any

from aurora_m.workspace import read_json, write_json


def chat_template(instruction_template: str) -> str:
    """A Jinja template that writes conversations as the tuning wrote its examples.

    `instruction_template` has one `{instruction}`. A document begins and ends with the end-of-document token, which
    the tokenizer calls eos: so does a conversation, and one stands between its turns. The tuning knew no system
    messages; they go before the first instruction, so that a program that sends one still works.
    """
    before, after = (json.dumps(part, ensure_ascii=False) for part in instruction_template.split("{instruction}"))
    return (
        "{{ eos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ " + before + " + message['content'] | trim + " + after + " }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
        "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
        "{% endfor %}"
    )


def complete_tokenizer(folder: Path, eod_token: str, max_positions: int | None, template: str | None) -> None:
    """Completes tokenizer_config.json in a model's folder: a class transformers knows, the eos, the chat template.

    What the file says already about the class and the special tokens stands; the rest is laid over it.
    """
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = read_json(path) if path.exists() else {}
    # A code path of its own is what trust_remote_code would run; this folder needs none.
    config.pop("auto_map", None)
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config.setdefault("bos_token", eod_token)
    config["eos_token"] = eod_token
    if max_positions:
        config["model_max_length"] = max_positions
    config["clean_up_tokenization_spaces"] = False
    if template:
        config["chat_template"] = template
        # transformers prefers this file, and the base model's would be another format.
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    write_json(path, config)
