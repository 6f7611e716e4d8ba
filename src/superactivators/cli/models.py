"""Commands about models."""

from __future__ import annotations

from typing import Annotated

import typer

from superactivators.cli import console
from superactivators.cli.application import Json, LayersOption, ModalityOption, TowerOption, app, layers_of


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help="Folder, hub id, bundled:minilm or bundled:dinov2-small.")],
    spec: LayersOption = "all",
    modality: ModalityOption = None,
    tower: TowerOption = None,
    json_: Json = False,
) -> None:
    """List the sites that a layer specification means for a model."""
    from superactivators.models.backbone import Backbone

    backbone = Backbone.from_pretrained(model, modality=modality, tower=tower)
    sites = backbone.resolve_layers(layers_of(spec))
    content = {
        "model": model,
        "modality": backbone.modality,
        "blocks": backbone.n_blocks,
        "width": backbone.width,
        "path": backbone.blocks_path,
        "sites": list(sites),
    }

    def show() -> None:
        console.line(f"{model}: {backbone.n_blocks} blocks of width {backbone.width} at {backbone.blocks_path}")
        for site in sites:
            console.line(f"  {site}")

    console.emit(content, json_, show)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Folder, hub id, bundled:minilm or bundled:dinov2-small.")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    modality: ModalityOption = None,
    tower: TowerOption = None,
    json_: Json = False,
) -> None:
    """Prove on a small input that a model's states are what they claim to be; exit code 1 if a check fails."""
    from superactivators.models.backbone import Backbone
    from superactivators.models.doctor import diagnose

    diagnosis = diagnose(Backbone.from_pretrained(model, device=device, dtype=dtype, modality=modality, tower=tower))
    console.emit(diagnosis.as_dict(), json_, lambda: console.line(str(diagnosis)))
    if not diagnosis.passed:
        raise typer.Exit(1)
