"""From a word on the command line to something that can be evaluated."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.evaluation.predictors.baselines import BASELINES
from g2vlm.evaluation.predictors.endpoint import Endpoint
from g2vlm.evaluation.predictors.interface import Answerer, Reconstructor
from g2vlm.evaluation.predictors.peers import PEERS, PeerModel
from g2vlm.evaluation.predictors.saved import SavedPredictions
from g2vlm.evaluation.predictors.transformers_model import TransformersModel
from g2vlm.evaluation.results import CheckpointIdentity

FORMS = (
    "saved:FOLDER, transformers:NAME, http://HOST/v1 or http://HOST/v1#MODEL, "
    f"one of {', '.join(PEERS)} (with :WEIGHTS after it for others than the published ones), or one of "
    f"{', '.join(BASELINES)}"
)


@dataclass(frozen=True)
class Chosen:
    """A predictor with the name it goes by in results."""

    identity: CheckpointIdentity
    predictor: Reconstructor | Answerer


@dataclass(frozen=True)
class Choice:
    """How a predictor is run."""

    max_new_tokens: int = 160
    device: str = "cpu"
    dtype: str = "auto"


def choose_predictor(text: str, choice: Choice) -> Chosen:
    """Make a predictor from one of `FORMS`.

    Raises:
        InputError: none of the forms, or what it names is not there.
    """
    if text.startswith(("http://", "https://")):
        url, _, model = text.partition("#")
        model = model or "default"
        predictor = Endpoint(url, model, choice.max_new_tokens)
        return Chosen(CheckpointIdentity(model if model != "default" else url, _hash(text)), predictor)
    kind, _, rest = text.partition(":")
    if kind == "saved" and rest:
        folder = Path(rest)
        return Chosen(CheckpointIdentity(folder.name, _digest(folder)), SavedPredictions(folder))
    if kind == "transformers" and rest:
        asked = TransformersModel(rest, choice.max_new_tokens, choice.device, choice.dtype)
        return Chosen(CheckpointIdentity(rest, _hash(text)), asked)
    if kind in PEERS:
        peer = PeerModel(kind, rest or None, choice.device)
        return Chosen(CheckpointIdentity(text, _hash(text)), peer)
    if text in BASELINES:
        return Chosen(CheckpointIdentity(text, _hash(text)), BASELINES[text]())
    raise InputError(f"Expected --predictor to be {FORMS}; got {text!r}.")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(folder: Path) -> str:
    """Of names and sizes of the files: other predictions are another run."""
    if not folder.is_dir():
        raise InputError(f"Expected a folder of predictions, got {folder}, which is none.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"{path.relative_to(folder).as_posix()}:{path.stat().st_size}" for path in files]
    return _hash("\n".join(listed))
