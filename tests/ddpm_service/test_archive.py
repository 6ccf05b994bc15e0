"""What `ddpm pack` puts into an archive, and that an archive runs on its own code."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ddpm_service.archive import ArchiveError, pack, read_manifest, read_offers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"name": "cats", "version": "1.2"}))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    return folder


@pytest.fixture
def archive(bundle: Path, tmp_path: Path) -> Path:
    return pack(bundle, tmp_path / "store")


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def test_name_and_version_come_from_the_bundle(archive, tmp_path):
    assert archive == tmp_path / "store" / "cats_1.2.mar"
    assert read_manifest(archive) == {"name": "cats", "version": "1.2"}
    with zipfile.ZipFile(archive) as file:
        manifest = json.loads(file.read("MAR-INF/MANIFEST.json"))["model"]
    assert (manifest["modelName"], manifest["modelVersion"]) == ("cats", "1.2")
    assert {manifest["handler"], manifest["configFile"], manifest["requirementsFile"]} <= set(names(archive))


def test_it_tells_what_its_code_makes_of_the_bundle(bundle, tmp_path):
    offers = {"most_calls": {"unguided": 1000, "guided": [950, 290]}}
    assert read_offers(pack(bundle, tmp_path, offers=offers)) == offers


@pytest.mark.parametrize("told", [None, b"[1]", b"no JSON", b"[" * 10**5])
def test_an_archive_need_not_tell_it(told, tmp_path):
    archive = mar(tmp_path, b"{}")
    if told is not None:
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("offers.json", told)
    assert read_offers(archive) == {}


def mar(tmp_path: Path, description: bytes) -> Path:
    with zipfile.ZipFile(tmp_path / "evil_1.0.mar", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bundle/bundle.json", description)
    return tmp_path / "evil_1.0.mar"


@pytest.mark.parametrize(
    ("description", "why"),
    [(b" " * (65 * 2**20), "unpacks to more than 100 times its size"), (b"[" * 10**6, "recursion")],
    ids=["a bomb", "nested without end"],
)
def test_a_hostile_archive_is_refused_in_words(tmp_path, description, why):
    with pytest.raises(ArchiveError, match=f"is not an archive made by `ddpm pack`: .*{why}"):
        read_manifest(mar(tmp_path, description))


def test_it_holds_weights_handler_and_the_code_that_serving_needs(archive):
    assert {
        "bundle/unet/diffusion_pytorch_model.safetensors",
        "bundle/scheduler/scheduler_config.json",
        "ddpm_core/__init__.py",
        "ddpm_core/faces/__init__.py",
        "ddpm_core/engine.py",
        "ddpm_api/__init__.py",
        "handlers/__init__.py",
        "ddpm_entry.py",
        "model-config.yaml",
        "requirements.txt",
    } <= set(names(archive))


def test_it_holds_no_training_no_tests_and_nothing_compiled(archive):
    unwanted = re.compile(r"core/(training|evaluation|data|importers)/|ddpm_service|tests|__pycache__|\.pyc|(^|/)\.")

    assert [name for name in names(archive) if unwanted.search(name)] == []


def test_the_same_bundle_gives_the_same_bytes(archive, bundle):
    before = archive.read_bytes()

    assert pack(bundle, archive.parent).read_bytes() == before
    assert list(archive.parent.iterdir()) == [archive]


def test_another_model_of_that_name_is_replaced_only_when_told(archive, bundle):
    before = archive.read_bytes()
    description = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(description | {"domain": "cat_face"}))

    with pytest.raises(ArchiveError, match="--replace"):
        pack(bundle, archive.parent)
    assert archive.read_bytes() == before
    assert read_manifest(pack(bundle, archive.parent, replace=True))["domain"] == "cat_face"


def test_every_package_that_its_code_imports_is_required_by_name(archive):
    required = {
        line.split("#")[1].strip() for line in (ROOT / "handlers/requirements.txt").read_text().splitlines()[1:]
    }
    imported = set()
    with zipfile.ZipFile(archive) as file:
        for name in (name for name in file.namelist() if name.endswith(".py")):
            for node in ast.walk(ast.parse(file.read(name))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])

    ours_and_its_host = {"ddpm_core", "ddpm_api", "handlers", "ts"}
    come_with_pydantic = {"pydantic_core", "annotated_types"}
    assert imported - set(sys.stdlib_module_names) - ours_and_its_host - come_with_pydantic <= required


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """The archive as TorchServe unpacks it, with a handler that only tells whose code it got."""
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    (folder / "handlers" / "ddpm_handler.py").write_text(
        "import ddpm_api, ddpm_core, handlers\n"
        "def handle(data, ctx):\n"
        "    return [module.__file__ for module in (ddpm_api, ddpm_core, handlers)]\n"
    )
    return folder


def enter(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Import the entry as a worker does: the archive last on a PYTHONPATH, in the archive's folder."""
    search = os.pathsep.join([*filter(None, [environment.pop("PYTHONPATH", None)]), str(folder)])
    program = "import ddpm_entry, json; print(json.dumps(ddpm_entry.handle([], None)))"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment | {"PYTHONPATH": search},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": str(ROOT)}], ids=["installed", "first on the path"])
