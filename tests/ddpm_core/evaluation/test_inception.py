import warnings

import pytest
import torch
from torch import Tensor, nn

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.extractor import Yardstick, inception_extractor
from ddpm_core.evaluation.inception import Inception, read_inception


class StandIn(nn.Module):
    """Called as StyleGAN's TorchScript of the Inception network is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.dtype == torch.uint8
        features = self.conv(images.float() / 255).relu().mean((2, 3))
        return features if return_features else features.softmax(1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(StandIn()).save(str(file))
    return file


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    made = Inception().state_dict()
    return {**made, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def save(weights, folder):
    file = folder / "pt_inception.pth"
    torch.save(weights, file)
    return file


def test_a_torchscript_gives_figures_that_are_called_fid_and_kid(script, drawn):
    extractor = inception_extractor(script)
    yardstick = Yardstick(extractor(drawn(60, seed=1)), substitute=extractor.substitute)
    figures = yardstick.measure(extractor(drawn(40, seed=2)))
    assert set(figures) == {"fid", "kid", "kid_standard_error", "precision", "recall"}
    assert figures["fid"] < yardstick.measure(extractor(255 - drawn(40, seed=2)))["fid"]
    assert (extractor.name, len(extractor.version)) == ("inception-2015-12-05", 64)


def test_a_state_dict_of_pytorch_fid_is_read_into_the_network_that_it_names(weights, tmp_path, drawn):
    assert len(Inception().state_dict()) == 6 * 94  # 94 convolutions, each with a batch norm
    assert sum(p.numel() for p in Inception().parameters()) == 21_785_568  # torchvision's, without its two classifiers
    features = read_inception(save(weights, tmp_path))(torch.from_numpy(drawn(2, seed=1)))
    assert features.shape == (2, 2048)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def _refused(file) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_inception(file)
    assert caught.value.field == "inception"
    return caught.value.message


def test_weights_of_torchvision_are_refused_because_their_distance_is_no_fid(weights, tmp_path):
    other = {**weights, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    assert "1000 classes instead of 1008" in _refused(save(other, tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("Mixed_6c.branch_pool.conv.weight"), "missing or of another shape: Mixed_6c.branch_pool.conv"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected: extra"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_first_key(weights, tmp_path, change, says):
    changed = dict(weights)
    change(changed)
    assert says in _refused(save(changed, tmp_path))


def test_other_files_are_refused(tmp_path):
    assert "no such file" in _refused(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    assert "neither a TorchScript nor a state dict" in _refused(tmp_path / "text.pth")
    assert "neither a TorchScript nor a state dict" in _refused(save({"a": nn.Conv2d(1, 1, 1)}, tmp_path))
