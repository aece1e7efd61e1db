"""Other methods by the same code: saved predictions, servers, transformers, peers' packages."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.data.samples import SceneSample
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.synthetic import truth_of
from g2vlm.evaluation.geometry import compare
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.choosing import Choice, choose_predictor
from g2vlm.evaluation.predictors.endpoint import Endpoint
from g2vlm.evaluation.predictors.interface import Answerer, Questions, Reconstructor, Views
from g2vlm.evaluation.predictors.own import OwnModel
from g2vlm.evaluation.predictors.peers import PeerModel, prepared
from g2vlm.evaluation.predictors.saved import SavedPredictions, write_prediction
from g2vlm.evaluation.predictors.transformers_model import TransformersModel
from g2vlm.geometry.cameras import unproject
from g2vlm.scene.scene import Scene

RED = Image.new("RGB", (56, 42), (200, 0, 0))


def views_of(sample: SceneSample) -> Views:
    pixels = (sample.images * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return Views("room/7:a", tuple(Image.fromarray(view) for view in pixels), sample.K.double().numpy())


def test_kept_predictions_score_as_they_did(
    sample: SceneSample, as_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    said = Prediction.of_views(as_scene(sample, 2.0).views)
    write_prediction(tmp_path, "room/7:a", said)
    (file,) = tmp_path.rglob("*.npz")
    assert file == tmp_path / "room" / "7_a.npz"
    again = SavedPredictions(tmp_path).reconstruct(views_of(sample))
    assert compare(again, truth_of(sample)) == compare(said, truth_of(sample))
    with pytest.raises(InputError, match="elsewhere"):
        SavedPredictions(tmp_path).reconstruct(Views("elsewhere", (RED,)))
    with pytest.raises(InputError, match="which is none"):
        SavedPredictions(tmp_path / "nowhere")


def test_somebody_elses_depth_may_have_another_size(sample: SceneSample, tmp_path: Path) -> None:
    half = sample.depth[:, ::2, ::2].numpy()
    np.savez(tmp_path / "room.npz", depth=half, T_world_camera=sample.T_world_camera.numpy())
    views = Views("room", views_of(sample).photos)
    scores = compare(SavedPredictions(tmp_path).reconstruct(views), truth_of(sample))
    assert scores.abs_rel is not None
    assert scores.abs_rel < 0.1
    assert scores.accuracy is None, "no intrinsics, no points"
    assert max(scores.rotation_deg) < 0.05
    np.savez(tmp_path / "room.npz", depth=half[:1])
    with pytest.raises(InputError, match="3 photos"):
        SavedPredictions(tmp_path).reconstruct(views)


def test_saved_answers_belong_to_their_scene(tmp_path: Path) -> None:
    lines = [
        {"scene": scene, "question": "Which?", "answer": answer} for scene, answer in (("1", "A"), ("2", "B"))
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    saved = SavedPredictions(tmp_path)
    assert saved.answer(Questions("2", (RED,), ("Which?",))) == ["B"]
    with pytest.raises(InputError, match="scene '3'"):
        saved.answer(Questions("3", (), ("Which?",)))
    (tmp_path / "answers.jsonl").write_text('{"question": "x"}')
    with pytest.raises(InputError, match='"scene"'):
        SavedPredictions(tmp_path).answer(Questions("1", (), ("x",)))


class StandIn(BaseHTTPRequestHandler):
    """A server that speaks enough of OpenAI's protocol, and is busy at first."""

    bodies: ClassVar[list[dict]] = []
    busy = 0
    reply: dict | None = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if StandIn.busy > 0:
            StandIn.busy -= 1
            self.send_error(503)
            return
        if self.path != "/v1/chat/completions":
            self.send_error(404, "no such model")
            return
        StandIn.bodies.append(body | {"key": self.headers.get("Authorization")})
        text = body["messages"][0]["content"][-1]["text"]
        reply = StandIn.reply or {"choices": [{"message": {"content": f"said {text}"}}]}
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(StandIn, "bodies", [])
    monkeypatch.setattr(StandIn, "reply", None)
    made = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/v1"
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_server_is_asked_in_openais_words(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setattr(StandIn, "busy", 1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    chosen = choose_predictor(f"{server}#tiny", Choice(max_new_tokens=7))
    assert isinstance(chosen.predictor, Answerer)
    assert not isinstance(chosen.predictor, Reconstructor)
    assert chosen.identity.name == "tiny"
    answers = chosen.predictor.answer(Questions("s", (RED, RED), ("one", "two", "three")))
    assert answers == ["said one", "said two", "said three"]
    body = StandIn.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 7, 0)
    assert body["key"] == "Bearer secret"
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_server_that_cannot_answer_is_an_error(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Questions("s", (), ("one",))
    with pytest.raises(InputError, match="404"):
        Endpoint(f"{server}/elsewhere").answer(asked)
    monkeypatch.setattr(StandIn, "reply", {"error": "none"})
    with pytest.raises(InputError, match="chat completion"):
        Endpoint(server).answer(asked)
    with pytest.raises(InputError, match="OpenAI-compatible server"):
        Endpoint("http://127.0.0.1:9/v1").answer(asked)


@pytest.fixture(scope="module")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory, random_folder: Path) -> Path:
    """A random image-text model of a kind that needs no torchvision."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("llava")
    tokenizer = AutoTokenizer.from_pretrained(random_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=28, patch_size=14, projection_dim=16),
        text_config=LlamaConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=512),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %} ANSWER:"
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_models_of_transformers_are_asked_through_their_template(tiny_llava: Path) -> None:
    chosen = choose_predictor(f"transformers:{tiny_llava}", Choice(max_new_tokens=4, dtype="float32"))
    model = chosen.predictor
    assert isinstance(model, Answerer)
    first, second = model.answer(Questions("s", (RED, RED), ("How far?", "Which?")))
    assert isinstance(first, str)
    assert isinstance(second, str)
    assert model.answer(Questions("s", (RED, RED), ("How far?",))) == [first]
    assert len(model.answer(Questions("s", (), ("How far?",)))) == 1
    with pytest.raises(InputError, match="image-text model"):
        TransformersModel(str(tiny_llava.parent / "nothing here"))


def test_peers_that_are_not_installed_say_where_they_are_from() -> None:
    for name in ("vggt", "vggt_omega:weights.pt", "pi3", "mapanything", "depth_anything_3"):
        with pytest.raises(InputError, match="https://github"):
            choose_predictor(name, Choice())
    with pytest.raises(InputError, match="vggt, vggt_omega"):
        PeerModel("vgg")


class Perfect(torch.nn.Module):
    """Knows the truth about a sample, in the words of each peer's package."""

    def __init__(self, sample: SceneSample) -> None:
        super().__init__()
        self.sample = sample

    @classmethod
    def from_pretrained(cls, name: str) -> "Perfect":
        return KNOWN[0]

    def resized(self, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        depth = torch.nn.functional.interpolate(self.sample.depth[None], (height, width), mode="nearest")[0]
        factor = width / self.sample.depth.shape[-1]
        K = self.sample.K.clone()
        K[:, :2] *= factor
        K[:, :2, 2] += (factor - 1) / 2
        return depth, K

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = images.shape[-2:]
        depth, K = self.resized(height, width)
        return {
            "pose_enc": torch.zeros(1),
            "depth": depth[None, ..., None],
            "local_points": unproject(depth, K)[None],
            "camera_poses": self.sample.T_world_camera[None],
        }

    def infer(self, views: list[dict], **options: object) -> list[dict[str, torch.Tensor]]:
        assert views[0]["data_norm_type"] == ["dinov2"]
        depth, K = self.resized(*views[0]["img"].shape[-2:])
        points = unproject(depth, K)
        return [
            {
                "camera_poses": self.sample.T_world_camera[i][None],
                "pts3d_cam": points[i][None],
                "intrinsics": K[i][None],
            }
            for i in range(len(views))
        ]

    def inference(self, photos: list[Image.Image]) -> SimpleNamespace:
        depth, K = self.resized(84, 112)
        outward = torch.linalg.inv(self.sample.T_world_camera)[:, :3]
        return SimpleNamespace(depth=depth.numpy(), extrinsics=outward.numpy(), intrinsics=K.numpy())


KNOWN: list[Perfect] = []


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("vggt", {"vggt.models.vggt": "VGGT", "vggt.utils.pose_enc": "pose_encoding_to_extri_intri"}),
        ("pi3", {"pi3.models.pi3": "Pi3"}),
        ("mapanything", {"mapanything.models": "MapAnything"}),
        ("depth_anything_3", {"depth_anything_3.api": "DepthAnything3"}),
    ],
)
def test_what_peers_say_is_read_as_they_mean_it(
    name: str, modules: dict[str, str], sample: SceneSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = Perfect(sample)
    monkeypatch.setattr(sys.modules[__name__], "KNOWN", [perfect])

    def decode(encoding: torch.Tensor, size: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.linalg.inv(sample.T_world_camera)[None, :, :3], perfect.resized(*size)[1][None]

    for path, attribute in modules.items():
        module = ModuleType(path)
        setattr(module, attribute, decode if attribute.startswith("pose") else Perfect)
        monkeypatch.setitem(sys.modules, path, module)
    scores = compare(PeerModel(name).reconstruct(views_of(sample)), truth_of(sample))
    assert scores.abs_rel is not None
    assert scores.abs_rel < 0.03, "nearest neighbours at other sizes"
    assert max(scores.rotation_deg + scores.translation_deg) < 0.05
    assert scores.accuracy is not None
    assert scores.accuracy < 0.02 * scores.diagonal


def test_photos_for_peers_keep_their_aspect() -> None:
    assert prepared([Image.new("RGB", (640, 480)), Image.new("RGB", (640, 480))]).shape == (2, 3, 392, 518)
    assert prepared([Image.new("L", (100, 4000))]).shape[-2] % 14 == 0


def test_other_words_are_refused_with_all_forms() -> None:
    with pytest.raises(InputError, match="saved:FOLDER"):
        choose_predictor("magic", Choice())
    assert isinstance(choose_predictor("nothing", Choice()).predictor, Reconstructor)


def test_our_own_service_is_asked_as_any_other(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the service needs the extra server")
    from small_service import small_model, small_service

    from g2vlm.server.running import serving_in_thread

    model, asked = small_model(tmp_path / "weights"), Questions("s", (RED, RED), ("How far?", "Which?"))
    with serving_in_thread(small_service(model)) as url:
        answers = Endpoint(f"{url}/v1", "small", max_new_tokens=3).answer(asked)
    # Our limit counts the pass that ends the answer, the service's only what it says.
    assert list(answers) == list(OwnModel(model, 4).answer(asked))
