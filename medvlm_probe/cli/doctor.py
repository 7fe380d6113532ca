"""`medvlm-probe doctor`: is this machine ready, and what mends it where it is not."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm_probe.cli.options import DeviceOption, JsonOption, ModelOption, NoColorOption, QuietOption, VerboseOption
from medvlm_probe.cli.output import make_output

if TYPE_CHECKING:
    from medvlm_probe.cli.doctor_checks import Check

FAILED = 2


def doctor(
    model: ModelOption = "phantom-clip",
    cohort: Annotated[
        str | None, typer.Option("--cohort", help="Also read this cohort and decode its first images.")
    ] = None,
    device: DeviceOption = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Use no network: only files that are here.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Look whether this machine is ready: PASS, WARN or FAIL for each part, with what mends it.

    Ends with 0 where nothing fails, warnings or not, else with 2. Prints no patient's data.

    Example: medvlm-probe doctor --model local:biomedclip --cohort manifest.csv --offline
    """
    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    output.say(f"Looking at this machine, model {model}" + (" and the cohort given." if cohort else "."))
    checks = run_checks(model, cohort, device, offline)
    counts = Counter(check.status for check in checks)
    if as_json:
        from dataclasses import asdict

        output.json({"checks": [asdict(check) for check in checks], "failed": counts["FAIL"], "warned": counts["WARN"]})
    else:
        rows = [
            (f"{check.name}: {check.found}" + (f"\nMend: {check.mend}" if check.mend else ""), check.status)
            for check in checks
        ]
        output.table("This machine", ("Found", "Status"), rows)
        output.say(f"{counts['PASS']} passed, {counts['WARN']} warnings, {counts['FAIL']} failed.")
    if counts["FAIL"]:
        raise typer.Exit(FAILED)


def run_checks(model: str, cohort: str | None, device: str, offline: bool) -> list[Check]:
    """Return all checks, in the order in which their faults cause one another."""
    from medvlm_probe.cli import doctor_checks as machine

    python, torch = machine.python_check(), machine.torch_check()
    if torch.status == "FAIL":
        return [python, torch]
    from medvlm_probe.cli import doctor_inputs as inputs
    from medvlm_probe.embeddings.threads import available_cores
    from medvlm_probe.models.hub import hub_is_off
    from medvlm_probe.runs import cache_dir

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    of_machine = [
        machine.device_check(device),
        machine.threads_check(os.environ, available_cores(), load),
        machine.open_files_check(),
        machine.dicom_check(),
        machine.cache_check(cache_dir()),
    ]
    of_model = [inputs.files_check(model, offline or hub_is_off())]
    if model.startswith("local:"):
        of_model.append(inputs.bundle_check(model))
    # Nothing is fetched to look at a machine, and a model that lacks files or differs from its lock is not loaded.
    is_here = of_model[0].status == "PASS" and of_model[-1].status != "FAIL"
    if is_here and of_machine[0].status == "PASS":
        of_model += inputs.model_check(model, device, offline=True)
    of_cohort = [inputs.cohort_check(cohort)] if cohort is not None else []
    return [python, torch, *of_machine, *of_model, *of_cohort]
