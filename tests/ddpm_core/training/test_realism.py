"""A network learns whole pictures in few calls from a critic: the features of a finished network, and heads on them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddpm_core.bundle import read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.sampling import Sampler
from ddpm_core.training import run
from ddpm_core.training.critic import load_critic
from ddpm_core.training.loop import Limits
from ddpm_core.training.objective import Objective
from ddpm_core.training.realism import Realism

CPU = torch.device("cpu")
UNET = {
    "class": "UNet2DModel",
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
}
END = {"checkpoint_every": 0, "validate_every": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures, tiny):
    out = tmp_path_factory.mktemp("finished") / "run"
    run.train(pictures, out, tiny(network=UNET, **END))
    return out / "last"


@pytest.fixture
def critic(finished):
    torch.manual_seed(0)
    return load_critic(finished, read_bundle(finished), CPU)


def squares(count):
    torch.manual_seed(1)
    return F.interpolate(torch.rand(count, 3, 2, 2) * 2 - 1, size=16)


def seen_by(critic, images):
    t, noise = torch.full((len(images),), 100), torch.zeros_like(images)
    return critic.see(images, t, noise)


def test_a_critic_sees_every_scale_of_the_network_s_way_down_and_its_middle(critic):
    assert [tuple(each.shape) for each in seen_by(critic, squares(2))] == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 16, 8, 8)]


def test_to_a_critic_a_picture_is_itself_and_the_farther_the_more_of_it_is_lost(critic):
    images = squares(4)
    true = seen_by(critic, images)
    soft, softer = (F.interpolate(F.avg_pool2d(images, side), size=16) for side in (4, 16))
    assert torch.equal(critic.distance(true, true), torch.zeros(4))
    soft_by, softer_by = (critic.distance(seen_by(critic, each), true) for each in (soft, softer))
    assert (softer_by.mean() > soft_by.mean()).item()


def test_a_critic_learns_to_tell_what_was_made_and_its_network_stays(critic):
    real, made = seen_by(critic, squares(8)), seen_by(critic, F.avg_pool2d(squares(8), 5, 1, 2))
    before = [weight.clone() for weight in critic.network.parameters()]
    losses = [float(critic.learn(made, real)) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert (critic.realism(real) > critic.realism(made)).all()
    assert all(torch.equal(a, b) for a, b in zip(before, critic.network.parameters(), strict=True))


def test_a_critic_looks_through_noise_in_which_fine_detail_is_still_seen(critic):
    sigma = np.exp(critic.log_sigma.numpy())[critic.timesteps(200).numpy()]
    assert 0.15 < sigma.min() < 0.4
    assert 3 < sigma.max() < 4.5


def test_a_critic_sees_what_was_made_and_photographs_moved_alike_within_its_blocks(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "first", tiny(network=UNET, bands=1, **END), Limits(max_steps=1))
    bundle = read_bundle(tmp_path / "first/last")
    critic, images = load_critic(bundle.path, bundle, CPU), squares(2)
    objective = Objective(bundle.schedule, bundle.manifest.prediction_type, bands=bundle.manifest.bands)
    places = {}
    for y in range(critic.block):
        for x in range(critic.block):
            places[images.roll((y, x), (2, 3)).numpy().tobytes()] = (y, x)
    see, shown = critic.see, []
    critic.see = lambda pictures, t, noise: shown.append(pictures.detach().clone()) or see(pictures, t, noise)
    network = bundle.load_network()
    objective.clean = lambda *_: images  # what is made are the photographs themselves
    realism = Realism(
        objective, critic, critic.log_sigma, perceptual=1.0, adversarial=1.0, rollout=0.0, sampler=Sampler.LCM
    )
    for step in range(40):
        realism.loss(network, images, step)
    assert critic.block == 2
    assert all(torch.equal(made, true) for made, true in zip(shown[::2], shown[1::2], strict=True))
    assert {places[each.numpy().tobytes()] for each in shown[1::2]} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(("sampler", "falls"), [(Sampler.DDPM, (2.5, 9)), (Sampler.LCM, (1.2, 2.7))])
@pytest.mark.parametrize("rollout", [0.0, 0.5, 1.0])
def test_a_share_of_a_batch_begins_with_what_the_network_predicts_of_more_noise(
    finished, critic, rollout, sampler, falls
):
    bundle = read_bundle(finished)
    objective, asked = Objective(bundle.schedule, bundle.manifest.prediction_type), []

    def network(x, t):
        asked.append(t)
        return torch.zeros_like(x, requires_grad=True)

    sizes = {"perceptual": 1.0, "adversarial": 1.0}
    realism = Realism(objective, critic, critic.log_sigma, rollout=rollout, sampler=sampler, **sizes)
    assert torch.isfinite(realism.loss(network, squares(8), step=100))
    realism.learn()
    own = round(8 * rollout)
    assert [len(t) for t in asked] == ([own] if own else []) + [8]
    if own:
        before, after = (critic.log_sigma[t].exp() for t in (asked[0], asked[1][8 - own :]))
        assert ((before / after > falls[0]) & (before / after < falls[1])).all()


def test_the_bundle_names_the_critic_and_a_run_with_one_is_resumed_exactly(finished, pictures, tmp_path, tiny):
    recipe = tiny(network=UNET, init=str(finished), critic=str(finished), steps=4)
    run.train(pictures, tmp_path / "once", recipe)
    run.train(pictures, tmp_path / "twice", recipe, Limits(max_steps=2))
    run.resume(tmp_path / "twice")
    start, once, twice = (read_bundle(each) for each in (finished, tmp_path / "once/last", tmp_path / "twice/last"))
    assert once.manifest.provenance["critic"].startswith("model ")
    assert str(finished) not in once.manifest.model_dump_json()
    weights = [bundle.read_weights().values() for bundle in (start, once, twice)]
    assert not all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    for a, b in zip(weights[1], weights[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_a_critic_the_last_step_is_the_best_for_the_loss_says_little_of_pictures(
    finished, pictures, tmp_path, tiny
):
    recipe = tiny(network=UNET, init=str(finished), critic=str(finished), validate_every=1, steps=3)
    run.train(pictures, tmp_path / "run", recipe)
    assert (tmp_path / "run/best").resolve() == (tmp_path / "run/last").resolve()
    assert read_bundle(tmp_path / "run/best").manifest.provenance["steps"] == 3


def test_a_critic_learns_in_16_bits_as_well(finished, pictures, tmp_path, tiny):
    recipe = tiny(network=UNET, init=str(finished), critic=str(finished), precision="bfloat16", **END)
    assert run.train(pictures, tmp_path / "run", recipe, Limits(max_steps=2)).step == 2


def test_pictures_on_bands_have_a_critic_as_well(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "first", tiny(network=UNET, bands=1, **END), Limits(max_steps=1))
    critic = str(tmp_path / "first/last")
    recipe = tiny(network=UNET, bands=1, init=critic, critic=critic, **END)
    assert run.train(pictures, tmp_path / "second", recipe, Limits(max_steps=2)).step == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_size": 8}, "makes pictures of 3 × 16 × 16; it takes 3 × 8 × 8"),
        ({"accumulate": 2}, "accumulate must be 1 with a critic, not 2"),
        ({"patience": 2}, "patience must be 0 with a critic"),
        ({"teacher": "a"}, "must be empty with a teacher"),
        ({"rollout": 1.5}, "rollout must be 0..1, not 1.5"),
        ({"adversarial": -1}, "adversarial must be 0 or more, not -1"),
    ],
)
def test_what_does_not_go_with_a_critic_is_refused_by_name(finished, pictures, tmp_path, tiny, change, why):
    with pytest.raises(InvalidInput) as caught:
        run.train(pictures, tmp_path / "run", tiny(**{"network": UNET, "critic": str(finished), **change}))
    assert why in caught.value.message


def test_a_network_of_another_class_cannot_be_a_critic(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "run", tiny(**END), Limits(max_steps=1))
    with pytest.raises(InvalidInput, match="is of class AttentionUNet; only a UNet2DModel can be one"):
        run.train(pictures, tmp_path / "next", tiny(critic=str(tmp_path / "run/last")))
