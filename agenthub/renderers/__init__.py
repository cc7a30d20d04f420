"""Renderers and text protocols; nothing here loads torch."""

from __future__ import annotations

from typing import Any

from agenthub.registry import registry
from agenthub.renderer import Renderer, TextProtocol

__all__ = ["make_protocol", "make_renderer"]


def make_protocol(name: str) -> TextProtocol:
    """The text protocol with that registry name.

    Raises:
        UnknownName: there is none.
    """
    protocol: TextProtocol = registry("protocol").load(name)()
    return protocol


def make_renderer(name: str, tokenizer: Any, protocol_name: str) -> Renderer:
    """The renderer `name` over a Hugging Face tokenizer, reading turns with the text protocol `protocol_name`.

    Raises:
        UnknownName: a name is not known.
        UserError: the renderer cannot work with this tokenizer.
    """
    renderer: Renderer = registry("renderer").load(name)(tokenizer, make_protocol(protocol_name))
    return renderer
