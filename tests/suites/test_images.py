"""Images of a suite's own: named by what they are made of, refused where they cannot be made; nothing is built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.errors import ConfigError
from agenthub.suites.load import load_suite
from agenthub.suites.task import Suite

HEAD = """
schema: agenthub.suite/1
suite: {name: My_Suite, version: "1"}
defaults:
  tools: [{uses: python}]
  target: {answer: 1}
  verifier: {checks: [{uses: numeric}]}
tasks:
"""


def loaded(folder: Path, *sandboxes: str, isolation: str = "docker") -> Suite:
    rows = "".join(
        f"- {{id: t{index}, prompt: {{user: Hi}}, sandbox: {{{text}}}}}\n" for index, text in enumerate(sandboxes)
    )
    path = folder / "s.yaml"
    path.write_text(HEAD + rows, encoding="utf-8")
    return load_suite(path, isolation=isolation)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n", encoding="utf-8")
    (made / "a").write_text("1", encoding="utf-8")
    return made


def test_an_image_is_named_by_its_suite_and_by_what_it_is_made_of(tmp_path: Path, context: Path) -> None:
    build = "build: {context: image}"
    suite = loaded(tmp_path, build, build, "image: other")
    (image,) = suite.images
    assert image.image.startswith("agenthub/build-my-suite:")
    assert (image.context, image.dockerfile) == (context, context / "Dockerfile")
    assert [task.tools[0].spec.image for task in suite.tasks] == [image.image, image.image, "other"]
    assert loaded(tmp_path, build).images == suite.images
    names = {image.image}
    for change in (
        lambda: (context / "a").write_text("2", encoding="utf-8"),
        lambda: (context / "a").chmod(0o755),
        lambda: (context / "a").rename(context / "b"),
        lambda: (context / "c").symlink_to("b"),
        lambda: (context / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8"),
    ):
        change()
        names |= {it.image for it in loaded(tmp_path, build).images}
    assert len(names) == 6


def test_two_dockerfiles_of_one_context_are_two_images(tmp_path: Path, context: Path) -> None:
    (context / "other").write_text("FROM scratch\n", encoding="utf-8")
    suite = loaded(tmp_path, "build: {context: image}", "build: {context: image, dockerfile: other, timeout: 5}")
    assert len({image.image for image in suite.images}) == 2
    assert suite.images[1].timeout_s == 5.0


@pytest.mark.parametrize(
    ("sandbox", "told"),
    [
        ("build: {context: imag}", "is no folder"),
        ("build: {context: image, dockerfile: Dockerfle}", "is no file"),
        ("build: {context: image}, image: python", "has both image and build"),
        ("build: {context: image}, isolation: jail", "makes an image for docker and gvisor"),
        ("build: {contxt: image}", "did you mean 'context'"),
    ],
)
def test_a_build_that_cannot_be_is_told_with_its_place(tmp_path: Path, context: Path, sandbox: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        loaded(tmp_path, sandbox)
    assert f"{tmp_path / 's.yaml'}:9" in str(caught.value)


@pytest.mark.parametrize(
    ("isolation", "own", "told"),
    [
        ("jail", "", "isolation 'jail' has no layer 'runtime'"),
        ("jail", "isolation: docker, ", ""),
        ("docker", "", ""),
    ],
)
def test_what_a_task_requires_is_asked_of_the_isolation_that_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str, own: str, told: str
) -> None:
    pytest.importorskip("docker")
    from agenthub.suites import build

    build._layers.cache_clear()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    try:
        with pytest.raises(ConfigError, match=told or "isolation 'docker' has no layer 'runtime'"):
            loaded(tmp_path, f"{own}require: [runtime]", isolation=isolation)
    finally:
        build._layers.cache_clear()
