"""The forms that an image tower can run in on a CPU: precisions, memory layouts, compiled and exported ones.

    python -m benchmarks.model_forms [--quick] [--only NAME ...]

Every form is given the same batch of preprocessed radiographs; forms take turns, and each has the median of its turns,
in processor seconds of one thread, so that other work on the machine does not count. `embed` itself runs "bfloat16"
where the processor has it (see `embeddings/precision.py`), else "float32". Agreement is with "float32": the smallest
cosine, and the largest difference of a number over the largest number.

What was found on an AMD EPYC with avx512_bf16: at bfloat16's own agreement nothing is 1.3 times as fast as what `embed`
does, which would be worth another dependency and another key in the cache; 8-bit weights are faster, and stray further
from float32 than `precision.MIN_COSINE` allows.

The towers are BiomedCLIP's ViT-B/16 and a ResNet-50, with random weights. ONNX Runtime and OpenVINO are asked only
where they are installed (`pip install onnx onnxscript onnxruntime openvino`); nothing in the package needs them. Writes
figures/benchmarks/model_forms.csv (`--quick`: two images, one turn, nothing written).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.biomedclip_bundle import write_bundle
from benchmarks.embed_throughput import write_radiographs
from benchmarks.machine import machine_facts
from medvlm_probe.embeddings.precision import Precision, at_precision, encode, fast_precision
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.models.open_clip_adapter import wrap_module
from medvlm_probe.models.zoo import load_model

RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "model_forms.csv"
BATCH, TURNS = 8, 3
PLAIN = ("float32", "bfloat16", "float32, channels last", "bfloat16, channels last", "bfloat16, no autocast")
"""The forms of the second tower: those that need neither compiler nor exporter."""

Form = Callable[[Tensor], Tensor]


class ImageTower(torch.nn.Module):
    """The image side alone, as exporters and compilers want it."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (N, D) of (N, 3, H, W)."""
        embeddings: Tensor = self.module.encode_image(pixels)
        return embeddings


@dataclass
class Measured:
    """A form, the seconds it took to make, the seconds of each turn, and what it gave."""

    form: Form
    making: float
    seconds: list[float] = field(default_factory=list)
    vectors: Tensor = field(default_factory=lambda: torch.empty(0))


def eager(model: Any, pixels: Tensor, precision: Precision, *, channels_last: bool = False) -> Form:
    """Return the model as `embed` runs it, or with weights and pixels in channels-last layout."""
    twin = at_precision(model, precision)
    if not channels_last:
        return partial(_encoded, twin, precision)
    if twin is model:
        twin = copy.copy(model)
        object.__setattr__(twin, "module", copy.deepcopy(model.module))
    twin.module.to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    return lambda given: encode(twin, given.contiguous(memory_format=torch.channels_last), precision)


def without_autocast(model: Any, pixels: Tensor) -> Form:
    """Return the model wholly in bfloat16: normalisations and softmax too."""
    tower = ImageTower(copy.deepcopy(model.module)).bfloat16()
    return lambda given: _inferred(tower, given.bfloat16())


