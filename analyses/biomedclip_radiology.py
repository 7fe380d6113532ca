"""The study of BiomedCLIP on IU-Xray, anew: what `medvlm-probe figures radiology` does, written to figures/.

    python analyses/biomedclip_radiology.py [options of `medvlm-probe figures radiology`]

Without options it runs on the embedded default: phantoms through phantom-clip.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medvlm_probe.cli.main import main

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "biomedclip_radiology"

if __name__ == "__main__":
    sys.argv = ["medvlm-probe", "figures", "radiology", "--out", str(FIGURES), *sys.argv[1:]]
    main()
