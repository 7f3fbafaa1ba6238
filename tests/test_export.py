"""Exports: each file is read by the library that it is for, gives the same answers, and is whole or not there.

Whole networks are in `test_round_trips.py`, and so are timm and torchvision.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from docs_examples import read_example
from PIL import Image, ImageOps
from tiny_runs import TINY, read_digits, rewrite_meta, save_source, small

import tljax
from tljax.cli import main
from tljax.commands import export
from tljax.config import Optimizer
from tljax.data.decoding import make_square, to_rgb
from tljax.data.preprocessing import CAFFE, OF_VARIANT, TORCH, Preprocessing
from tljax.export import formats, onnx_graph, squares, torch_files
from tljax.export.content import Content
from tljax.export.endings import EXPORT_ENDINGS
from tljax.networks.architectures import NETWORKS, VARIANTS, Architecture, Network
from tljax.networks.resnet import ResNet
from tljax.runs.reference import read_reference, write_reference
from tljax.stages.from_config import run
from tljax.training.calibration import softmax
from tljax.weights.pretrained import load_weights

CLASSES = ("5", "6", "7")
ABOUT = {"fit": "crop"}
PICTURES = 32
# As wide as Keras's and torchvision's, with few blocks.
SLIM = Architecture((2, 1, 1, 1))


def make_content(network: ResNet, side: int = 37, preprocessing: Preprocessing = CAFFE, batch_size: int = 1) -> Content:
    """A network whose running statistics are as after some training, and whose logits vary with the pictures."""
    rng = np.random.default_rng(0)
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    variables = jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.05, x.shape).astype(np.float32) ** 2, variables)
    # The first BatchNorm has seen pictures: what follows is of the size of 1.
    seen = variables["batch_stats"]["conv1"]["bn"]
    seen["var"] = seen["var"] * np.float32(60 * preprocessing.scale / np.mean(preprocessing.std)) ** 2
    content = Content(network, variables, preprocessing, side, CLASSES, 1.7, batch_size, ABOUT)
    logits, head = compute_logits(content, draw_pictures(PICTURES, side)), variables["params"]["head"]
    spread = logits.std(axis=0).max()
    bias = (head["bias"] - logits.mean(axis=0)) / spread
    variables["params"]["head"] = head | {"kernel": head["kernel"] / spread, "bias": bias}
    return content


def answer(content: Content, pictures: np.ndarray) -> np.ndarray:
    """Probabilities by the unfolded network."""
    return softmax(compute_logits(content, pictures), content.temperature)


def compute_logits(content: Content, pictures: np.ndarray) -> np.ndarray:
    x = (pictures[..., ::-1] if content.preprocessing.channels == "bgr" else pictures).astype(np.float32)
    x = (x * content.preprocessing.scale - content.preprocessing.mean) / content.preprocessing.std
    return np.asarray(jax.jit(content.network.apply)(content.variables, x.astype(np.float32)))


def draw_pictures(n: int, side: int = 37) -> np.ndarray:
    """Noise on colours of which each picture has its own."""
    rng = np.random.default_rng(1)
    return (rng.uniform(0, 200, (n, 1, 1, 3)) + rng.uniform(0, 55, (n, side, side, 3))).astype(np.uint8)


SHORT, LONGER = (Architecture((2, 2), 8), (8, 6)), (Architecture((2, 1, 2, 1), 8), ())


@pytest.mark.parametrize(
    ("variant", "architecture", "hidden"),
    [
        *(("v1", *network) for network in ((TINY, ()), SHORT, LONGER)),
        ("v1.5", *LONGER),
        *(pytest.param("v1.5", *network, marks=pytest.mark.long) for network in ((TINY, ()), SHORT)),
    ],
)
def test_any_network_is_an_onnx_graph_for_batches_of_any_size(variant, architecture, hidden):
    network = ResNet(3, VARIANTS[variant], architecture, hidden)
    content = make_content(network, preprocessing=OF_VARIANT[variant])
    model = onnx_graph.build_model(content)
    onnx.checker.check_model(model, full_check=True)
    assert {row.key: row.value for row in model.metadata_props} == ABOUT
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,), (got,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["n", 37, 37, 3])
    assert (got.name, got.type, got.shape) == ("probabilities", "tensor(float)", ["n", 3])
    pictures = draw_pictures(PICTURES)
    expected = answer(content, pictures)
    assert np.ptp(expected, axis=0).max() > 1e-3
    for n in (1, 7, PICTURES):
        (found,) = session.run(None, {"images": pictures[:n]})
        np.testing.assert_allclose(found, expected[:n], atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_openvino_answers_as_onnxruntime(tmp_path, variant):
    openvino = pytest.importorskip("openvino")
    content = make_content(ResNet(3, VARIANTS[variant], SLIM), preprocessing=OF_VARIANT[variant])
    onnx.save(onnx_graph.build_model(content), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pictures = draw_pictures(100)
    expected = answer(content, pictures)
    assert np.ptp(expected, axis=0).max() > 1e-2
    for size in (1, 7, 32):
        batches = [pictures[i : i + size] for i in range(0, 100, size)]
        for run_batch in (lambda x: session.run(None, {"images": x})[0], lambda x: compiled(x)["probabilities"]):
            np.testing.assert_allclose(np.concatenate([run_batch(x) for x in batches]), expected, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of the variants that they are named after, of networks that other programs have."""
    folder = tmp_path_factory.mktemp("runs")
    NETWORKS["slim"] = Network(SLIM, keras_md5="")
    for name, variant in VARIANTS.items():
        made = make_content(ResNet(3, variant, SLIM), preprocessing=OF_VARIANT[name])
        source = save_source(folder / "sources" / name, made.network, made.variables, made.preprocessing)
        settings = {"network": "slim", "variant": name, "optimizer": Optimizer("adam", 1e-6)}
        run(small("fine_tune", pretrained=str(source), **settings), folder / name)
        # So few pictures give no temperature.
        write_reference(folder / name, read_reference(folder / name)._replace(temperature=1.7))
    yield folder
    del NETWORKS["slim"]


