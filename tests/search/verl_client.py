"""verl's own client of a retriever and its scoring of answers, run in the environment of tests/peers/verl.txt.

    verl_client.py URL QUERIES TOPK ANSWERS    the last as JSON: [[answer, [accepted, ...]], ...]

Prints what the client made of the retriever's answer, a JSON object, then exact and cover match of each answer. The two
modules are loaded from their files, since importing the package asks for everything that verl trains with.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import distribution
from types import ModuleType

FILES = ("verl/tools/utils/search_r1_like_utils.py", "verl/utils/reward_score/search_r1_like_qa_em.py")


def module(path: str) -> ModuleType:
    """A module of verl by the path of its file."""
    spec = importlib.util.spec_from_file_location("of_verl", str(distribution("verl").locate_file(path)))
    if spec is None or spec.loader is None:
        raise SystemExit(f"verl has no {path}")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


if __name__ == "__main__":
    search, scoring = (module(path) for path in FILES)
    url, queries, topk, answers = sys.argv[1:]
    text, said = search.perform_single_search_batch(url, json.loads(queries), int(topk))
    print(json.dumps({"text": text, "said": said}))
    for answer, accepted in json.loads(answers):
        print(json.dumps([scoring.em_check(answer, accepted), scoring.subem_check(answer, accepted)]))
