"""The bundle: a folder that is whole or not there, verified by its hash, without a pickle in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from prune_lib.errors import BundleError  # noqa: E402
from prune_lib.experts import bundle as bundle_module  # noqa: E402
from prune_lib.experts.bundle import FILES, Bundle, check_vocabulary, strangers  # noqa: E402
from prune_lib.experts.card import overall  # noqa: E402
from prune_lib.experts.fairness import fairness  # noqa: E402
from prune_lib.experts.mixture import Mixture, standardised_log_popularity  # noqa: E402
from prune_lib.experts.models import Gate, make_expert  # noqa: E402
from prune_lib.experts.settings import EXPERTS, TrainSettings  # noqa: E402
from prune_lib.model_store import find_bundle  # noqa: E402
from prune_lib.settings import PruneSettings  # noqa: E402
from prune_lib.tracking import (  # noqa: E402
    RegistryError,
    download_model,
    register_model,
    tracked_run,
)

SETTINGS = TrainSettings(dim=8, max_length=10)
ITEMS = ["b", "a", "7", "d"]
POPULARITY = np.array([4, 3, 2, 1], dtype=np.int64)


def mixture(seed: int) -> Mixture:
    torch.manual_seed(seed)
    experts = [make_expert(kind, POPULARITY, dim=8, max_length=10, dropout=0.0) for kind in EXPERTS]
    return Mixture(experts, Gate(), standardised_log_popularity(POPULARITY)).eval()


def built() -> Bundle:
    return Bundle.build(
        mixtures=[mixture(0), mixture(1)],
        settings=SETTINGS,
        vocabulary=pd.DataFrame({"item": ITEMS, "idx": range(4), "sessions": POPULARITY}),
        metrics={"fold0": {}, "fold1": {}},
        described={"sessions": 5},
    )


@pytest.fixture
def saved(tmp_path):
    return built().save(tmp_path / "experts")


def test_a_round_trip_gives_the_same_models(saved):
    read = Bundle.load(saved.path)
    assert read.hash == saved.hash and read.version == saved.hash[:12]
    assert read.settings == SETTINGS and read.n_items == 4 and read.max_length == 10
    items = torch.tensor([[0, 1, 2, 3]])
    for fold in (0, 1):
        for one, two in zip(mixture(fold)(items), read.mixture(fold)(items), strict=True):
            assert torch.equal(one, two)
    assert read.vocabulary["item"].tolist() == ITEMS


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_registered_model_is_fetched(saved, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = tmp_path / "ws"
    workspace.mkdir()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    client.create_registered_model("experts")
    version = client.create_model_version("experts", source=str(saved.path))
    client.set_registered_model_alias("experts", "champion", version.version)
    for uri in ("models:/experts@champion", "models:/experts/champion", "models:/experts/1"):
        settings = PruneSettings(ratio=0.1, workspace=str(workspace), experts=uri)
        found = find_bundle(settings, "anywhere")
        # The folder that it was fetched into is gone; nobody is told of it.
        assert (found.hash, found.path, found.place) == (saved.hash, None, uri)
    for uri, why in (("models:/experts@nobody", "nobody"), ("models:/experts", "no version and no alias")):
        settings = PruneSettings(ratio=0.1, workspace=str(workspace), experts=uri)
        with pytest.raises(BundleError, match=rf"{uri} cannot be fetched.*{why}"):
            find_bundle(settings, "anywhere")


def test_a_model_of_unity_catalog_is_fetched_by_its_name(tmp_path, monkeypatch):
    """By the place of its files alone the rights to them, which come with the name, would be missing."""
    artifacts = pytest.importorskip("mlflow.artifacts")
    asked = []
    monkeypatch.setattr(artifacts, "download_artifacts", lambda **of: asked.append(of) or str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    assert download_model("main.shop", "models:/main.shop.experts/3", tmp_path) == tmp_path
    assert asked == [
        {"artifact_uri": "models:/main.shop.experts/3", "dst_path": str(tmp_path), "tracking_uri": None}
    ]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_what_is_registered_is_fetched_again(saved, tmp_path, monkeypatch):
    pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = str(tmp_path / "ws")

    def register(alias=None):
        with tracked_run(workspace, "train", "one", {}) as tracker:
            return register_model(workspace, tracker.run_id, saved.path, "experts", alias)

    assert [register(), register("champion")] == ["models:/experts/1", "models:/experts@champion"]
    folder = tmp_path / "fetched"
    folder.mkdir()
    fetched = download_model(workspace, "models:/experts@champion", folder)
    assert Bundle.load(fetched).hash == saved.hash
    about = (fetched / "MLmodel").read_text()
    assert "prune_lib" in about and "signature" in about and "python_function" not in about
    with pytest.raises(RegistryError):
        register_model(workspace, "no-such-run", saved.path, "experts", None)


def test_the_card_says_how_good_and_how_fair(tmp_path):
    rng = np.random.default_rng(0)
    log_p, popularity = -rng.random((500, 3)), rng.integers(1, 5, 500)
    fair = fairness(log_p, np.full((500, 3), -np.log(3)), popularity)
    metrics = {f"log_likelihood_{name}": -2.0 for name in (*EXPERTS, "uniform", "gate")}
    folds = {
        "fold0": {**metrics, "held_out_positions": 300, "fairness": fair},
        "fold1": {**metrics, "log_likelihood_gate": -1.0, "held_out_positions": 100, "fairness": fair},
    }
    described = {"source": "shop.clicks", "sessions": 5_000, "interactions": 9_000, "items": 4}
    made = Bundle({**built().files, "metrics.json": json.dumps(folds).encode()})
    config = {**made.config, "input": described}
    made = Bundle({**made.files, "config.json": json.dumps(config).encode()}).save(tmp_path / "made")
    text = (tmp_path / "made" / "README.md").read_text()
    assert "shop.clicks: 5,000 sessions, 9,000 interactions, 4 items" in text
    assert "| gated mixture | -2.000 | -1.000 | -1.750 |" in text, "by held-out positions"
    assert text.count("| 1–2 | ") == 2 and "adjusted" in text
    assert overall({"fold0": {"held_out_positions": 0}}) == {}
    (tmp_path / "made" / "README.md").unlink()
    assert Bundle.load(tmp_path / "made").hash == made.hash, "a rendering, no part of the bundle"


def test_a_bundle_of_another_version_is_passed_over(tmp_path):
    own = built().save(tmp_path / "ws" / "experts" / "1")
    config = json.loads(own.files["config.json"])
    config["settings"]["from_another_version"] = 1
    config["input"] = {"source": "clicks"}
    other = Bundle({**own.files, "config.json": json.dumps(config).encode()}, tmp_path)
    other.save(tmp_path / "ws" / "experts" / "2")
    settings = PruneSettings(ratio=0.1, workspace=str(tmp_path / "ws"))
    assert find_bundle(settings, "clicks") is None


def of_input(source: str, **settings: object) -> Bundle:
    """A bundle that says what it was trained on."""
    made = built()
    wanted = PruneSettings(ratio=0.1).wanted_training.model_dump(mode="json")
    config = {**made.config, "input": {"source": source}, "settings": {**wanted, **settings}}
    return Bundle({**made.files, "config.json": json.dumps(config).encode()})


def test_an_input_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    settings = PruneSettings(ratio=0.1, workspace=str(tmp_path / "ws"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    for trained, asked, other in (
        (f"{tmp_path}/clicks", "./clicks/", "./here/clicks"),
        ("./clicks", f"file:{tmp_path}/clicks", f"{tmp_path}/here/clicks"),
        ("shop.clicks", "spark_catalog.Shop.Clicks", "shop.click"),
        ("s3a://bucket/clicks", "s3://bucket/clicks/", "s3://other/clicks"),
    ):
        saved = of_input(trained).save(tmp_path / "ws" / "experts" / "20260101T000000000000")
        assert find_bundle(settings, asked).hash == saved.hash, trained
        assert find_bundle(settings, other) is None
    # What was trained in one folder on ./clicks is not of the ./clicks of another.
    of_input(f"{tmp_path}/clicks").save(saved.path)
    monkeypatch.chdir(tmp_path / "here")
    assert find_bundle(settings, "./clicks") is None


def test_a_name_that_somebody_gave_does_not_make_a_bundle_the_newest(tmp_path):
    store = tmp_path / "ws" / "experts"
    settings = PruneSettings(ratio=0.1, workspace=str(tmp_path / "ws"))
    for age, name in ((3, "challenger"), (9, "champion")):
        of_input("shop.clicks").save(store / name)
        os.utime(store / name / "config.json", (age, age))
    assert find_bundle(settings, "shop.clicks").path.name == "champion", "the younger of two that have names"
    for name in ("20260101T000000000000", "20260301T000000000000", "20260201T000000000000"):
        of_input("shop.clicks").save(store / name)
    assert find_bundle(settings, "shop.clicks").path.name == "20260301T000000000000"


def test_only_the_bundle_that_serves_is_read(tmp_path, monkeypatch, caplog):
    store = tmp_path / "ws" / "experts"
    settings = PruneSettings(ratio=0.1, workspace=str(tmp_path / "ws"))
    for k, source in enumerate(("shop.clicks", "shop.views", "shop.carts")):
        of_input(source).save(store / f"2026010{k + 1}T000000000000")
    # What a process that was killed has left of one.
    of_input("shop.clicks").save(store / ".prune-bundle-x")
    (store / ".prune-bundle-x" / "hash").unlink()
    read = []
    load = Bundle.load

    def noted(folder):
        read.append(folder.name)
        return load(folder)

    monkeypatch.setattr(Bundle, "load", noted)
    assert find_bundle(settings, "shop.clicks") is not None
    assert read == ["20260101T000000000000"] and not caplog.text
    caplog.set_level("INFO", "prune_lib")
    longer = PruneSettings(ratio=0.1, workspace=str(tmp_path / "ws"), training={"epochs": 9})
    assert find_bundle(longer, "shop.clicks") is None
    assert "of this input were trained by other settings: epochs 6, not 9" in caplog.text


def test_experts_that_may_not_be_read_are_told_in_a_paragraph(saved, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(BundleError, match="cannot be read: Permission denied.*--experts"):
        Bundle.load(saved.path)


def test_the_same_training_has_the_same_hash():
    assert built().hash == built().hash


@pytest.mark.parametrize("name", FILES)
def test_damage_is_found(saved, name):
    file = saved.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match="damaged.*train"):
        Bundle.load(saved.path)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="not a bundle.*config.json"):
        Bundle.load(tmp_path)


def test_another_format(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "FORMAT", 99)
    newer = built()
    monkeypatch.undo()
    with pytest.raises(BundleError, match="format 99"):
        Bundle.load(newer.save(tmp_path / "newer").path)


def test_no_file_is_a_pickle(saved):
    for file in saved.path.iterdir():
        content = file.read_bytes()
        assert not content.startswith((b"\x80", b"PK")), file.name  # pickle, zip of torch.save
    assert sorted(file.name for file in saved.path.iterdir()) == sorted([*FILES, "hash", "README.md"])


def test_saving_replaces_and_leaves_nothing_beside(saved):
    again = built().save(saved.path)
    assert Bundle.load(saved.path).hash == again.hash
    assert [file.name for file in saved.path.parent.iterdir()] == ["experts"]


def test_a_folder_is_as_wide_as_the_umask_says(tmp_path):
    former = os.umask(0o077)
    try:
        saved = built().save(tmp_path / "experts")
    finally:
        os.umask(former)
    assert saved.path.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_save_left_goes_after_days(tmp_path):
    left = {name: tmp_path / f".prune-bundle-{name}" for name in ("old", "new", "strange")}
    for name, folder in left.items():
        folder.mkdir()
        (folder / "config.json").write_text("{")
        if name == "strange":
            (folder / "thesis.tex").write_text("precious")
        if name != "new":
            os.utime(folder, (1, 1))
    built().save(tmp_path / "experts")
    assert [name for name, folder in left.items() if folder.exists()] == ["new", "strange"]
    assert (left["strange"] / "thesis.tex").exists()


def test_what_is_beside_a_bundles_files_is_never_removed(saved):
    assert strangers(saved.path) == [] == strangers(saved.path / "absent")
    (saved.path / "thesis.tex").write_text("precious")
    assert strangers(saved.path) == ["thesis.tex"]
    built().save(saved.path)
    assert [file.read_text() for file in saved.path.parent.rglob("thesis.tex")] == ["precious"]
    for file in FILES:
        (saved.path / file).unlink()
    assert strangers(saved.path) == ["README.md", "hash"]


def test_a_save_that_fails_at_its_end_puts_the_former_bundle_back(saved, monkeypatch):
    rename = Path.rename

    def fail(self, target):
        if Path(target) == saved.path and not self.name.startswith(".prune-former"):
            raise OSError("stale file handle")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="stale"):
        built().save(saved.path)
    assert Bundle.load(saved.path).hash == saved.hash


def test_an_interrupted_save_leaves_the_former_bundle(saved, monkeypatch):
    def fail(self, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        built().save(saved.path)
    monkeypatch.undo()
    assert Bundle.load(saved.path).hash == saved.hash
    assert [file.name for file in saved.path.parent.iterdir()] == ["experts"]


def test_item_index(saved):
    found = saved.item_index(["a", "7", "zz", "b"])
    assert found.dtype == np.int32 and found.tolist() == [1, 2, -1, 0]
    assert saved.item_index(np.array([7, 8])).tolist() == [2, -1]  # integer ids, as strings


def test_another_vocabulary_is_refused(saved):
    known = check_vocabulary(saved, ["a", "b", "new"], np.array([60, 38, 2]))
    assert known.tolist() == [1, 0, -1]
    with pytest.raises(BundleError, match=r"another vocabulary.*'x'.*50\.0%.*5%"):
        check_vocabulary(saved, ["a", "x"], np.array([10, 10]))


def test_the_configuration_reads_as_json(saved):
    config = json.loads((saved.path / "config.json").read_text())
    assert config["experts"] == list(EXPERTS) and config["input"] == {"sessions": 5}


def test_the_experts_of_every_epoch_are_a_part_of_the_bundle(tmp_path):
    plain = built()
    with pytest.raises(BundleError, match="experts of every epoch.*--training-snapshots"):
        plain.snapshots(0)
    name = "snapshots-fold1.safetensors"
    made = Bundle({**plain.files, name: b"weights"})
    assert made.hash != plain.hash
    saved = made.save(tmp_path / "made")
    assert Bundle.load(saved.path).hash == made.hash and Bundle.load(saved.path).snapshots(1) == b"weights"
    (tmp_path / "made" / name).write_bytes(b"others")
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(tmp_path / "made")
    (tmp_path / "made" / name).unlink()
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(tmp_path / "made")
