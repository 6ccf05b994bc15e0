"""Resemblance against realism: what is aimed at, what is compared, the rows, the frontier and the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from ddpm_core.curve import CurvePoint, curve
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.face_network import Faces
from ddpm_core.evaluation.likeness.frontier import against_the_origin, copies, frontier
from ddpm_core.evaluation.likeness.judge import Judge
from ddpm_core.evaluation.likeness.material import Target, read_material
from ddpm_core.evaluation.likeness.methods import DEFAULT, parse_methods
from ddpm_core.evaluation.likeness.picture import draw_likeness
from ddpm_core.evaluation.likeness.report import face_table, table, write_report
from ddpm_core.evaluation.likeness.sweep import measure
from ddpm_core.gate import Judgement
from ddpm_core.plan import make_plan

METHODS = "none:2,celebrity:2,pixel:10/50:2,6.2:8:.5:1:1:2"


@pytest.fixture(scope="module")
def material(toy, persons):
    return read_material([persons], persons, toy, num_targets=10)


@pytest.fixture(scope="module")
def judge(toy, material):
    return Judge(toy, material)


@pytest.fixture
def run(toy, material, tmp_path):
    def sweep(methods=METHODS, out=tmp_path / "new" / "likeness.json", **changes):
        settings = {"material": material, "num_images": 2, **changes}
        return measure(toy, settings.pop("material"), parse_methods(methods), out, **settings), out

    return sweep


# what is compared


def test_what_is_compared_unless_said_are_the_modes_and_the_origins_guidance():
    names = [method.name for method in parse_methods(DEFAULT)]
    assert names == ["none", "celebrity", "likeness", "faithful", "pixel:10", "pixel:20", "pixel:50"]


def test_several_numbers_stand_for_a_method_each():
    names = [method.name for method in parse_methods("6.2/10:8/16:.5, likeness:10/18,likeness:10")]
    assert names == ["6.2:8:0.5", "6.2:16:0.5", "10:8:0.5", "10:16:0.5", "likeness:10", "likeness:18"]


def test_what_follows_may_be_said_by_name_and_the_sampler_only_so(toy, aimed):
    (named,) = parse_methods("6.5:8:.5:apart=.7:calls=4:stop=2:chroma=.25")
    (in_order,) = parse_methods("6.5:8:.5:2:.25:4:.7")
    assert str(named.plan(toy.bundle, aimed, 1, 0).table) == str(in_order.plan(toy.bundle, aimed, 1, 0).table)
    names = [method.name for method in parse_methods("likeness:calls=10/18:sampler=ddim/ddpm:resemblance=.60")]
    assert names == [
        f"likeness:calls={calls}:sampler={name}:resemblance=0.6" for calls in (10, 18) for name in ("ddim", "ddpm")
    ]
    (method,) = parse_methods("celebrity:5:sampler=ddim:eta=.3:resemblance=.6")
    how = {"mode": "celebrity", "num_inference_steps": 5, "sampler": "ddim", "eta": 0.3, "resemblance": 0.6}
    plan = make_plan(toy.bundle, aimed.pixels, **how)
    assert str(method.plan(toy.bundle, aimed, 1, 0).table) == str(plan.table)
    assert method.settings(toy.bundle).items() >= how.items() - {("mode", "celebrity")}


def test_a_sampler_that_there_is_not_is_refused_by_the_plan(toy):
    with pytest.raises(InvalidInput, match="sampler must be one of: ddpm, ddim, dpmpp_2m, lcm"):
        parse_methods("likeness:sampler=euler")[0].settings(toy.bundle)


@pytest.fixture
def aimed(drawn):
    return Target("a.png", "0", drawn(1, seed=0)[0], Judgement(has_face=True))


def test_auto_takes_for_each_target_what_the_service_would(toy, aimed):
    (auto, celebrity) = parse_methods("auto,celebrity")
    cup = replace(aimed, judgement=Judgement(has_face=False))
    tables = {target: str(auto.plan(toy.bundle, target, 1, 0).table) for target in (aimed, cup)}
    assert tables == {target: str(celebrity.plan(toy.bundle, target, 1, 0).table) for target in (aimed, cup)}
    assert tables[aimed] != tables[cup]


def test_a_point_is_carried_out_as_it_is_written(toy, aimed):
    (short, long) = parse_methods("6.5:8:.5,6.5:8:.5:2:.25:4:.7")
    assert short.how["point"] == CurvePoint(6.5, 1, 8, 0.5, 1, 9, apart=0.5)
    assert long.how["point"] == CurvePoint(6.5, 2, 8, 0.5, 0.25, 4, apart=0.7)
    plan = long.plan(toy.bundle, aimed, 3, 5)
    assert (plan.seeds, plan.calls, plan.table.weight[0]) == ((5, 6, 7), 4, pytest.approx(0.5, abs=0.01))
    assert set(plan.table.grid) == {8}
    assert set(plan.table.chroma) == {0.25}
    assert set(plan.table.apart) == {0.7}
    sigma = toy.bundle.schedule.sigma_256(32)[plan.table.levels[:-1]]
    assert ((plan.table.weight > 0) == (sigma > 2)).all()


def test_a_mode_is_carried_out_as_the_service_does(toy, aimed):
    (method,) = parse_methods("celebrity")
    plan = make_plan(toy.bundle, aimed.pixels, mode="celebrity")
    assert str(method.plan(toy.bundle, aimed, 1, 0).table) == str(plan.table)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "euler",
        "likeness:x",
        "likeness:10:5",
        "6.2:8",
        "6.2:0:.5",
        "6.2:8:2",
        "6.2:8.5:.5",
        "2:8:1:3",
        "6:8:.5:1:1:9:2",
        "calls=5",
        "likeness:10:calls=5",
        "likeness:grid=5",
        "likeness:calls=",
        "6.2:8:.5:resemblance=.5",
        "likeness:mirror=1",
    ],
)
def test_what_is_no_method_is_refused_with_what_would_be(text):
    with pytest.raises(InvalidInput, match="start:grid:weight") as caught:
        parse_methods(text)
    assert (caught.value.field, caught.value.given) == ("methods", text)


# what is aimed at


def test_targets_are_of_different_persons_and_none_of_them_is_in_the_reference(material):
    def person(name):
        return name.rpartition("_")[0]

    aimed_at = [person(target.name) for target in material.targets]
    assert len(set(aimed_at)) == len(aimed_at) == 10
    known = {person(name) for name in material.reference.names}
    assert len(known) == 30
    assert not known & set(aimed_at)
    assert len(material.reference.names) == 60
    assert 0.01 < material.threshold < 1


def test_more_targets_than_persons_take_second_photographs(toy, persons):
    names = [target.name for target in read_material([persons], persons, toy, num_targets=60).targets]
    assert len({name.rpartition("_")[0] for name in names[:40]}) == 40
    assert len(set(names)) == 60


def test_photographs_are_aligned_as_the_service_does_and_a_missing_face_is_noted(toy, persons, tmp_path):
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()).save(tmp_path / f"{name}.png")
    targets = read_material([tmp_path, persons], persons, toy, num_targets=1).targets
    assert [target.name for target in targets[:3]] == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert [target.face for target in targets] == [True, False, False, True]
    assert [target.aligned for target in targets] == [False, False, False, True]
    assert (targets[0].pixels == toy.aim((tmp_path / "astronaut.png").read_bytes()).pixels).all()


def test_held_back_targets_and_references_are_those_of_the_split(toy, persons):
    everything = read_material([persons], persons, toy, num_targets=5)
    half = read_material([persons], persons, toy, num_targets=5, held_back=0.5)
    assert {target.name for target in half.targets} != {target.name for target in everything.targets}
    assert len(half.reference.names) < len(everything.reference.names)
    assert half.reference.part == "0.5 of it"  # the toy does not say that it held any back
    recipe = {"recipe": {"validation": 0.5}}
    manifest = toy.bundle.manifest.model_copy(update={"provenance": recipe})
    toy = type(toy)(replace(toy.bundle, manifest=manifest), toy.denoiser, toy.finder)
    again = read_material([persons], persons, toy, num_targets=5, held_back=0.5)
    assert again.reference.part == "held back"
    assert again.reference.fingerprint == half.reference.fingerprint


@pytest.mark.parametrize("broken", [b"no image", b""])
def test_a_photograph_that_cannot_be_read_is_named(toy, persons, tmp_path, broken):
    (tmp_path / "me.jpg").write_bytes(broken)
    with pytest.raises(InvalidInput, match=r"me\.jpg in "):
        read_material([tmp_path], persons, toy)


def test_a_folder_without_photographs_is_refused(toy, persons, tmp_path):
    with pytest.raises(InvalidInput, match="There are no images in"):
        read_material([tmp_path], persons, toy)


def test_aligned_faces_smaller_than_the_models_are_refused(toy, drawn, persons, tmp_path):
    Image.fromarray(drawn(1, seed=0, side=16)[0]).save(tmp_path / "small.png")
    (tmp_path / "list.txt").write_text("small.png", encoding="utf-8")
    with pytest.raises(InvalidInput, match="is 16×16, smaller than the model's 32 px"):
        read_material([tmp_path / "list.txt"], persons, toy)


# how it is judged


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_output_that_is_merely_its_target_is_a_copy_and_its_resemblance_does_not_count(judge, material, mirrored):
    images = material.pixels.repeat(2, axis=0)
    figures = judge.measure(np.ascontiguousarray(images[:, :, ::-1]) if mirrored else images)
    assert figures["copies"] == 1
    assert figures["copy_distance"] == pytest.approx(0)
    assert figures["low_pass_16"] is figures["ssim"] is figures["feature_cosine"] is None
    if not mirrored:
        assert figures["low_pass_16_all"] == figures["low_pass_32_all"] == pytest.approx(0)
        assert figures["ssim_all"] == figures["feature_cosine_all"] == pytest.approx(1)
    assert all(target["copies"] == 2 for target in figures["by_target"])


def test_other_persons_photographs_are_real_but_not_alike_and_noise_is_neither(judge, material):
    real = judge.measure(material.reference.pixels[:20])
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    noisy = judge.measure(noise)
    assert real["copies"] == noisy["copies"] == 0
    assert real["copy_distance"] > real["copy_distance_least"] > material.threshold
    assert real["low_pass_16"] > 0.1
    assert noisy["wavelet_precision"] == 0 < real["wavelet_precision"]
    for figure in ("wavelet_kid", "wavelet_frechet", "denoiser_frechet"):
        assert noisy[figure] > 2 * abs(real[figure])


def test_the_more_of_the_target_is_in_an_image_the_more_it_is_alike(judge, material):
    other = material.reference.pixels[:10].astype(float)
    mixed = [(share * material.pixels + (1 - share) * other).round() for share in (0, 0.3, 0.6, 0.9, 1)]
    seen = [judge.measure(images.astype(np.uint8).repeat(2, axis=0)) for images in mixed]
    for name in ("low_pass_16_all", "low_pass_32_all", "copy_distance"):
        values = [figures[name] for figures in seen]
        assert values == sorted(values, reverse=True)
    for name in ("ssim_all", "feature_cosine_all", "copies"):
        values = [figures[name] for figures in seen]
        assert values == sorted(values)
    assert seen[0]["copies"] == 0


def test_targets_without_a_face_are_measured_apart(toy, material):
    targets = (*material.targets, replace(material.targets[0], name="coffee.png", judgement=Judgement(has_face=False)))
    judge = Judge(toy, replace(material, targets=targets))
    strange = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    with_it = judge.measure(np.concatenate([material.pixels.repeat(2, axis=0), strange]))
    without = Judge(toy, material).measure(material.pixels.repeat(2, axis=0))
    assert with_it["by_target"][-1]["target"] == "coffee.png"
    assert with_it["by_target"][-1]["nearest_real"] > 2
    assert {k: v for k, v in with_it.items() if k != "by_target"} == {
        k: v for k, v in without.items() if k != "by_target"
    }


class FaceNetwork:
    """Sees a whole face where a picture is bright, and takes its mean colour for the person."""

    version = "1"

    def __call__(self, pixels):
        mean = pixels.mean((1, 2))
        return Faces(np.where(mean.mean(1) > 10, 2.0, 0.0), np.zeros(len(pixels)), np.pad(mean, ((0, 0), (0, 125))))


def test_a_face_network_tells_whole_faces_and_whose_they_are(toy, material):
    targets = (*material.targets, replace(material.targets[0], name="coffee.png", judgement=Judgement(has_face=False)))
    judge = Judge(toy, replace(material, targets=targets), FaceNetwork())
    others = material.reference.pixels[:20]
    darkened = np.concatenate([others, 0 * others[:2]])
    figures = judge.measure(darkened)
    assert figures["whole_faces"] == 1  # those of the targets that have a face
    assert [target["whole_faces"] for target in figures["by_target"]] == [1] * 10 + [0]
    apart = np.linalg.norm(others.mean((1, 2)) - material.pixels.repeat(2, axis=0).mean((1, 2)), axis=1)
    assert figures["identity_distance"] == pytest.approx(apart.mean())
    copied = np.concatenate([material.pixels.repeat(2, axis=0), 0 * others[:2]])
    assert judge.measure(copied)["identity_distance_all"] == pytest.approx(0)
    assert judge.measure(copied)["identity_distance"] is None  # of a copy it says nothing
    assert "whole_faces" not in Judge(toy, material).measure(others)


# the rows


@pytest.fixture(scope="module")
def rows(toy, material, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured") / "new" / "likeness.json"
    rows = measure(toy, material, parse_methods(METHODS), out, num_images=2)
    assert json.loads(out.read_text(encoding="utf-8"))["rows"] == rows
    return rows


def test_every_row_says_all_that_its_figures_depend_on(rows, toy, material):
    names = ["real", "none:2", "celebrity:2", "pixel:10:2", "pixel:50:2", "6.2:8:0.5:1:1:2"]
    assert [row["method"] for row in rows] == names
    point = rows[-1]
    assert (point["sigma_start"], point["sigma_stop"], point["grid"], point["weight"]) == (6.2, 1, 8, 0.5)
    # A mode's place on the curve may change, and its figures with it.
    middle = curve(rows[2]["resemblance"])
    assert (rows[2]["sigma_start"], rows[2]["grid"]) == (middle.sigma_start, middle.grid)
    assert (rows[3]["mode"], rows[3]["guidance_loss_scale"]) == ("pixel", 10)
    for row in rows[1:]:
        assert row["weights_sha256"] == toy.bundle.manifest.checksums["unet/diffusion_pytorch_model.safetensors"]
        assert (row["targets"], row["targets_fingerprint"]) == (10, material.fingerprint)
        assert (row["images"], row["images_a_target"], row["num_inference_steps"], row["seed"]) == (20, 2, 2, 0)
        assert (row["reference_images"], row["reference_fingerprint"]) == (60, material.reference.fingerprint)
        assert row["copy_threshold"] == material.threshold
        assert len(row["by_target"]) == 10
    assert rows[0]["denoiser_kid"] < min(row["denoiser_kid"] for row in rows[1:])


def test_rows_that_are_there_are_kept_and_only_missing_methods_are_measured(run):
    first, out = run("none:2")
    told = []
    second, _ = run("none:2,celebrity:2", report=lambda what, done, total: told.append(what))
    assert second[:2] == first
    assert set(told) == {"features of real faces", "celebrity:2"}
    told.clear()
    assert run("none:2,celebrity:2", report=lambda *what: told.append(what))[0] == second
    assert told == []
    run("none:2", seed=1)
    assert len(json.loads(out.read_text(encoding="utf-8"))["rows"]) == 5  # two of real faces, one for each seed


def test_rows_without_a_face_network_are_measured_again_with_one_and_not_the_other_way_round(run, tmp_path):
    without, _ = run("none:2")
    with_it, _ = run("none:2", look=FaceNetwork())
    assert all("whole_faces" in row and row["face_network"] == "1" for row in with_it)
    assert run("none:2", look=FaceNetwork())[0] == with_it
    assert run("none:2")[0] == without
    assert [line[0] for line in face_table(with_it)[1]] == ["real", "none:2"]
    assert face_table(without)[1] == []
    write_report(with_it, "a.png", tmp_path / "a.md")
    assert "## By a face network" in (tmp_path / "a.md").read_text(encoding="utf-8")
    write_report(without, "a.png", tmp_path / "a.md")
    assert "## By a face network" not in (tmp_path / "a.md").read_text(encoding="utf-8")


def test_interrupted_it_loses_the_method_under_way_alone(run):
    """The toy fails when it is asked for 16 unguided steps."""
    with pytest.raises(RuntimeError):
        run("celebrity:2,none:16,none:2")
    rows, out = run("celebrity:2,none:2")
    assert len(rows) == len(json.loads(out.read_text(encoding="utf-8"))["rows"]) == 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_images": 1}, "targets"),
        ({"num_images": 17}, "num_images"),
        ({"seed": 2**32 - 19}, "seed"),
        ({"methods": "none:1001"}, "num_inference_steps"),
        ({"methods": "pixel:1001"}, "guidance_loss_scale"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_done(run, tmp_path, changes, field):
    with pytest.raises(InvalidInput) as caught:
        run(**changes)
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


# what is made of the rows


def row(method, alike, kid, share=0.0, **more):
    return {
        "method": method,
        "low_pass_16": alike,
        "low_pass_16_all": alike,
        "denoiser_kid": kid,
        "copies": share,
        "mode": "likeness",
        **more,
    }


def pixel(scale, alike, kid, share=0.0):
    return row(f"pixel:{scale}", alike, kid, share, mode="pixel", guidance_loss_scale=scale)


def test_the_frontier_is_of_what_nothing_beats_in_both_and_of_no_copies():
    rows = [
        {"method": "real", "denoiser_kid": 0.0},
        row("none", 0.4, 3.0),
        row("better", 0.2, 1.0),
        row("worse", 0.3, 2.0),
        row("alike", 0.1, 2.0),
        row("copy", 0.01, 0.5, 0.02),
        row("only copies", None, 0.1, 1.0),
    ]
    assert [row["method"] for row in frontier(rows)] == ["alike", "better"]
    assert [row["method"] for row in rows[1:] if copies(row)] == ["copy", "only copies"]


def test_a_method_is_compared_with_the_origins_at_equal_realism():
    rows = [pixel(20, 0.2, 2.0), pixel(10, 0.3, 4.0)]
    assert against_the_origin(row("half", 0.125, 3.0), rows) == pytest.approx(0.5)
    assert against_the_origin(rows[0], rows) == pytest.approx(1)
    assert against_the_origin(row("more real than any of its", 0.1, 1.0), rows) is None


def test_the_report_has_a_line_a_method_and_the_picture(rows, tmp_path):
    headings, lines = table(rows)
    assert {len(line) for line in lines} == {len(headings)}
    assert [line[0] for line in lines] == [row["method"] for row in rows]
    by_name = dict(zip(headings, lines[2], strict=True))
    assert by_name["low-pass 16"] == f"{rows[2]['low_pass_16']:.3f}"
    assert by_name["nearer"].endswith("/10")
    write_report(rows, "a.png", tmp_path / "new" / "a.md")
    text = (tmp_path / "new" / "a.md").read_text(encoding="utf-8")
    assert "![resemblance against realism](a.png)" in text
    assert text.count("| celebrity:2 |") == 3  # a line of the first table, a column of the two others
    assert text.count("| aligned faces |") == 2
    draw_likeness(rows, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.width > 800
