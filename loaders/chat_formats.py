"""The chat formats that have a name: how a conversation is written, and which tokens that takes.

Each template renders the text that models of the format were trained on. All of them keep to what every reader of
Jinja chat templates understands: no macros, no filters but ``trim``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A named format. ``turn_end`` ends a model's turn; None where that is the tokenizer's own end of text."""

    template: str
    turn_end: str | None


_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' -}}
{{- message.content | trim -}}
{{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

# The format has no place for a system message: it goes before the first question.
_MISTRAL = """\
{%- set opening = '' -%}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set opening = messages[0].content ~ '\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if message.role != ('assistant' if loop.index0 % 2 else 'user') -%}
{{- raise_exception('This format takes turns of user and assistant, after one system message at most') -}}
{%- endif -%}
{%- if message.role == 'user' -%}
{{- ' [INST] ' ~ (opening if loop.first else '') ~ message.content ~ ' [/INST]' -}}
{%- else -%}
{{- ' ' ~ message.content ~ eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

_ALPACA = """\
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '### Instruction:\\n' ~ message.content | trim ~ '\\n\\n' -}}
{%- elif message.role == 'user_context' -%}
{{- '### Input:\\n' ~ message.content | trim ~ '\\n\\n' -}}
{%- elif message.role == 'assistant' -%}
{{- '### Response:\\n' ~ message.content | trim ~ eos_token ~ '\\n\\n' -}}
{%- else -%}
{{- message.content | trim ~ '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '### Response:\\n' -}}
{%- endif -%}
"""

# Every conversation opens with a system turn, if an empty one; a user's turn ends with the line.
_EXAONE = """\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}
{{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{{- '[|' ~ message.role ~ '|]' ~ message.content -}}
{{- '\\n' if message.role == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[|assistant|]' -}}
{%- endif -%}
"""

FORMATS: Mapping[str, ChatFormat] = {
    "alpaca": ChatFormat(_ALPACA, None),
    "chatml": ChatFormat(_CHATML, "<|im_end|>"),
    "exaone": ChatFormat(_EXAONE, "[|endofturn|]"),
    "llama3": ChatFormat(_LLAMA3, "<|eot_id|>"),
    "mistral": ChatFormat(_MISTRAL, None),
}
