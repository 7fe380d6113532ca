"""What is installed beside the package: versions, licences, whether they fit; and what this cannot check.

    python benchmarks/dependencies.py

Prints every distribution that the package needs, with or without extras, as installed: name, version, what its metadata
say of its licence, and which extra asks for it; then what `pip check` says. Works without a network, and so compares
nothing with a database of known vulnerabilities: where there is a network, `pip-audit` does that.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

PACKAGE = "medvlm-probe"


def needed(name: str, seen: dict[str, str], extra: str, *, extras: bool = False) -> None:
    """Add a distribution and all that it needs to `seen`, with the extra that first asked for it."""
    for text in metadata.requires(name) or ():
        marker = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
        if marker and not extras:
            continue
        match = re.match(r"[\w.-]+", text)
        found = match[0].lower().replace("_", "-") if match else ""
        if not found or found in seen or found == PACKAGE:
            continue
        try:
            metadata.version(found)
        except metadata.PackageNotFoundError:
            continue
        seen[found] = marker[1] if marker else extra
        needed(found, seen, seen[found])


def licence(name: str) -> str:
    """Return what a distribution's metadata say of its licence, in a line."""
    facts = metadata.metadata(name)
    classified = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or () if line.startswith("License")
    ]
    stated = facts.get("License-Expression") or ", ".join(classified) or (facts.get("License") or "not stated")
    return stated.splitlines()[0][:60] if stated else "not stated"


def main() -> None:
    seen: dict[str, str] = {}
    needed(PACKAGE, seen, "always", extras=True)
    for name in sorted(seen, key=lambda name: (seen[name] != "always", seen[name], name)):
        print(f"{name:32}{metadata.version(name):18}{seen[name]:12}{licence(name)}")
    print(f"\n{len(seen)} distributions, {sum(extra == 'always' for extra in seen.values())} without extras.")
    print(subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True).stdout.strip())
    print("Not checked: known vulnerabilities (pip-audit, with a network), and signatures of what was installed.")


if __name__ == "__main__":
    main()
