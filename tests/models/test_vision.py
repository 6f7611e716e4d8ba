"""Where patches are: derived geometry against processors, pixels against tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from superactivators.data.dataset import ImageSample
from superactivators.errors import DataError, ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.families.pixel_grid import PixelGrid
from superactivators.models.geometry import TOLERANCE, ImageGeometry, prove_geometry
from superactivators.models.vision import ImageReader
from tiny_models import IMAGE_FAMILIES

PROCESSORS = {
    "square": transformers.ViTImageProcessorPil(size={"height": 64, "width": 64}),
    "wide": transformers.ViTImageProcessorPil(size={"height": 48, "width": 96}),
    "shortest edge": transformers.BitImageProcessorPil(size={"shortest_edge": 50}, do_center_crop=False),
    "odd crop": transformers.BitImageProcessorPil(size={"shortest_edge": 75}, crop_size={"height": 64, "width": 51}),
    "crop beyond": transformers.BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 64, "width": 55}),
    "longest edge": transformers.BitImageProcessorPil(
        size={"shortest_edge": 50, "longest_edge": 64}, do_center_crop=False
    ),
    "box": transformers.BitImageProcessorPil(size={"max_height": 70, "max_width": 60}, do_center_crop=False),
    "padded": transformers.ViTImageProcessorPil(
        size={"max_height": 64, "max_width": 64}, do_pad=True, pad_size={"height": 64, "width": 64}
    ),
    "as it is": transformers.BitImageProcessorPil(do_resize=False, do_center_crop=False),
    "crop only": transformers.BitImageProcessorPil(do_resize=False, crop_size={"height": 64, "width": 80}),
}


def reader(processor, *, patch=(8, 8), geometry="processor"):
    scheme = PixelGrid(
        processor,
        patch=patch,
        registers=0,
        trained_size=(32, 32),
        resizes_positions=False,
        squash=geometry == "squash",
        name="the processor",
    )
    return ImageReader(scheme, geometry=geometry, name="the processor")


@pytest.mark.parametrize("name", PROCESSORS)
def test_derived_geometry_is_proven_by_coordinates(name):
    processor = PROCESSORS[name]
    made = reader(processor)
    assert 0 < made.geometry_error < 0.6 * TOLERANCE
    squashed = reader(processor, geometry="squash")
    encoding = squashed.encode([ImageSample("i", np.zeros((90, 200, 3), dtype=np.uint8))])
    assert encoding.views.tolist() == [[0, 0, 200, 90]]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(97, 140), (150, 83), (40, 40)])
def test_a_marked_pixel_block_lands_in_the_patches_whose_box_holds_it(name, size):
    """An oracle without any formula: brighten a block of the original, see which patches of the pixels change."""
    processor, (height, width) = PROCESSORS[name], size
    made = reader(processor)
    plain = np.full((height, width, 3), 90, dtype=np.uint8)
    encoding = made.encode([ImageSample("i", plain)])
    boxes, columns = encoding.boxes(), int(encoding.grids[0, 1])
    for y, x in ((3, 5), (height // 2, width // 2), (height - 12, width - 14), (height // 3, 2 * width // 3)):
        marked = plain.copy()
        marked[y : y + 8, x : x + 8] = 250
        seen = [made.scheme.picture([Image.fromarray(image)])[0] for image in (marked, plain)]
        change = np.abs(seen[0] - seen[1]).sum(0)
        rows = int(encoding.grids[0, 0])
        per_patch = change[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).sum((1, 3)).ravel()
        overlap = np.clip(np.minimum(boxes[:, 2], x + 8) - np.maximum(boxes[:, 0], x), 0, None) * np.clip(
            np.minimum(boxes[:, 3], y + 8) - np.maximum(boxes[:, 1], y), 0, None
        )
        seen = np.zeros(rows * columns)
        seen[encoding.cells] = overlap
        if seen.max() > 40:  # mostly inside the view: the patch with most of the block changes most, or nearly so
            assert per_patch[seen.argmax()] >= 0.7 * per_patch.max()
        assert per_patch[seen == 0].sum() <= 0.25 * per_patch.sum() + 1e-3 or seen.max() == 0


def test_padding_cells_are_no_tokens():
    made = reader(PROCESSORS["padded"])
    encoding = made.encode([ImageSample("i", np.zeros((40, 80, 3), dtype=np.uint8))])  # becomes 32 x 64 of 64 x 64
    assert encoding.grids.tolist() == [[8, 8]]
    assert encoding.cells.tolist() == list(range(32))
    assert encoding.views.tolist() == [[0, 0, 80, 80]]
    around = reader(PROCESSORS["crop beyond"]).encode([ImageSample("i", np.zeros((40, 40, 3), dtype=np.uint8))])
    boxes = around.boxes()
    assert (boxes[:, 3] > 0).all()
    assert (boxes[:, 1] < 40).all()
    assert around.n_tokens < np.prod(around.grids[0])


def test_partial_patches_at_the_border_are_left_out():
    encoding = reader(PROCESSORS["odd crop"]).encode([ImageSample("i", np.zeros((75, 75, 3), dtype=np.uint8))])
    assert encoding.grids.tolist() == [[8, 6]]  # 51 columns of pixels hold 6 patches of 8
    left, top, right, bottom = encoding.views[0]
    assert (right - left, bottom - top) == (48, 64)
    assert (left, top) == (12, 5)


class Mirrored:
    """A processor whose settings do not say that it mirrors."""

    def __init__(self, inner, change):
        self._inner, self._change = inner, change

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, *args, **kwargs):
        given = self._inner(*args, **kwargs)
        return {"pixel_values": self._change(np.asarray(given["pixel_values"]))}


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels[..., ::-1],
        lambda pixels: pixels.swapaxes(-1, -2),
        lambda pixels: np.roll(pixels, 3, axis=-1),
        lambda pixels: pixels[..., :-8],
        lambda pixels: np.zeros_like(pixels),
    ],
)
def test_a_processor_that_does_something_else_is_refused(change):
    with pytest.raises(ModelError, match="geometry is unknown") as caught:
        reader(Mirrored(PROCESSORS["square"], change))
    assert "\n" not in str(caught.value)


def test_an_unknown_size_rule_is_refused():
    with pytest.raises(ModelError, match="a rule that is not known here"):
        ImageGeometry(resize={"longest_edge": 64}, crop=None, pad=None).place(50, 60)
    with pytest.raises(ModelError, match=r"turns 331 x 211 pixels into 32 x 32"):
        prove_geometry(
            ImageGeometry({"height": 64, "width": 64}, None, None).place,
            lambda images: np.zeros((len(images), 3, 32, 32), dtype=np.float32),
            "it",
        )


def test_sizes_come_from_the_header_and_orientation_notes_are_ignored(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (80, 40)).save(path, exif=exif)
    encoding = reader(PROCESSORS["shortest edge"]).encode([ImageSample("i", path)])
    assert encoding.views[0, 2] > encoding.views[0, 3]
    truncated = tmp_path / "b.jpg"
    truncated.write_bytes(path.read_bytes()[:300])
    made = reader(PROCESSORS["square"])
    with pytest.raises(DataError, match=r"gone\.png"):
        made.encode([ImageSample("i", tmp_path / "gone.png")])


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(DataError, match="'i'"):
        reader(PROCESSORS["as it is"]).encode([ImageSample("i", np.zeros((5, 90, 3), dtype=np.uint8))])


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_each_patch_moves_its_own_token_only(family, backbone):
    """At the embedding, every single patch of a non-square picture changes its own token and no other."""
    model = backbone(family)
    encoding = model.encode([ImageSample("i", np.zeros((96, 144, 3), dtype=np.uint8))])
    pixels = torch.randn(1, 3, 32, 48 if family.startswith("dinov2") else 32)
    rows, columns = encoding.grids[0].tolist()
    assert (rows, columns) == (4, 6 if family.startswith("dinov2") else 4)
    batch = next(model.batches([ImageSample("i", np.zeros((96, 144, 3), dtype=np.uint8))], encoding))
    variants = pixels.repeat(encoding.n_tokens + 1, 1, 1, 1)
    for number, cell in enumerate(encoding.cells.tolist()):
        y, x = divmod(cell, columns)
        variants[number + 1, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] += 1
    seen = []
    inputs = {**batch.passes[0].inputs, "pixel_values": variants}
    model.runner.run(inputs, ("embed",), lambda site, states: seen.append(states.clone()))
    layout = batch.passes[0].layout(seen[0].shape[1])
    states = seen[0][:, layout.rows]
    moved = (states[1:] - states[:1]).norm(dim=-1) > 1e-4
    assert torch.equal(moved, torch.eye(encoding.n_tokens, dtype=torch.bool))


def test_images_of_several_sizes_are_grouped_by_size(checkpoint):
    folder = checkpoint("dinov2")
    model = Backbone.from_pretrained(folder, device="cpu")
    model.reader = reader(PROCESSORS["shortest edge"])
    samples = [
        ImageSample(str(n), np.full((h, w, 3), 40 * n, dtype=np.uint8))
        for n, (h, w) in enumerate([(60, 90), (90, 60)] * 2)
    ]
    encoding = model.encode(samples)
    assert encoding.grids.tolist() == [[6, 9], [9, 6]] * 2
    batches = list(model.capture(samples, encoding, "last"))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == [0, 1, 2, 3]
    assert [len(batch.rows) for batch in batches] == [2, 2]
    assert all(np.array_equal(np.diff(batch.offsets), [54, 54]) for batch in batches)


def test_a_sequence_that_does_not_fit_the_grid_is_an_error(backbone):
    model = backbone("vit")
    sample = ImageSample("i", np.zeros((40, 40, 3), dtype=np.uint8))
    batch = next(model.batches([sample], model.encode([sample])))
    for length in (16, 17):
        batch.passes[0].layout(length)
    for length in (15, 18, 20):
        with pytest.raises(ModelError, match=f"{length} states for 4 x 4 patches"):
            batch.passes[0].layout(length)
