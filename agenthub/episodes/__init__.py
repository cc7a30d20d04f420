"""Episodes: a task, its sandboxes and the turns played, without HTTP; and copies of them.

    workbench   the sandbox factories of one process
    boxes       the sandboxes of one episode, and which of them a call goes to
    past        what an episode has been through, as far as a copy of it must know
    episode     what a turn does, when an episode ends and what it is worth
    regaining   the sandboxes of an episode whose hub was killed
    forking     copies of an episode: from its live sandboxes, or by making its calls again in fresh ones

What an episode does is in `episode`; the other modules are its parts.
"""

from __future__ import annotations

from agenthub.episodes.episode import Episode, new_id
from agenthub.episodes.past import Past
from agenthub.episodes.workbench import Outliving, Workbench

__all__ = ["Episode", "Outliving", "Past", "Workbench", "new_id"]
