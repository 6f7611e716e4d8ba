"""Plugin of pytest: let torchvision be imported although its compiled operators do not fit the installed torch.

The wheel of torchvision on the package index is built for CUDA; beside a torch for the CPU its operators cannot be
loaded, and the import fails because it describes two that are then unknown. They are declared here and never called.
Use it with ``python -m pytest -p torchvision_shim`` and torchvision's folder on ``PYTHONPATH``.
"""

from __future__ import annotations

import importlib.util
import warnings

import torch

_LIBRARY: list[torch.library.Library] = []  # declared operators vanish with the object that declared them

if importlib.util.find_spec("torchvision") is not None:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARY.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchvision  # noqa: F401
