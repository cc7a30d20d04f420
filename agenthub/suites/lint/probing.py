"""A look around in a task's box: what it holds of the task's secrets, and what a policy could read there.

The program that looks is not given a secret whole: it searches for the first half and compares a hash of it with what
follows, so that what it finds is not itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.policies.scripted_cheats import Script, Seen
from agenthub.suites.task import Task
from agenthub.wire import Action, CallIn

__all__ = ["Secret", "files", "leaks", "look", "secrets", "telling"]

_SHORTEST = 4
"""Characters of a target that is searched for: a shorter one stands anywhere by chance."""
_LINE = 12
"""Characters of a line of hidden tests or of expected output."""
_IN_MEMORY = 8
_FILE, _LEAK = "== file ", "== leak "
_TELLING = re.compile(
    r"(?:answer|solution|target|expected|reward|secret|password|key|flag|label|gold|truth|result)", re.IGNORECASE
)
_PYTHON = r"""
import hashlib, json, os, sys
_secrets = json.loads({secrets!r})
def _leak(place, data, memory=False):
    for secret in _secrets:
        if memory and not secret['memory']: continue
        half, size, at = secret['half'].encode(), secret['size'], -1
        while (at := data.find(half, at + 1)) >= 0:
            if hashlib.sha256(data[at:at + size]).hexdigest() == secret['hash']:
                print({leak!r} + json.dumps([secret['what'], place]))
                break
def _show(place, text):
    print({file!r} + json.dumps([place, text[:800]]))
_seen = 0
for _root in dict.fromkeys((os.getcwd(), os.path.expanduser('~'), '/tmp', '/data', '/logs', '/tests', '/solution')):
    for _path, _folders, _names in os.walk(_root):
        _folders[:] = [it for it in _folders if it not in ('.git', 'proc', 'sys')]
        for _name in _names:
            _seen += 1
            _place = os.path.join(_path, _name)
            try:
                if _seen > 2000 or not os.path.isfile(_place) or os.path.getsize(_place) > 1 << 20: continue
                with open(_place, 'rb') as _opened: _data = _opened.read()
            except OSError: continue
            _leak(os.path.relpath(_place), _data)
            if len(_data) < 20000 and b'\0' not in _data:
                _show(os.path.relpath(_place), _data.decode('utf-8', 'ignore'))
for _place, _text in (('the environment', chr(10).join(f'{{k}}={{v}}' for k, v in os.environ.items())),
                      ('the arguments', chr(10).join(sys.argv))):
    _leak(_place, _text.encode())
    _show(_place, _text)
try:
    with open('/proc/self/maps') as _maps, open('/proc/self/mem', 'rb', 0) as _memory:
        for _line in _maps:
            if ' r' not in _line[:60] or '[v' in _line: continue
            _low, _high = (int(it, 16) for it in _line.split()[0].split('-'))
            try:
                _memory.seek(_low)
                _leak('memory', _memory.read(min(_high - _low, 1 << 26)), True)
            except (OSError, ValueError, OverflowError, MemoryError): continue
except OSError: pass
"""
_SHELL = (
    "find . /tmp /logs /tests /solution -type f -size -20k -not -path '*/.git/*' 2>/dev/null | head -200 | "
    "while read -r f; do printf '{file}'; printf '%s\\n' \"$f\"; head -c 2000 \"$f\" | tr -d '\\000'; echo; done; "
    "printf '{file}the environment\\n'; env"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Something of a task that must not be in its box."""

    what: str
    text: str
    memory: bool
    """Long enough not to be met in a program's memory by chance."""

    def halved(self) -> dict[str, Any]:
        """As the program that looks is told of it."""
        data = self.text.encode()
        half = self.text[: (len(self.text) + 1) // 2]
        return {
            "what": self.what,
            "half": half,
            "size": len(data),
            "hash": hashlib.sha256(data).hexdigest(),
            "memory": self.memory,
        }


def telling(place: str) -> bool:
    """True where a file's name says that it holds what is asked for."""
    return _TELLING.search(place.rpartition("/")[2]) is not None


def secrets(task: Task) -> list[Secret]:
    """What of the task's targets and checks is long enough to be told from chance, and not in its prompt."""
    prompt = "\n".join(message.content for message in task.messages)
    targets = task.target if isinstance(task.target, tuple) else (task.target,)
    found = [("the target", str(target)) for target in targets if isinstance(target, str | int | float)]
    found = [(what, text) for what, text in found if len(text) >= _SHORTEST]
    for check in task.verifier.checks:
        found += [("a line of the hidden tests", line) for line in _lines(check.args)]
    told = {text: what for what, text in found if text not in prompt and not isinstance(text, bool)}
    return [Secret(what=what, text=text, memory=len(text) >= _IN_MEMORY) for text, what in told.items()][:8]


def _lines(args: Mapping[str, Any]) -> Iterator[str]:
    """The longest line of everything in a check's arguments that a candidate must not know."""
    texts = [args[name] for name in ("tests", "pattern") if isinstance(args.get(name), str)]
    for name, key in (("cases", "stdout"), ("files", "content")):
        rows = [row for row in args.get(name, ()) if isinstance(row, Mapping)]
        texts += [row[key] for row in rows if isinstance(row.get(key), str)]
    for text in texts:
        longest = max((line.strip() for line in text.splitlines()), key=len, default="")
        if len(longest) >= _LINE:
            yield longest


def look(seen: Seen, hidden: list[Secret]) -> Script | None:
    """An episode that prints what lies around; None where the task has no box to look into."""
    python, shell = seen.tool("python"), seen.tool("shell")
    if python is not None:
        told = json.dumps([secret.halved() for secret in hidden])
        code = _PYTHON.format(secrets=told, leak=_LEAK, file=_FILE)
        return (Action(calls=[CallIn(tool=python, arguments={"code": code})]), Action(answer=""))
    if shell is not None:
        return (Action(calls=[CallIn(tool=shell, arguments={"command": _SHELL.format(file=_FILE)})]), Action(answer=""))
    return None


def files(shown: str) -> list[tuple[str, str]]:
    """(place, text) of what was printed."""
    found = []
    for part in re.split(rf"^{_FILE}", shown, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        row = _json(first)
        place, text = row if isinstance(row, list) and len(row) == 2 else (first, rest)
        found.append((str(place).removeprefix("./"), str(text).strip()))
    return found


def leaks(shown: str, task: Task) -> list[str]:
    """Where a secret was found, but for the files that the oracle reads by name: there it belongs."""
    used = "\n".join(task.solution)
    found: dict[str, None] = {}
    for line in shown.splitlines():
        row = _json(line.removeprefix(_LEAK)) if line.startswith(_LEAK) else None
        if isinstance(row, list) and len(row) == 2 and str(row[1]).rpartition("/")[2] not in used:
            found[f"{row[0]} is in {row[1]}"] = None
    return list(found)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
