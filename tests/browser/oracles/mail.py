"""Pages with a mailbox."""

from __future__ import annotations

import re

from tests.browser.oracles.view import Node, Play, View, solves


def _thread(view: View, sender: str) -> Node:
    return next(it for it in view.all(cls="email-thread") if it.one(cls="email-sender").text.strip() == sender)


@solves("email-inbox-delete", "email-inbox-important")
def mark(view: View) -> Play:
    sender = re.search(r"email by ([\w-]+)", view.goal)[1]  # type: ignore[index]
    cls = "trash" if "trash" in view.goal else "star"
    yield f"click('{_thread(view, sender).one(cls=cls).id}')"


@solves("email-inbox", "email-inbox-reply", "email-inbox-star-reply")
def mail(view: View) -> Play:
    goal = view.goal
    sender = re.search(r"email by ([\w-]+)", goal)[1]  # type: ignore[index]
    if "trash icon" in goal or "star icon" in goal:
        yield f"click('{_thread(view, sender).one(cls='trash' if 'trash' in goal else 'star').id}')"
        return
    view = yield f"click('{_thread(view, sender).id}')"
    if "forward" in goal:
        to = re.search(r"forward that email to ([\w-]+)", goal)[1]  # type: ignore[index]
        view = yield f"click('{view.one(cls='email-forward').id}')"
        view = yield f"fill('{view.one(cls='forward-sender').id}', {to!r})"
    else:
        view = yield f"click('{view.one(cls='email-reply').id}')"
        view = yield f"fill('{view.one(name='reply-text').id}', {view.quoted[-1]!r})"
    yield f"click('{_send(view).id}')"


def _send(view: View) -> Node:
    return next(
        it for it in view.all("span") if it.attributes.get("id") in ("send-reply", "send-forward") and it.box[2] > 0
    )
