import warnings

import pytest
import torch
from torch import Tensor, nn

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.extractor import Yardstick, inception_extractor
from ddpm_core.evaluation.inception import read_inception


class StandIn(nn.Module):
    """Called as StyleGAN's TorchScript of the Inception network is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.dtype == torch.uint8
        features = self.conv(images.float() / 255).relu().mean((2, 3))
        return features if return_features else features.softmax(1)


def save(network, file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(file))
    return file


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    torch.manual_seed(0)
    return save(StandIn(), tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt")


def test_a_torchscript_gives_figures_that_are_called_fid_and_kid(script, drawn):
    extractor = inception_extractor(script)
    yardstick = Yardstick(extractor(drawn(60, seed=1)), substitute=extractor.substitute)
    figures = yardstick.measure(extractor(drawn(40, seed=2)))
    assert set(figures) == {"fid", "kid", "kid_standard_error", "precision", "recall"}
    assert figures["fid"] < yardstick.measure(extractor(255 - drawn(40, seed=2)))["fid"]
    assert (extractor.name, len(extractor.version)) == ("inception-2015-12-05", 64)


class Features(nn.Module):
    """Called as torchmetrics calls the networks that it is given."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


def test_a_torchscript_with_the_interface_of_torchmetrics_is_taken_too(tmp_path, drawn):
    pictures = drawn(4, seed=1)
    features = read_inception(save(Features(), tmp_path / "features.pt"))(torch.from_numpy(pictures))
    assert torch.allclose(features, torch.from_numpy(pictures).float().mean((1, 2)))


def _refused(file) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_inception(file)
    assert caught.value.field == "inception"
    return caught.value.message


def test_other_files_are_refused(tmp_path):
    assert "no such file" in _refused(tmp_path / "nowhere.pt")
    (tmp_path / "text.pt").write_text("hello", encoding="utf-8")
    assert "no TorchScript" in _refused(tmp_path / "text.pt")
    torch.save(nn.Conv2d(1, 1, 1).state_dict(), tmp_path / "weights.pth")
    assert "no TorchScript" in _refused(tmp_path / "weights.pth")
