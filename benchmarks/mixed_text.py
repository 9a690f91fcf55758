"""Strings as a tokenizer meets them: many scripts, code, whitespace, emoji, special tokens, and all of it in one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PIECES = (
    "The quick brown fox jumps over the lazy dog. It's 10,000.50 legitimate km away, isn't it?",
    "Größenwahn, naïveté, façade, Übermaß; señor ¿qué? Ça va, œuvre.",
    "Привет, мир! Съешь же ещё этих мягких французских булок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "你好，世界。今天天气很好，我们去公园吧！",
    "吾輩は猫である。名前はまだ無い。カタカナ",
    "안녕하세요 세계, 오늘은 날씨가 좋네요.",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم، كيف حالك؟",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "สวัสดีชาวโลก",
    "Việt Nam, người Việt; ĵaŭdo ŝanĝiĝis; zażółć gęślą jaźń",
    "def merge(a: float, b: float) -> float:\n    return 0.5 * (a + b)  # mean\n",
    "for (int i = 0; i < n; ++i) { x[i] += y[i] << 2; }\n",
    '{"key": [1, 2.5e-3, null], "path": "C:\\\\tmp\\\\x"}',
    "SELECT * FROM t WHERE a <> 'b' AND c IS NOT NULL;",
    "<div class='x'>&nbsp;</div>",
    "   \t\n\n  \r\n",
    "\u00a0\u2003\u200b",
    "        deeply indented",
    "🦙🔥👩‍👩‍👧🏳️‍🌈 ✓ → ∑∫√",
    "e\u0301 n\u0303 ﬁ Ⅳ ½ ①",
    "\ud7a3\uffee\U00010348\U0001f9ff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "0123456789 3.14159265358979",
    "https://example.org/a?b=c&d=%20#e",
    "Donaudampfschifffahrtsgesellschaftskapitän",
)


def mixed_strings(count: int, special: Sequence[str] = (), *, seed: int = 0) -> list[str]:
    """So many strings, the same for the same seed; ``special`` tokens stand between the pieces of every third one."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        parts = []
        for _ in range(chance.randint(1, 5)):
            piece = chance.choice(_PIECES)
            start = chance.randrange(len(piece))
            parts.append(piece if chance.random() < 0.5 else piece[start : start + chance.randint(1, 20)])
            if special and number % 3 == 0:
                parts.append(chance.choice(special))
        found.append(chance.choice(("", " ", "\n")).join(parts))
    return found
