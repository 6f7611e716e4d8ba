"""Every data format by name (docs/datasets.md)."""

from __future__ import annotations

from collections.abc import Callable

from superactivators.data.dataset import ConceptDataset
from superactivators.data.formats.ade20k import read_ade20k
from superactivators.data.formats.broden import read_broden
from superactivators.data.formats.clevr import read_clevr
from superactivators.data.formats.coco import read_coco
from superactivators.data.formats.doccano import read_doccano
from superactivators.data.formats.goemotions import read_goemotions
from superactivators.data.formats.hub import read_hub
from superactivators.data.formats.isarcasm import read_isarcasm
from superactivators.data.formats.label_studio import read_label_studio
from superactivators.data.formats.mask_folders import read_mask_folders
from superactivators.data.formats.paper_text import read_paper_text
from superactivators.data.formats.sarcasm import read_sarcasm
from superactivators.data.formats.tables import read_table
from superactivators.data.formats.voc import read_voc
from superactivators.registry import Registry

formats: Registry[Callable[..., ConceptDataset]] = Registry("data format", "superactivators.formats")
"""Readers of other people's formats: functions of a path and keyword options. Splits may be left out."""

_READERS: dict[str, Callable[..., ConceptDataset]] = {
    "ade20k": read_ade20k,
    "broden": read_broden,
    "clevr": read_clevr,
    "coco": read_coco,
    "csv": read_table,
    "doccano": read_doccano,
    "goemotions": read_goemotions,
    "hf": read_hub,
    "isarcasm": read_isarcasm,
    "jsonl": read_table,
    "label-studio": read_label_studio,
    "mask-folders": read_mask_folders,
    "paper-text": read_paper_text,
    "sarcasm-headlines": read_sarcasm,
    "table": read_table,
    "voc": read_voc,
}
for _name, _reader in _READERS.items():
    formats.register(_name)(_reader)
