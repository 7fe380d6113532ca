"""The study of CalibPrompt, anew: what `medvlm-probe figures calibprompt` does, written to figures/.

    python analyses/calibprompt.py [options of `medvlm-probe figures calibprompt`]

Without options it runs on the embedded default: phantoms through phantom-clip.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medvlm_probe.cli.main import main

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "calibprompt"

if __name__ == "__main__":
    sys.argv = ["medvlm-probe", "figures", "calibprompt", "--out", str(FIGURES), *sys.argv[1:]]
    main()
