import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ddpm_core.bundle import GUIDE_WEIGHTS, MANIFEST, WEIGHTS, Guide, read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import checkpoint, run, samples
from ddpm_core.training.description import describe
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits


@pytest.fixture(scope="module")
def last(pictures, tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("export") / "run"
    run.train(pictures, out, tiny(num_levels=20, terms="Only for tests."), Limits(max_steps=2))
    return out / "last"


@pytest.mark.parametrize(("asked", "calls"), [({}, 25), ({"num_inference_steps": 8}, 8), ({"num_levels": 20}, 20)])
def test_a_bundle_asks_for_the_calls_that_the_recipe_says_as_far_as_it_has_levels(tiny, asked, calls):
    assert describe(tiny(**asked)).manifest.defaults.num_inference_steps == calls


def test_a_bundle_holds_the_averaged_weights_in_16_bit(last, tmp_path):
    bundle = export(last, tmp_path / "model", "1.0")
    exact, kept = load_file(last / WEIGHTS), load_file(tmp_path / "model" / WEIGHTS)
    assert {value.dtype for value in kept.values()} == {torch.float16}
    assert all(torch.equal(kept[key], exact[key].half()) for key in exact)
    assert bundle.manifest.version == "1.0"
    assert bundle.manifest.provenance == read_bundle(last).manifest.provenance
    assert not (tmp_path / "model" / checkpoint.NETWORK).exists()


def test_its_card_shows_terms_data_and_a_sample_grid(last, tmp_path):
    export(last, tmp_path / "model", "1.0")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# model 1.0\n\nOnly for tests.")
    assert "16 images seen in 2 steps" in card
    assert "(samples.png)" in card
    with Image.open(tmp_path / "model" / "samples.png") as grid:
        assert grid.size == (8 * 18 - 2, 8 * 18 - 2)


def test_a_grid_has_as_many_samples_as_asked_for(last, tmp_path):
    export(last, tmp_path / "model", "1.0", count=3)
    with Image.open(tmp_path / "model" / "samples.png") as grid:
        assert grid.size == (2 * 18 - 2, 2 * 18 - 2)


def test_what_does_not_become_whole_leaves_nothing(last, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(samples, "grid", stop)
        with pytest.raises(KeyboardInterrupt):
            export(last, tmp_path / "models" / "1.0", "1.0")
    assert list(tmp_path.iterdir()) == []
    export(last, tmp_path / "models" / "1.0", "1.0")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_run_without_a_best_yet_names_its_last(last, tmp_path):
    with pytest.raises(InvalidInput, match=r"There is no .*best; .* only .*last") as refused:
        export(last.with_name("best"), tmp_path / "model", "1.0")
    assert (refused.value.code, refused.value.allowed) == ("no_checkpoint", str(last))


def test_a_bundle_that_was_not_trained_here_is_refused(last, tmp_path):
    imported = shutil.copytree(last.resolve(), tmp_path / "imported")
    manifest = json.loads((imported / MANIFEST).read_text(encoding="utf-8"))
    (imported / MANIFEST).write_text(json.dumps(manifest | {"provenance": {"source": "x"}}), encoding="utf-8")
    with pytest.raises(InvalidInput, match="was not trained here"):
        export(imported, tmp_path / "model", "1.0")


def test_a_bundle_that_exists_is_not_overwritten(last, tmp_path):
    with pytest.raises(InvalidInput, match="exists already"):
        export(last, tmp_path, "1.0")


@pytest.fixture(scope="module")
def with_snapshot(pictures, tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("guided") / "run"
    run.train(pictures, out, tiny(num_levels=20, steps=4, guide_at=0.25), Limits())
    return out


def test_a_run_keeps_its_averaged_weights_at_the_share_asked_for_and_export_makes_them_its_guide(
    with_snapshot, tmp_path
):
    snapshot = read_bundle(with_snapshot / "guide")
    assert snapshot.manifest.provenance["steps"] == 1
    bundle = export(with_snapshot / "last", tmp_path / "model", "1.0")
    assert (bundle.manifest.guide.weight, bundle.manifest.guide.interval) == (1.5, (1, 60))
    kept, exact = load_file(tmp_path / "model" / GUIDE_WEIGHTS), load_file(with_snapshot / "guide" / WEIGHTS)
    assert all(torch.equal(kept[key], exact[key].half()) for key in exact)
    assert "w = 1.5" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_a_guide_can_be_named_and_one_of_another_kind_leaves_nothing(last, with_snapshot, tmp_path, pictures, tiny):
    bundle = export(last, tmp_path / "model", "1.0", with_snapshot / "last", Guide(weight=2, interval=(0.5, 30)))
    assert bundle.manifest.guide == Guide(weight=2, interval=(0.5, 30))
    run.train(pictures, tmp_path / "other", tiny(num_levels=30), Limits(max_steps=1))
    with pytest.raises(InvalidInput, match="schedule"):
        export(last, tmp_path / "models" / "1.0", "1.0", tmp_path / "other" / "last")
    assert not (tmp_path / "models").exists()
