"""Backbones of every family: states against transformers itself, batches, padding, windows, special tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import DataError, ModelError, StudyError
from superactivators.models.backbone import Backbone
from superactivators.models.quiet import quiet_transformers
from tiny_models import IMAGE_FAMILIES, N_BLOCKS, PRE_NORM_HIDDEN_STATES, SENTENCES, TEXT_FAMILIES, WIDTH

ALL = ["embed", "all", "final_norm"]
FAMILIES = (*TEXT_FAMILIES, *IMAGE_FAMILIES)


def texts(*strings):
    return [TextSample(f"t{number}", string) for number, string in enumerate(strings)]


def images(*sizes):
    generator = np.random.default_rng(3)
    return [
        ImageSample(f"i{n}", generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for n, (h, w) in enumerate(sizes)
    ]


def samples_for(model):
    if model.modality == "text":
        return texts(*SENTENCES, "short", "  leading\t\tblanks  and 😀 and e\u0301")
    return images((60, 90), (100, 50), (33, 33), (64, 48))


def states(model, samples, sites=ALL, **options):
    """Token states and sample states per site, in the order of the samples."""
    encoding = model.encode(samples)
    tokens, whole = {}, {}
    for batch in model.capture(samples, encoding, sites, **options):
        for site in batch.tokens:
            assert len(batch.tokens[site]) == batch.offsets[-1]
            for place, row in enumerate(batch.rows.tolist()):
                assert row not in tokens.setdefault(site, {})
                tokens[site][row] = batch.tokens[site][batch.offsets[place] : batch.offsets[place + 1]]
                whole.setdefault(site, {})[row] = batch.samples[site][place]
    for site in tokens:
        assert [len(tokens[site][row]) for row in range(len(samples))] == np.diff(encoding.offsets).tolist()
    return tokens, whole


def close(first, second):
    for site, rows in first.items():
        for row, one in rows.items():
            gap = (one - second[site][row]).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-9)
            assert gap.numel() == 0 or float(gap.max()) < 2e-5, (site, row, float(gap.max()))


def hooks_of(model):
    return [(len(block._forward_hooks), len(block._forward_pre_hooks)) for block in model.blocks]


def plain_inputs(model, sample):
    """Inputs of one sample made without the package, and which of the model's positions are content tokens."""
    if model.modality == "image":
        pixels = model.reader.scheme.processor(images=[sample.load_image()], return_tensors="pt")["pixel_values"]
        inputs = {"pixel_values": pixels}
        if tuple(pixels.shape[2:]) != (32, 32) and "interpolate_pos_encoding" in model.runner.accepts:
            inputs["interpolate_pos_encoding"] = True
        return inputs, None
    with quiet_transformers():
        given = model.reader.tokenizer(sample.text, return_special_tokens_mask=True, return_tensors="pt")
    content = given.pop("special_tokens_mask")[0] == 0
    return {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}, content


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_bit_equal_to_hidden_states_of_transformers(family, backbone):
    model = backbone(family)
    for sample in samples_for(model)[:3]:
        inputs, content = plain_inputs(model, sample)
        with torch.inference_mode(), quiet_transformers():
            output = model.model(**inputs, output_hidden_states=True)
        if content is None:  # an image: what is not a patch stands in front
            cells = model.encode([sample]).n_tokens
            content = torch.arange(output.last_hidden_state.shape[1]) >= output.last_hidden_state.shape[1] - cells
        tokens, whole = states(model, [sample])
        hidden = output.hidden_states
        assert len(hidden) == N_BLOCKS + 1
        assert torch.equal(tokens["embed"][0], hidden[0][0][content])
        for number in range(N_BLOCKS - 1):
            assert torch.equal(tokens[f"block[{number}]"][0], hidden[number + 1][0][content])
        last = tokens[f"block[{N_BLOCKS - 1}]"][0]
        assert torch.equal(last, hidden[N_BLOCKS][0][content]) == (family in PRE_NORM_HIDDEN_STATES)
        assert torch.equal(tokens["final_norm"][0], output.last_hidden_state[0][content])
        assert tokens["final_norm"][0].shape == (int(content.sum()), WIDTH)
        has_cls = family in ("bert", "distilbert", "roberta", "vit", "dinov2", "dinov2-registers", "clip")
        expected = hidden[2][0][0] if has_cls else hidden[2][0][content].mean(0)
        assert torch.allclose(whole["block[1]"][0], expected, atol=1e-6, rtol=1e-5)
        assert has_cls == torch.equal(whole["block[1]"][0], hidden[2][0][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_states_do_not_depend_on_the_batch_or_on_the_order(family, backbone):
    model = backbone(family)
    samples = samples_for(model)
    encoding = model.encode(samples)
    alone = list(model.batches(samples, encoding, max_batch_tokens=1))
    assert [len(batch.rows) for batch in alone] == [1] * len(samples)  # else this test would compare nothing
    assert max(len(batch.rows) for batch in model.batches(samples, encoding)) > 1
    first = states(model, samples, max_batch_tokens=1)
    for options in ({}, {"max_batch_tokens": 150}):
        second = states(model, samples, **options)
        close(first[0], second[0])
        close(first[1], second[1])
    backwards = states(model, samples[::-1])[0]
    flipped = {site: {len(samples) - 1 - row: value for row, value in rows.items()} for site, rows in backwards.items()}
    close(first[0], flipped)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("window", [None, 24])
def test_padding_on_the_left_gives_the_same_states(family, window, checkpoint):
    model = Backbone.from_pretrained(checkpoint(family), device="cpu")
    if window:
        model.reader.window = window
    samples = samples_for(model)
    right = states(model, samples)
    model.reader.padding_side = "left"
    masks = [p.inputs["attention_mask"] for b in model.batches(samples, model.encode(samples)) for p in b.passes]
    assert any((mask[:, 0] == 0).any() for mask in masks)  # padding really is on the left
    left = states(model, samples)
    close(right[0], left[0])
    close(right[1], left[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_stopping_early_changes_nothing_and_hooks_are_gone_after(family, backbone):
    model = backbone(family)
    samples = samples_for(model)
    ran, before = [], hooks_of(model)
    spy = model.blocks[2].register_forward_hook(lambda *_: ran.append(1))
    try:
        early = states(model, samples, ["embed", 0, 1])[0]
        assert not ran
        full = states(model, samples, ["embed", 0, 1], stop_early=False)[0]
        assert ran
    finally:
        spy.remove()
    assert all(torch.equal(early[site][row], full[site][row]) for site in early for row in early[site])
    assert hooks_of(model) == before


def test_hooks_are_removed_after_an_error(backbone):
    model = backbone("bert")
    before = hooks_of(model)

    def fail(site, value):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.runner.run({"input_ids": torch.ones(1, 3, dtype=torch.long)}, ("block[1]",), fail)
    assert hooks_of(model) == before


def test_a_site_that_arises_twice_is_an_error(checkpoint):
    model = Backbone.from_pretrained(checkpoint("bert"), device="cpu")
    forward = model.model.encoder.forward

    def twice(*args, **kwargs):
        forward(*args, **kwargs)
        return forward(*args, **kwargs)

    model.model.encoder.forward = twice
    with pytest.raises(ModelError, match=r"block\[1\] 2 times"):
        states(model, texts("a text"), ["block[1]", "final_norm"])


def test_a_site_that_never_arises_is_an_error(checkpoint):
    model = Backbone.from_pretrained(checkpoint("gpt2"), device="cpu")
    model.model.h = model.model.h[:2]
    with pytest.raises(ModelError, match=r"block\[3\] 0 times"):
        states(model, texts("a text"), ["block[3]"])


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_windows_agree_with_running_each_window_alone(family, checkpoint):
    """Each token's state is that of a separate run over the window it belongs to."""
    model = Backbone.from_pretrained(checkpoint(family), device="cpu")
    reader = model.reader
    sample = TextSample("long", " ".join(SENTENCES[:3] * 3))
    encoding = model.encode([sample])
    assert encoding.n_tokens > reader.capacity
    assert encoding.cut.tolist() == [0]
    for most in (10, 4096):  # one window at a time, and all together
        tokens, whole = states(model, [sample], ["block[2]"], max_batch_tokens=most)
        from superactivators.models.windows import windows_of

        windows = windows_of(encoding.n_tokens, reader.capacity, 0.25)
        parts, firsts = [], []
        for number, (start, end) in enumerate(zip(windows.start, windows.end, strict=True)):
            ids = np.concatenate([reader.prefix, encoding.token_ids[start:end], reader.suffix])
            assert len(ids) <= reader.window
            seen = []
            inputs = {
                "input_ids": torch.from_numpy(ids)[None],
                "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            }
            model.runner.run(inputs, ("block[2]",), lambda site, value, seen=seen: seen.append(value[0].clone()))
            own = slice(
                windows.own[number] - start + len(reader.prefix), windows.own[number + 1] - start + len(reader.prefix)
            )
            parts.append(seen[0][own])
            firsts.append(seen[0][0])
        assert torch.allclose(tokens["block[2]"][0], torch.cat(parts), atol=2e-5, rtol=1e-4)
        expected = torch.stack(firsts).mean(0) if reader.cls_place else torch.cat(parts).mean(0)
        assert torch.allclose(whole["block[2]"][0], expected, atol=2e-5, rtol=1e-4)


def test_truncation_is_counted_and_error_names_the_sample(checkpoint):
    long = texts("short", " ".join(SENTENCES * 2))
    cut = Backbone.from_pretrained(checkpoint("bert"), device="cpu", long_texts="truncate")
    whole = Backbone.from_pretrained(checkpoint("bert"), device="cpu").encode(long)
    encoding = cut.encode(long)
    assert np.diff(encoding.offsets)[1] == cut.reader.capacity == 62
    assert encoding.cut.tolist() == [0, int(np.diff(whole.offsets)[1]) - 62]
    assert states(cut, long)[0]["block[0]"][1].shape[0] == 62
    with pytest.raises(DataError, match="'t1'"):
        Backbone.from_pretrained(checkpoint("bert"), device="cpu", long_texts="error").encode(long)


def test_roberta_window_leaves_room_for_its_position_offset(backbone):
    assert backbone("roberta").reader.window == 38  # 40 positions, the first two are not for tokens


def test_special_tokens_written_in_a_text_are_run_but_not_scored(backbone):
    model = backbone("bert")
    sample = texts("the dog [SEP] the fox [MASK] runs")
    encoding = model.encode(sample)
    assert not np.isin(encoding.token_ids, model.reader.special_ids).any()
    text = sample[0].text
    assert "".join(text[a:b] for a, b in encoding.chars) == "thedogthefoxruns"
    batch = next(model.batches(sample, encoding))
    ids = batch.passes[0].inputs["input_ids"][0].tolist()
    assert ids.count(3) == 2  # [SEP] of the text and of the tokenizer


def test_a_begin_token_in_the_text_is_refused(backbone):
    with pytest.raises(DataError, match=r"'t0' begins with '<\|begin_of_text\|>'"):
        backbone("llama").encode(texts("<|begin_of_text|>hello"))


def test_blank_texts_and_texts_without_tokens(backbone):
    with pytest.raises(DataError, match="'t1' is blank"):
        backbone("bert").encode(texts("a", " \n\t "))
    for family in ("bert", "gpt2"):
        model = backbone(family)
        silent = "\u0000" if family == "bert" else "<|endoftext|>"
        samples = texts("the dog", silent, "a fox")
        assert np.diff(model.encode(samples).offsets)[1] == 0
        tokens, whole = states(model, samples)
        assert tokens["block[1]"][1].shape == (0, WIDTH)
        assert torch.isfinite(whole["block[1]"][1]).all()


def test_wrong_modality_and_foreign_encodings_are_refused(backbone):
    with pytest.raises(DataError, match="is an image"):
        backbone("bert").encode(images((40, 40)))
    with pytest.raises(DataError, match="is a text"):
        backbone("vit").encode(texts("a"))
    model = backbone("bert")
    with pytest.raises(DataError, match="does not belong"):
        list(model.capture(texts("the fox"), model.encode(texts("the dog")), 0))


def test_settings_are_checked(checkpoint):
    for wrong in ({"long_texts": "windows"}, {"window_overlap": 1.0}):
        with pytest.raises(StudyError):
            Backbone.from_pretrained(checkpoint("bert"), device="cpu", **wrong)
    with pytest.raises(StudyError, match="did you mean 'squash'"):
        Backbone.from_pretrained(checkpoint("vit"), device="cpu", geometry="squish")


def test_half_precision_states_keep_the_models_dtype(checkpoint):
    model = Backbone.from_pretrained(checkpoint("llama"), device="cpu", dtype="bf16")
    samples = samples_for(model)
    tokens, whole = states(model, samples)
    reference = states(Backbone.from_pretrained(checkpoint("llama"), device="cpu"), samples)[0]
    assert model.dtype == tokens["block[0]"][0].dtype == whole["block[0]"][0].dtype == torch.bfloat16
    gap = (tokens["block[3]"][0].float() - reference["block[3]"][0]).norm(dim=1) / reference["block[3]"][0].norm(dim=1)
    assert 0 < float(gap.max()) < 0.1


def test_fingerprint_follows_weights_and_settings_not_places(checkpoint, tmp_path):
    import shutil

    source = checkpoint("bert")
    shutil.copytree(source, tmp_path / "elsewhere")
    marks = [Backbone.from_pretrained(folder, device="cpu").fingerprint for folder in (source, tmp_path / "elsewhere")]
    assert marks[0] == marks[1]
    others = [
        Backbone.from_pretrained(source, device="cpu", long_texts="truncate").fingerprint,
        Backbone.from_pretrained(source, device="cpu", window_overlap=0.5).fingerprint,
        Backbone.from_pretrained(source, device="cpu", dtype="float16").fingerprint,
    ]
    changed = Backbone.from_pretrained(source, device="cpu")
    with torch.no_grad():
        next(changed.model.parameters())[0, 0] += 1
    assert len({marks[0], *others, changed.fingerprint}) == 5
    squashed = [
        Backbone.from_pretrained(checkpoint("vit"), device="cpu", geometry=g).fingerprint
        for g in ("processor", "squash")
    ]
    assert squashed[0] != squashed[1]


def test_encoding_of_a_subset_is_the_subset_of_the_encoding(backbone):
    model = backbone("roberta")
    samples = samples_for(model)
    rows = np.array([4, 1])
    part, whole = model.encode([samples[row] for row in rows]), model.encode(samples).subset(rows)
    for name in ("offsets", "token_ids", "chars", "cut"):
        assert np.array_equal(getattr(part, name), getattr(whole, name))
    assert replace(part) is not part


def test_plain_forward_runs_the_same_batches(backbone):
    model = backbone("bert")
    samples = samples_for(model)
    encoding = model.encode(samples)
    batches = list(model.batches(samples, encoding, max_batch_tokens=100))
    assert model.forward_plain(samples, encoding, max_batch_tokens=100) == sum(len(b.passes) for b in batches)
    for batch in batches:
        for forward in batch.passes:
            ids = forward.inputs["input_ids"]
            assert ids.numel() <= 100 or len(ids) == 1