def export_to(source: Path, out: Path, *more: str) -> Path:
    out.parent.mkdir(exist_ok=True)
    main(["export", str(source), str(out), *more])
    return out


def test_the_message_and_the_metadata_say_what_was_compared(runs, tmp_path, capsys):
    out = export_to(runs / "v1", tmp_path / "model.onnx")
    said, about = capsys.readouterr().out, onnx.load(out).metadata_props
    about = {row.key: row.value for row in about}
    model = tljax.load(runs / "v1")
    assert f"{runs / 'v1'}: slim (v1), 3 classes, 32 pixels\n" in said and f"\nwritten: {out} (" in said
    assert "MB), and model.onnx.json beside it" in said and "\nits probabilities" in said
    assert "over 8 of the run's own pictures and wide and tall ones made of them, in float32" in said
    assert f"differ from those of {runs / 'v1'} by {about['difference']} at most" in said
    assert float(about["difference"]) <= 1e-5 and about["probabilities"] == "softmax(logits / temperature)"
    assert json.loads(about["class_names"]) == list(CLASSES) and float(about["temperature"]) == model.temperature
    assert about["image_size"] == "32" and about["resize"] == squares.describe_resizing("crop", 32)
    thresholds = json.loads(about["thresholds"])
    assert all(value == model.find_threshold(float(coverage)) for coverage, value in thresholds.items())
    beside = json.loads((tmp_path / "model.onnx.json").read_text())
    assert beside["class_names"] == list(CLASSES) and beside["thresholds"] == thresholds
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.json"}


def test_onnxruntime_answers_as_the_run(runs, tmp_path):
    pictures = read_digits(tmp_path / "d")
    session = onnxruntime.InferenceSession(export_to(runs / "v1.5", tmp_path / "m.onnx"))
    (found,) = session.run(None, {"images": pictures})
    model = tljax.load(runs / "v1.5")
    np.testing.assert_allclose(found, softmax(model(pictures), model.temperature), atol=1e-5)


