from ddpm_core.training.recipe import Recipe, change
from ddpm_core.training.speed import compare


def test_both_loops_train_the_recipes_network():
    network = {
        "class": "UNet2DModel",
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 8,
    }
    recipe = change(Recipe(), {"network": network, "image_size": 16, "patch": 2, "batch": 4, "precision": "float32"})
    speed = compare(recipe, repeats=1)
    assert speed.ours > 0
    assert speed.plain > 0
    assert speed.ratio == speed.ours / speed.plain
