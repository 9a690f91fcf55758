"""Methods, models, progress, and the layout that all pages stand on."""

from __future__ import annotations

from checkpoints import Shape, write_family
from plait import ops as _registered
from plait.engine.methoddef import methods as all_methods
from plait.engine.trial import try_out
from plait.loaders.checkpoint import open_model
from plait.views import inspect, methods
from plait.views.layout import Row, clean, shorten, table, wrap
from rich.text import Text

assert _registered  # importing ops is what makes the methods known


def test_a_method_is_shown_with_every_parameter() -> None:
    trials = {name: try_out(method) for name, method in all_methods().items()}
    for name, method in all_methods().items():
        text = "\n".join(line.plain for line in methods.page(method, trials[name], 80))
        assert all(param.name in text and param.help.split()[0] in text for param in method.params)
        assert max(map(len, text.splitlines())) <= 80
        assert all(f"    {line}\n" in f"{text}\n" for line in trials[name].recipe.splitlines())
    listed = "\n".join(line.plain for line in methods.all_page(all_methods(), trials, 60))
    assert max(map(len, listed.splitlines())) <= 60
    assert all(name in listed for name in all_methods())


def test_a_model_is_shown_with_what_its_headers_say(tmp_path) -> None:
    (folder,) = write_family(tmp_path, Shape(64, 176, 12, 4, 2, 512), finetunes=0)
    model = open_model("BASE", folder)
    text = "\n".join(line.plain for line in inspect.page(model, 80, verbose=True))
    assert "LlamaForCausalLM" in text
    assert "model.layers: 12 layers, 9 tensors each" in text
    assert "512 rows" in text
    assert all(name in text for name in model.tensors)
    assert inspect.as_json(model)["bytes"] == model.size_bytes


def test_a_name_is_shortened_in_the_middle() -> None:
    assert shorten(Text("model.layers.0.mlp.weight"), 13).plain == "model.…weight"
    assert shorten(Text("short"), 13).plain == "short"
    for width in range(1, 12):
        assert shorten(Text("层的权重层的权重"), width).cell_len <= width


def test_columns_are_aligned_and_lines_are_not_padded() -> None:
    rows = [Row(Text("a"), [Text("1"), Text("x")]), Row(Text("long"), [Text("100"), Text("")])]
    assert [line.plain for line in table(rows, None, right=(0,))] == ["  a       1  x", "  long  100"]


def test_words_longer_than_a_line_stay_whole() -> None:
    assert wrap("see /a/very/long/path-with-dashes now", 12, indent=2) == [
        "see",
        "  /a/very/long/path-with-dashes",
        "  now",
    ]


def test_control_characters_are_escaped() -> None:
    assert clean("plain ü 层") == "plain ü 层"
    assert clean("a\x1b[0m\r\n\u202e") == "a\\x1b[0m\\r\\n\\u202e"