def test_every_format_has_an_ending():
    assert {form.name: form.ending for form in formats.FORMATS} == EXPORT_ENDINGS


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_keras_loads_it_predicts_the_same_trains_on_and_tljax_reads_that(runs, tmp_path, capsys, ending):
    import keras
    from keras_networks import find_network

    file = export_to(runs / "v1", tmp_path / f"model{ending}")
    model, pictures = tljax.load(runs / "v1"), draw_pictures(12, 32)
    inputs = keras.applications.resnet.preprocess_input(pictures.astype(np.float32))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        build, _ = find_network("2-1-1-1")
        theirs = build(weights=None, classes=3, input_shape=(32, 32, 3))
        theirs.load_weights(file)
        before = theirs.predict(inputs, verbose=0)
        if trained := ending == ".weights.h5":
            theirs.compile("sgd", "sparse_categorical_crossentropy")
            theirs.fit(inputs, np.arange(12) % 3, batch_size=6, verbose=0)
            theirs.save_weights(tmp_path / "on.weights.h5")
            after = theirs.predict(inputs, verbose=0)
    np.testing.assert_allclose(before, softmax(model(pictures), 1.0), atol=1e-5)
    about = json.loads((tmp_path / f"{file.name}.json").read_text())
    assert about["class_names"] == list(CLASSES) and about["probabilities"] == "softmax(logits)"
    assert about["temperature"] == model.temperature != 1
    assert f"those of predict are softmax(logits / {model.temperature:.4g})" in capsys.readouterr().out
    if trained:
        again = _at_side(tljax.load(tmp_path / "on.weights.h5"), 32)
        np.testing.assert_allclose(softmax(again(pictures), 1.0), after, atol=1e-5)
        assert np.abs(after - before).max() > 1e-4


def _at_side(model, side: int):
    return replace(model, image_size=side)


def test_torch_s_file_has_torchvision_s_names_and_is_read_again(runs, tmp_path, capsys):
    file = export_to(runs / "v1.5", tmp_path / "out" / "model.safetensors")
    described = json.loads((file.parent / "config.json").read_text())
    assert described["architecture"] == "slim" and described["num_classes"] == 3
    assert described["label_names"] == list(CLASSES) and described["pretrained_cfg"]["crop_mode"] == "center"
    np.testing.assert_allclose(described["pretrained_cfg"]["mean"], [0.485, 0.456, 0.406])
    differs = described["tljax"]["difference_with_timm"]
    assert differs > 1e-5 and f"with it they differ by {differs:.2g}; docs/export.md" in capsys.readouterr().out
    model, again, pictures = tljax.load(runs / "v1.5"), _at_side(tljax.load(file), 32), draw_pictures(6, 32)
    np.testing.assert_allclose(again(pictures), model(pictures), rtol=1e-5, atol=1e-5)
    # It may be written again, and not where the name of timm's file is taken.
    export_to(runs / "v1.5", file)
    assert f"replaced: {file} (" in capsys.readouterr().out
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        export_to(runs / "v1.5", other / "model.safetensors")
    assert [path.name for path in other.iterdir()] == ["config.json"]


def refit(source: Path, folder: Path, fit: str) -> Path:
    """The run again, of whose pictures `data.fit` made squares."""
    shutil.copytree(source, folder)
    rewrite_meta(folder, lambda meta: meta.update(fit=fit))
    return folder


@pytest.mark.parametrize(
    ("title", "name", "fit"),
    [("onnxruntime", "model.onnx", "pad"), ("Keras", "model.weights.h5", "stretch")],
)
def test_the_examples_of_the_docs_answer_as_predict(runs, tmp_path, capsys, monkeypatch, title, name, fit):
    import keras
    from keras_networks import find_network

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.applications, "ResNet50", find_network("2-1-1-1")[0])
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)).save("photo.png")
    trained = refit(runs / "v1", tmp_path / "run", fit)
    export_to(trained, tmp_path / name)
    capsys.readouterr()
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(read_example(title), {})
    label, probability = capsys.readouterr().out.split()
    model = tljax.load(trained)
    expected = softmax(model("photo.png"), 1.0 if title == "Keras" else model.temperature)[0]
    assert label == model.class_names[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-5)