def compiled(model: Any, pixels: Tensor, precision: Precision) -> Form:
    """Return the model through torch.compile, weights frozen and packed beforehand."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    twin: Any = at_precision(model, precision)
    tower = torch.compile(ImageTower(twin.module).eval(), dynamic=False)

    def run(given: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return tower(given).float()

    run(pixels)
    run(pixels)
    return run


def with_onnx_runtime(model: Any, pixels: Tensor, folder: Path, *, int8: bool = False) -> Form:
    """Return the model exported to ONNX, in float32 or with weights and activations rounded to 8 bits as they come."""
    import onnxruntime

    path = _exported(model, pixels, folder)
    if int8:
        from onnxruntime.quantization import quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        quant_pre_process(str(path), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
        path = folder / "int8.onnx"
        quantize_dynamic(str(folder / "prepared.onnx"), str(path), op_types_to_quantize=["MatMul", "Gemm"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(None, {"pixels": given.numpy()})[0])


def with_openvino(model: Any, pixels: Tensor, folder: Path, precision: str) -> Form:
    """Return the model in OpenVINO, in `f32` or `bf16`."""
    import openvino

    converted = openvino.convert_model(str(_exported(model, pixels, folder)))
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    ready = openvino.compile_model(converted, "CPU", settings)

    def run(given: Tensor) -> Tensor:
        found: NDArray[np.float32] = ready(given.numpy())[0]
        return torch.from_numpy(found.copy())

    return run


def forms(model: Any, pixels: Tensor, folder: Path) -> dict[str, Callable[[], Form]]:
    """Return how each form is made, "float32" first."""
    found: dict[str, Callable[[], Form]] = {
        "float32": partial(eager, model, pixels, "float32"),
        "bfloat16": partial(eager, model, pixels, "bfloat16"),
        "float32, channels last": partial(eager, model, pixels, "float32", channels_last=True),
        "bfloat16, channels last": partial(eager, model, pixels, "bfloat16", channels_last=True),
        "bfloat16, no autocast": partial(without_autocast, model, pixels),
        "float32, torch.compile": partial(compiled, model, pixels, "float32"),
        "bfloat16, torch.compile": partial(compiled, model, pixels, "bfloat16"),
    }
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        found["float32, ONNX Runtime"] = partial(with_onnx_runtime, model, pixels, folder)
        found["int8, ONNX Runtime"] = partial(with_onnx_runtime, model, pixels, folder, int8=True)
    if find_spec("openvino") and find_spec("onnxscript"):
        found["float32, OpenVINO"] = partial(with_openvino, model, pixels, folder, "f32")
        found["bfloat16, OpenVINO"] = partial(with_openvino, model, pixels, folder, "bf16")
    return found


def towers(folder: Path) -> dict[str, VisionLanguageModel]:
    """Return the models whose image towers are run."""
    import open_clip

    bundle = write_bundle(folder / "bundle", ["lung"])
    torch.manual_seed(0)
    resnet, name = open_clip.create_model("RN50", load_weights=False), "RN50"
    config, tokenizer = open_clip.get_model_config(name), open_clip.get_tokenizer(name)
    return {
        "ViT-B/16 of BiomedCLIP": load_model(f"local:{bundle}", device="cpu"),
        "ResNet-50 of CLIP": wrap_module(name, resnet, config, tokenizer),
    }


def measure(quick: bool, only: list[str] | None = None) -> pd.DataFrame:
    """Return one row for each tower and form."""
    n, turns = (2, 1) if quick else (BATCH, TURNS)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        paths = write_radiographs(Path(name) / "images", n, 512, 512)
        for number, (tower, model) in enumerate(towers(Path(name)).items()):
            pixels = torch.stack([model.preprocess(Image.open(path)) for path in paths])
            folder = Path(name) / f"tower{number}"
            folder.mkdir()
            names = only or (PLAIN if number else None)
            wanted = {form: make for form, make in forms(model, pixels, folder).items() if not names or form in names}
            rows += _rows(tower, _measured(wanted, pixels, turns), n)
            print(pd.DataFrame(rows).to_string(), file=sys.stderr)
    return pd.DataFrame(rows)


def _measured(makers: dict[str, Callable[[], Form]], pixels: Tensor, turns: int) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for name, make in makers.items():
        started = time.process_time()
        form = make()
        making = time.process_time() - started
        found[name] = Measured(form, making, vectors=form(pixels).float())
        print(f"{name}: made in {making:.1f} s", file=sys.stderr)
    for _ in range(turns):
        for one in found.values():
            started = time.process_time()
            one.form(pixels)
            one.seconds.append(time.process_time() - started)
    return found


def _rows(tower: str, found: dict[str, Measured], n: int) -> list[dict[str, Any]]:
    exact = found["float32"].vectors.double()
    default = found.get(fast_precision(torch.device("cpu")), found["float32"])
    rows = []
    for name, one in found.items():
        seconds = statistics.median(one.seconds)
        vectors = one.vectors.double()
        rows.append(
            {
                "tower": tower,
                "form": name,
                "milliseconds_per_image": 1000 * seconds / n,
                "images_per_core_second": n / seconds,
                "times_faster_than_embed": statistics.median(default.seconds) / seconds,
                "min_cosine": float(torch.nn.functional.cosine_similarity(exact, vectors, dim=1).min()),
                "largest_difference": float((vectors - exact).abs().max() / exact.abs().max()),
                "seconds_to_make": one.making,
            }
        )
    return rows


def _encoded(model: VisionLanguageModel, precision: Precision, pixels: Tensor) -> Tensor:
    return encode(model, pixels, precision)


def _inferred(tower: torch.nn.Module, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = tower(pixels)
        return found.float()


def _exported(model: Any, pixels: Tensor, folder: Path) -> Path:
    path = folder / "tower.onnx"
    if not path.exists():
        program = torch.onnx.export(
            ImageTower(model.module).eval(), (pixels,), input_names=["pixels"], dynamo=True, verbose=False
        )
        program.save(str(path), external_data=False)  # type: ignore[union-attr]
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two images, one turn: to see that it runs")
    parser.add_argument("--only", nargs="+", metavar="FORM", help="these forms alone; float32 must be among them")
    given = parser.parse_args()
    table = measure(given.quick, given.only)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not given.quick and not given.only:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        machine = machine_facts()
        table.assign(processor=machine["processor"], torch=machine["torch"]).to_csv(
            RESULT, index=False, float_format="%.6g"
        )


if __name__ == "__main__":
    main()
