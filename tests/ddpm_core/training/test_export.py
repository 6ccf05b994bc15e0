import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ddpm_core.bundle import MANIFEST, WEIGHTS, read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import checkpoint, run, samples
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits


@pytest.fixture(scope="module")
def last(pictures, tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("export") / "run"
    run.train(pictures, out, tiny(num_levels=20, terms="Only for tests."), Limits(max_steps=2))
    return out / "last"


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