@pytest.mark.parametrize("fit", squares.RESIZING)
def test_pictures_become_the_run_s_squares_by_the_metadata_and_the_docs(tmp_path, monkeypatch, fit):
    monkeypatch.chdir(tmp_path)
    titles = ["onnxruntime", "Keras", "StableHLO", *(["timm"] if fit in torch_files.CROP_MODES else [])]
    sizes = set()
    for picture in squares.join_squares(draw_pictures(8)):
        sizes.add(to_rgb(picture).size)
        expected = make_square(to_rgb(picture), 37, fit)
        words = squares.describe_resizing(fit, 37)
        np.testing.assert_array_equal(squares.resize_as_said(words, picture), expected)
        picture.save("photo.png", exif=picture.getexif())
        for title in titles:
            starts = "picture = ", "square = ", "images[0] = "
            lines = [line for line in read_example(title).splitlines() if line.startswith(starts)]
            names = {"Image": Image, "ImageOps": ImageOps, "about": {"fit": fit}, "side": 37, "images": {}}
            exec("\n".join(lines), names)
            np.testing.assert_array_equal(names["images"].get(0, names["picture"]), expected)
    assert len(sizes) == 3 and {width > height for width, height in sizes} == {True, False}


def test_timm_s_squares_are_whole_pixels_of_a_picture_that_is_as_high():
    """`test_round_trips.py` compares them with timm's own."""
    (row,) = np.concatenate(draw_pictures(2, 32)[:, None], axis=2)
    assert np.array_equal(torch_files.prepare(Image.fromarray(row[:, :51]), "crop", 32), row[:, 10:42])
    assert np.array_equal(
        torch_files.prepare(Image.fromarray(row[:, :53].swapaxes(0, 1)), "crop", 32), row[:, 10:42].swapaxes(0, 1)
    )
    stretched = Image.fromarray(row).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(torch_files.prepare(Image.fromarray(row), "stretch", 32), stretched)


# What the browser's example needs beside a browser's own: a canvas that has drawn the picture already, and keeps where
# the next ones should be.
BROWSER = """
const fs = require("fs"), ort = require("onnxruntime-web"), drawn = [];
let fit = "crop";
const fetch = async (name) => ({ json: async () => ({ ...JSON.parse(fs.readFileSync(name)), fit }) });
const data = Uint8ClampedArray.from(JSON.parse(fs.readFileSync("rgba.json")));
const drawImage = (image, ...where) => drawn.push(where);
class OffscreenCanvas { getContext() { return { drawImage, getImageData: () => ({ data }) }; } }
"""
CALL = """
(async () => {
  const found = await classify({ width: 32, height: 32 });
  for (fit of ["crop", "pad", "stretch"]) await classify({ width: 64, height: 128 });
  console.log(JSON.stringify([found, drawn]));
})();
"""


def test_the_example_for_a_browser(runs, tmp_path, monkeypatch):
    """It runs in Node.js, where that and onnxruntime-web are installed: NODE_PATH names the folder `node_modules`."""
    has = shutil.which("node") and not subprocess.run(["node", "-e", "require('onnxruntime-web')"]).returncode
    if not has:
        pytest.skip("onnxruntime-web is not installed")
    monkeypatch.chdir(tmp_path)
    export_to(runs / "v1", tmp_path / "model.onnx")
    (picture,) = draw_pictures(1, 32)
    rgba = np.concatenate([picture, np.full((32, 32, 1), 255, np.uint8)], axis=-1)
    Path("rgba.json").write_text(json.dumps(rgba.ravel().tolist()))
    Path("page.js").write_text(f"{BROWSER}\n{read_example('In a browser', 'javascript')}\n{CALL}")
    found, drawn = json.loads(subprocess.run(["node", "page.js"], capture_output=True, check=True, text=True).stdout)
    model = tljax.load(runs / "v1")
    expected = model.predict(picture, top=3)[0].top
    assert [name for name, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-5)
    assert drawn == [[0, 0, 32, 32], [0, -16, 32, 64], [8, 0, 16, 32], [0, 0, 32, 32]]


