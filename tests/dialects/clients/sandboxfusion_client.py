"""SandboxFusion's own client against a hub: `sandboxfusion_client.py URL`, requests as JSON on standard input."""

from __future__ import annotations

import json
import sys

from sandbox_fusion import RunCodeRequest, run_code, set_endpoint

if __name__ == "__main__":
    set_endpoint(sys.argv[1])
    for line in sys.argv[2:]:
        try:
            print(run_code(RunCodeRequest(**json.loads(line)), max_attempts=1).json(), flush=True)
        except Exception as error:
            print(json.dumps({"raised": str(error)}), flush=True)