def test_its_own_code_wins_over_the_repository(environment, unpacked):
    done = enter(unpacked, **environment)

    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(unpacked) for file in json.loads(done.stdout))


def test_missing_packages_are_named_and_not_as_an_import_error(unpacked):
    with (unpacked / "requirements.txt").open("a") as file:
        file.write("some-thing>=2  # some_thing\nother  # other_thing_\n")

    done = enter(unpacked)

    # TorchServe would hide an ImportError behind one of its own.
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: this archive needs packages that are not installed: pip install 'some-thing>=2' 'other'"
    )


def test_a_package_that_cannot_be_imported_is_named_too(unpacked):
    (unpacked / "handlers" / "ddpm_handler.py").write_text("from ddpm_core import no_such_thing\n")

    done = enter(unpacked)

    assert done.stderr.splitlines()[-1].startswith("RuntimeError: a package of this archive cannot be imported: ")
    assert "no_such_thing" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("part", ["bundle.json", "unet", "scheduler"])
def test_a_folder_that_lacks_a_part_is_no_bundle(part, bundle, tmp_path):
    (bundle / part).rename(tmp_path / "elsewhere")

    with pytest.raises(ArchiveError, match=f"is not a bundle: it has no {part}"):
        pack(bundle, tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"name": "a"}', "version must be"),
        ('{"name": "a", "version": 1.0}', "version must be .*, not 1.0"),
        ('{"name": "../a", "version": "1"}', "name must be .*, not '../a'"),
        ('{"name": "a b", "version": "1"}', "name must be .*, not 'a b'"),
    ],
)
def test_a_bundle_whose_name_or_version_is_unusable_is_refused(text, message, bundle, tmp_path):
    (bundle / "bundle.json").write_text(text)

    with pytest.raises(ArchiveError, match=message):
        pack(bundle, tmp_path / "store")

    assert not (tmp_path / "store").exists()


def test_what_is_not_an_archive_of_ours_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="does not exist"):
        read_manifest(tmp_path / "no.mar")
    (tmp_path / "text.mar").write_text("hello")
    with pytest.raises(ArchiveError, match="not a zip"):
        read_manifest(tmp_path / "text.mar")
    with zipfile.ZipFile(tmp_path / "foreign.mar", "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ArchiveError, match=r"bundle.json"):
        read_manifest(tmp_path / "foreign.mar")


def test_packing_leaves_a_folder_of_the_models_name_alone(bundle, tmp_path, monkeypatch):
    # torch-model-archiver deletes $TMPDIR/<model name>.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "mine").write_text("mine")

    pack(bundle, tmp_path / "store")

    assert (tmp_path / "cats" / "mine").read_text() == "mine"