def test_stablehlo_runs_without_tljax(runs, tmp_path):
    """The example of the docs is at most fifteen lines."""
    export_to(runs / "v1", tmp_path / "model.stablehlo", "--batch-size", "4")
    Image.fromarray(draw_pictures(1, 50)[0, :40]).save(tmp_path / "photo.png")
    example = read_example("StableHLO")
    assert len(example.splitlines()) <= 15
    checks = 'import sys\nassert program.platforms == ("cpu", "cuda", "tpu") and "tljax" not in sys.modules\n'
    more = 'assert images.shape == (4, 32, 32, 3)\nnp.save("found.npy", probabilities)'
    subprocess.run([sys.executable, "-c", f"{example}\n{checks}{more}"], check=True, cwd=tmp_path)
    model = tljax.load(runs / "v1")
    expected = softmax(model(tmp_path / "photo.png"), model.temperature)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy")[:1], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "name", "said"),
    [
        (ResNet(3, VARIANTS["v1.5"], TINY), ".weights.h5", "and Keras has v1 alone"),
        (ResNet(3, VARIANTS["v1"], TINY), ".safetensors", "and torchvision has v1.5 alone"),
        (ResNet(3, VARIANTS["v1"], TINY, (8,)), ".h5", "its head has hidden layers (8,)"),
        (
            ResNet(3, VARIANTS["v1"], TINY.end_before("conv5_block1")),
            ".weights.h5",
            "tiny up to conv4_block1 (v1), which",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(network, name, said):
    assert said in formats.why_not(formats.find_format(f"model{name}", None), network, CAFFE, "crop")


def test_another_input_than_the_library_s_is_refused():
    keras, torch = (formats.find_format(name, None) for name in ("m.h5", "m.safetensors"))
    v1, v1_5 = (ResNet(3, VARIANTS[name], TINY) for name in ("v1", "v1.5"))
    other = {"mean": (0.5, 0.5, 0.5)}
    assert not formats.why_not(keras, v1, CAFFE, "pad") and not formats.why_not(torch, v1_5, TORCH, "stretch")
    assert "and that of Keras is ('bgr', 1.0" in formats.why_not(keras, v1, CAFFE._replace(**other), "crop")
    assert not formats.why_not(torch, v1_5, TORCH._replace(**other), "crop")
    assert "its input is ('rgb', 1.0" in formats.why_not(torch, v1_5, TORCH._replace(scale=1.0), "crop")


def test_a_run_that_pads_is_refused_for_timm_before_anything_is_compiled(runs, tmp_path, monkeypatch, capsys):
    trained = refit(runs / "v1.5", tmp_path / "run", "pad")
    monkeypatch.setattr(export, "make_model", None)
    with pytest.raises(SystemExit):
        export_to(trained, tmp_path / "out" / "model.safetensors")
    said = capsys.readouterr().err
    assert "the run has data.fit=pad, which pads with black, and timm would pad with its mean color; use .onnx" in said
    assert len(said.splitlines()) == 1 and not list((tmp_path / "out").iterdir())


def scale_otherwise(monkeypatch) -> None:
    prepare = onnx_graph._prepare
    monkeypatch.setattr(onnx_graph, "_prepare", lambda graph, prep, x: prepare(graph, prep._replace(scale=1.1), x))


def resize_otherwise(monkeypatch) -> None:
    monkeypatch.setitem(squares.RESIZING, "crop", squares.RESIZING["pad"])


@pytest.mark.parametrize("change", [scale_otherwise, resize_otherwise])
def test_another_answer_leaves_no_file(runs, tmp_path, monkeypatch, capsys, change):
    change(monkeypatch)
    (tmp_path / "model.onnx").write_text("before")
    with pytest.raises(SystemExit):
        export_to(runs / "v1", tmp_path / "model.onnx")
    assert "is not written: its probabilities differ" in capsys.readouterr().err
    assert (tmp_path / "model.onnx").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.pb"], "no format has this ending; the endings are .onnx (onnx), .weights.h5 (keras)"),
        (["model"], "no format has this ending"),
        (["none/model.onnx"], "there is no folder none"),
        (["model.stablehlo", "--batch-size", "0"], "--batch-size 0: a batch has 1 to 1,024 pictures"),
        (["."], "no format has this ending"),
        (["model.onnx", "--format", "keras"], "is that of onnx, not of keras, which is .weights.h5"),
        (["MODEL.ONNX"], "OUT='MODEL.ONNX': no format has this ending"),
        (["model.stablehlo", "--batch-size", "2000"], "a batch has 1 to 1,024 pictures"),
        (["model.h5", "--format", "keras"], "is that of keras-legacy, not of keras, which is .weights.h5"),
        (["model.onnx", "--batch-size", "4"], "--batch-size 4: onnx files take any number of pictures; leave it out"),
    ],
)
def test_what_cannot_be_written_is_one_line(runs, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["export", str(runs / "v1"), *arguments])
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path), "model.onnx"])
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["onnx", "keras"])
def test_a_format_by_name_needs_no_ending(runs, tmp_path, name):
    file = export_to(runs / "v1", tmp_path / "model", "--format", name)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.json"}
    file.rename(named := tmp_path / {"onnx": "model.onnx", "keras": "model.weights.h5"}[name])
    if name == "onnx":
        onnx.checker.check_model(onnx.load(named))
    else:
        assert _at_side(tljax.load(named), 32)(draw_pictures(1, 32)).shape == (1, 3)


