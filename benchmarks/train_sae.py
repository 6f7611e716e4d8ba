"""Train a small TopK sparse autoencoder on the train tokens of one site, for studies of the kind ``sae``.

No pretrained autoencoder of these small models is published, so the benchmarks train one. It is written in the layout
of ``dictionary_learning`` (``config.json``, ``ae.safetensors``), as a user would bring one.

::

    OMP_NUM_THREADS=2 python benchmarks/train_sae.py STUDY --site "block[9]" --out SAE
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from superactivators.states.extraction import open_states


def train(rows: torch.Tensor, latents: int, k: int, steps: int, batch: int, seed: int) -> dict[str, torch.Tensor]:
    """Minimise the squared error of the reconstruction, relative to the variance; decoder rows have unit length."""
    generator = torch.Generator().manual_seed(seed)
    width, centre = rows.shape[1], rows.mean(dim=0)
    scale = (rows - centre).norm(dim=1).square().mean().sqrt()
    decoder = torch.nn.functional.normalize(torch.randn(latents, width, generator=generator), dim=1)
    weights = {
        "encoder.weight": decoder.clone(),
        "encoder.bias": torch.zeros(latents),
        "decoder.weight": decoder.T.clone(),
        "b_dec": torch.zeros(width),
    }
    for weight in weights.values():
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(list(weights.values()), lr=1e-3)
    last = torch.zeros(latents, dtype=torch.int64)
    for step in range(steps):
        chosen = torch.randint(len(rows), (batch,), generator=generator)
        x = (rows[chosen] - centre) / scale
        pre = torch.relu((x - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"])
        values, places = pre.topk(k, dim=1)
        codes = torch.zeros_like(pre).scatter(1, places, values)
        loss = (codes @ weights["decoder.weight"].T + weights["b_dec"] - x).square().sum(dim=1).mean()
        # latents that have not fired for long learn to explain what is left over (Gao et al., arXiv 2406.04093)
        fired = torch.zeros(latents, dtype=torch.bool)
        fired[places[values > 0]] = True
        last = torch.where(fired, step, last)
        dead = torch.nonzero(step - last > 200)[:, 0]
        if len(dead) > k:
            rest = (x - (codes @ weights["decoder.weight"].T + weights["b_dec"])).detach()
            extra, where = pre[:, dead].topk(k, dim=1)
            spare = torch.zeros(len(x), len(dead)).scatter(1, where, extra)
            loss = loss + (spare @ weights["decoder.weight"].T[dead] - rest).square().sum(dim=1).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            weights["decoder.weight"] /= weights["decoder.weight"].norm(dim=0, keepdim=True)
        if step % 500 == 0 or step == steps - 1:
            print(f"step {step}: unexplained {float(loss):.3f}, dead {len(dead)}", flush=True)
    # back to units of the raw states: x = (raw - centre) / scale
    held = {name: weight.detach() for name, weight in weights.items()}
    return {
        "encoder.weight": (held["encoder.weight"] / scale).contiguous(),
        "encoder.bias": held["encoder.bias"].contiguous(),
        "decoder.weight": (held["decoder.weight"] * 1.0).contiguous(),
        "b_dec": (centre + held["b_dec"] * scale).contiguous(),
        "k": torch.tensor(k),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="study folder, or states folder")
    parser.add_argument("--site", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.study / "states" if (options.study / "states").exists() else options.study
    states = open_states(folder)
    rows = torch.cat([block for _, block in states.rows(options.site, "train").blocks()])
    start = time.perf_counter()
    weights = train(rows, options.latents, options.k, options.steps, options.batch, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.out / "ae.safetensors")
    trainer = {
        "dict_class": "AutoEncoderTopK",
        "activation_dim": rows.shape[1],
        "dict_size": options.latents,
        "k": options.k,
        "submodule_name": options.site,
    }
    (options.out / "config.json").write_text(json.dumps({"trainer": trainer}, indent=1) + "\n", encoding="utf-8")
    seconds = time.perf_counter() - start
    print(f"{len(rows)} rows, {options.latents} latents, k {options.k}: {seconds:.0f} s; written to {options.out}")
    assert np.isfinite(weights["encoder.weight"].numpy()).all()


if __name__ == "__main__":
    main()
