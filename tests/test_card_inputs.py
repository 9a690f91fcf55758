"""What a card takes over from the cards of the inputs: what they agree on, and nothing that is no licence or name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.loaders.card_inputs import Inherited, inherited

if TYPE_CHECKING:
    from pathlib import Path


def cards(folder: Path, *fronts: dict[str, Any] | str | None) -> Inherited:
    """What inputs with such front matter give; None is an input without a card."""
    folders = []
    for number, front in enumerate(fronts):
        folders.append(folder / str(number))
        folders[-1].mkdir(exist_ok=True)
        text = front if isinstance(front, str) else yaml.safe_dump(front)
        if front is not None:
            (folders[-1] / "README.md").write_bytes(f"---\n{text}\n---\n# a model\n".encode("utf-8", "surrogateescape"))
    return inherited(folders)


OTHER = {"license": "other", "license_name": "own-terms", "license_link": "https://example.org/terms"}


@pytest.mark.parametrize(
    ("fronts", "expected"),
    [
        (({"license": "mit"}, {"license": "MIT"}), ("mit", None, None)),
        (({"license": "mit"}, {"license": "apache-2.0"}), (None, None, None)),
        (({"license": "mit"}, None), (None, None, None)),
        ((OTHER, OTHER), ("other", "own-terms", "https://example.org/terms")),
        ((OTHER, OTHER | {"license_name": "others-terms"}), (None, None, None)),
        # Two licences without a name are not known to be the same.
        (({"license": "other"}, {"license": "other"}), (None, None, None)),
        ((OTHER, OTHER | {"license_link": "LICENSE"}), ("other", "own-terms", None)),
        ((OTHER | {"license_link": "LICENSE"},) * 2, ("other", "own-terms", None)),
        (({"license": "llama3", "license_name": "l3"}, {"license": "llama3"}), ("llama3", None, None)),
        (({"license": "no licence: ask\nme"},) * 2, (None, None, None)),
        (({"license": "---"},) * 2, (None, None, None)),
        ((OTHER | {"license_name": "a\n---\nb"},) * 2, (None, None, None)),
        ((OTHER | {"license_link": "javascript:alert(1)"},) * 2, ("other", "own-terms", None)),
        ((OTHER | {"license_link": "https://a/<script>"},) * 2, ("other", "own-terms", None)),
    ],
)
def test_a_licence_is_what_all_agree_on(
    tmp_path: Path, fronts: tuple[Any, ...], expected: tuple[str | None, ...]
) -> None:
    found = cards(tmp_path, *fronts)
    assert (found.license, found.license_name, found.license_link) == expected


def test_languages_and_data_sets_are_those_of_all(tmp_path: Path) -> None:
    found = cards(
        tmp_path,
        {"language": ["en", "de"], "datasets": "org/one"},
        {"language": "fr", "datasets": ["two", "org/one", "../up", "a b", 7, {"x": 1}, "org/three/four"]},
        "language: [no, zh-Hant, English, {a: b}, [xx]]",
        None,
    )
    assert found.languages == ("en", "de", "fr", "no", "zh-Hant")
    assert found.datasets == ("org/one", "two")


def test_a_task_and_a_library_are_what_those_agree_on_that_say(tmp_path: Path) -> None:
    same = {"pipeline_tag": "text-generation", "library_name": "transformers"}
    found = cards(tmp_path, same, None, {"license": "mit"})
    assert (found.pipeline_tag, found.library_name) == ("text-generation", "transformers")
    found = cards(tmp_path, same, {"pipeline_tag": "fill-mask", "library_name": "Some Library"})
    assert (found.pipeline_tag, found.library_name) == (None, None)


def test_front_matter_is_found_as_the_hub_finds_it(tmp_path: Path) -> None:
    for text in ("\ufeff---\nlicense: mit\n---\n", "\n\n---\r\nlicense: mit\r\n---  \r\n# x", "---\nlicense: mit\n---"):
        (tmp_path / "README.md").write_bytes(text.encode())
        assert inherited([tmp_path]).license == "mit"
    for text in (
        "# x\n---\nlicense: mit\n---\n",
        "---\nlicense: mit\n",
        "",
        "---\n---\n",
        " --- \nlicense: mit\n---\n",
    ):
        (tmp_path / "README.md").write_bytes(text.encode())
        assert inherited([tmp_path]) == Inherited()


@pytest.mark.parametrize(
    "front",
    [
        "license: mit\n" * 800_000,
        "datasets: [" + "x, " * 3_000_000 + "]",
        "a: &a [" + "x, " * 20_000 + "]\nlanguage: *a",
        "language: &l [*l]",
        "language: {en: de}\nlicense: {mit: 1}",
        "license: !!binary bWl0",
        "language: [" * 5000,
        "? {license: mit}\n: [mit]\n",
        "\udcff: \udcff",
    ],
    ids=lambda front: front[:12],
)
def test_cards_that_lie_are_told_from_nothing_and_quickly(tmp_path: Path, front: str) -> None:
    began = time.process_time()
    assert cards(tmp_path, front) == Inherited()
    assert time.process_time() - began < 5


_ANY = st.recursive(
    st.one_of(st.text(max_size=12), st.sampled_from(["mit", "en", "org/x", "other"]), st.booleans(), st.integers()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
_FRONT = st.dictionaries(
    st.sampled_from(["license", "license_name", "license_link", "language", "datasets", "pipeline_tag"]), _ANY
)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.lists(_FRONT, min_size=1, max_size=3))
def test_whatever_cards_say_only_names_come_over(tmp_path: Path, fronts: list[dict[str, Any]]) -> None:
    for folder in tmp_path.iterdir():
        (folder / "README.md").unlink(missing_ok=True)
    found = cards(tmp_path, *fronts)
    given_licenses = {str(front.get("license")).lower() for front in fronts}
    assert found.license is None or given_licenses == {found.license}
    for text in (found.license, found.license_name, found.license_link, *found.languages, *found.datasets):
        assert text is None or (text.isprintable() and text == text.strip() != "")