def test_only_exports_of_another_run_are_replaced(runs, tmp_path, capsys, monkeypatch):
    """What has the name is a folder, a link, a device, a file of something else or the source itself, or timm's
    description of another file."""
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    Path("text.txt").write_text("text")
    Path("link.onnx").symlink_to("text.txt")
    os.mkfifo("pipe.onnx")
    Path("beside.onnx.json").mkdir()
    file = export_to(runs / "v1.5", Path("model.safetensors"))
    before = file.read_bytes(), Path("config.json").read_bytes(), sorted(tmp_path.iterdir())
    for arguments, said in (
        (["folder.onnx"], "folder.onnx is a folder"),
        (["text.txt", "--format", "onnx"], "text.txt exists, and is no export of this run; delete it first"),
        (["link.onnx"], "link.onnx is no ordinary file"),
        (["pipe.onnx"], "pipe.onnx is no ordinary file"),
        (["beside.onnx"], "beside.onnx.json is no ordinary file"),
        (["other.safetensors"], "timm's config.json goes beside it, where config.json is another one"),
    ):
        with pytest.raises(SystemExit):
            main(["export", str(runs / "v1.5"), *arguments])
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(file), str(file)])
    assert "model.safetensors exists, and is no export of this run" in capsys.readouterr().err
    assert before == (file.read_bytes(), Path("config.json").read_bytes(), sorted(tmp_path.iterdir()))


def test_probabilities_of_0_and_1_do_not_hide_another_network():
    logits = np.random.default_rng(0).normal(0, 15, (8, 3))
    exact = softmax(logits, 1.0)
    assert export.compare_answers(exact.astype(np.float32), logits)[1] < 1e-6
    sure = logits + np.array([100.0, 50.0, 0.0])
    probabilities, logs = export.compare_answers(softmax(1.01 * sure, 1.0).astype(np.float32), sure)
    assert probabilities < export.MOST_DIFFERENCE and logs > export.MOST_LOGS


def test_names_that_are_no_utf_8_are_written_as_their_bytes(runs):
    weights = load_weights(str(runs / "v1"))
    model = replace(tljax.load(runs / "v1"), class_names=("a", "b\udcff", "c"))
    content = export.gather_content(weights, model, formats.find_format("m.onnx", None), 1)
    assert content.class_names == ("a", "b\\udcff", "c") and onnx_graph.build(content)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.onnx", "without onnx and onnxruntime: pip install onnx onnxruntime"),
        ("model.stablehlo", "without flatbuffers: pip install flatbuffers"),
    ],
)
def test_what_is_not_installed_is_said_first(monkeypatch, capsys, name, said):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["export", "no_run", name])
    assert f"{name} cannot be written and checked {said}\n" in capsys.readouterr().err
