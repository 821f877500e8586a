"""Prompts as embeddings [n t w], from the text encoder with which a diffusion model was trained.

    prompts = read_prompts(Path("prompts.txt"))
    encoder = open_text_encoder("pipeline/", device="cuda", dtype="bfloat16")
    text = encoder.embed(prompts)            # [n 512 w] float32

Wan's convention: at most 512 tokens, and zeros after the last one of the prompt.
"""

import html
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.encoders.component import Part, config_of, part_of
from framelens.models.loading.devices import check_device
from framelens.models.loading.files import files_of
from framelens.models.loading.memory import require_memory
from framelens.records.extras import extra

TOKENS = 512
"""Tokens of a prompt's embeddings, as in the training of Wan's networks."""
KIND = "UMT5EncoderModel"
TOKENIZER_MARKS = ("tokenizer_config.json", "tokenizer.json", "spiece.model")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".parquet")
SHOWN = 60
"""Most characters of a text that a message shows."""


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, each a prompt; ValueError or OSError with one line for anything else."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"prompts file {path} does not exist; give UTF-8 text, one prompt per line"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8, one "
            "prompt per line"
        ) from None
    _refuse_structure(path, text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    if lines == [""]:
        raise ValueError(f"{path} is empty; expected one prompt per line")
    blank = [str(number) for number, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        raise ValueError(f"{path} has blank lines ({', '.join(blank[:10])}); expected one prompt per line")
    return [line.strip() for line in lines]


def _refuse_structure(path: Path, text: str) -> None:
    """Raises ValueError for a table and for JSON, whole or line by line: its lines are not prompts."""
    is_table = path.suffix.lower() in TABLES
    for part in (text, text.lstrip().partition("\n")[0]):
        try:
            is_table |= isinstance(json.loads(part), dict | list)
        except (ValueError, RecursionError):
            continue
    if is_table:
        raise ValueError(f"{path} is a table or JSON, not plain lines; save only the prompts, one per line")


def clean(prompt: str) -> str:
    """The prompt as Wan's pipelines read it: repaired by ftfy if that is installed, entities resolved.

    ftfy replaces curly quotes and wide punctuation, so it changes only prompts that are not ASCII.
    """
    if has_ftfy():
        import ftfy  # pyright: ignore[reportMissingImports]

        prompt = ftfy.fix_text(prompt)
    return " ".join(html.unescape(html.unescape(prompt)).split())


def has_ftfy() -> bool:
    """Whether ftfy is installed."""
    return importlib.util.find_spec("ftfy") is not None


class TextEncoder:
    """A tokenizer and its text encoder."""

    def __init__(self, network: nn.Module, tokenizer: Any, part: Part, device: str, dtype: str):
        self.network, self.tokenizer, self.part = network, tokenizer, part
        self.device, self.dtype = torch.device(device), dtype

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "n t w"]:
        """The embeddings of these prompts, float32 on the CPU, zeros after each one's last token.

        Each prompt is encoded without padding: padding is masked, so it would only cost time.
        """
        embedded = []
        for prompt in prompts:
            tokens = torch.tensor([self._tokens(prompt)[:TOKENS]])
            if tokens.shape[1] == TOKENS:
                tokens[0, -1] = self.tokenizer.eos_token_id
            hidden = self.network(tokens.to(self.device)).last_hidden_state[0].to("cpu", torch.float32)
            embedded.append(nn.functional.pad(hidden, (0, 0, 0, TOKENS - len(hidden))))
        return torch.stack(embedded)

    def notes(self, prompts: Sequence[str], negative: str = "") -> list[str]:
        """Notes for the user about these prompts: text that is cut off, and text that ftfy would repair."""
        found, named = [], {f"prompt {number}": prompt for number, prompt in enumerate(prompts, 1)}
        named["the negative prompt"] = negative
        for name, prompt in named.items():
            tokens = self._tokens(prompt)
            if len(tokens) > TOKENS:
                lost = self.tokenizer.decode(tokens[TOKENS - 1 :], skip_special_tokens=True)
                shown = lost if len(lost) <= SHOWN else f"{lost[:SHOWN]}..."
                found.append(f"{name} has {len(tokens)} tokens, {TOKENS} are kept; cut off: {shown!r}")
        wide = [name for name, prompt in named.items() if not prompt.isascii()]
        if wide and not has_ftfy():
            found.append(
                f"not ASCII: {', '.join(wide[:10])}; Wan's pipelines repair such text with ftfy; "
                "pip install ftfy to do the same"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """The identity of this text encoder as plain values."""
        return {
            "class": type(self.network).__name__,
            "dtype": self.dtype,
            "tokens": TOKENS,
            "ftfy": has_ftfy(),
        } | self.part.describe()

    def _tokens(self, prompt: str) -> list[int]:
        return self.tokenizer(clean(prompt), add_special_tokens=True, verbose=False).input_ids


def find_text_encoder(name: str) -> Part:
    """The folder of that text encoder; its configuration is checked, its weights are not read."""
    part = part_of(name, "text_encoder", "tokenizer")
    if part.path.is_file():
        raise ValueError(f"{part.path} is a file; expected a pipeline, or a folder text_encoder of one")
    config = config_of(part.path)
    kinds = config.get("architectures") or [config.get("_class_name", config.get("model_type"))]
    if KIND not in kinds:
        raise ValueError(f"{part.path} is a {kinds[0]}; supported is {KIND}")
    _tokenizer_folder(part.path)
    return part


def open_text_encoder(name: str, device: str = "cpu", dtype: str = "float32") -> TextEncoder:
    """The text encoder of a pipeline, of its folder text_encoder, or of a hub id.

    Raises ValueError or OSError with one line; if it does not fit the device, before its weights are read.
    """
    check_device(device, dtype)
    part = find_text_encoder(name)
    stored = [file for file in files_of(part.path) if file.suffix == ".safetensors"]
    require_memory(f"the text encoder in {part.path}", stored, device, dtype)
    with extra("families"):
        from transformers import AutoTokenizer, UMT5EncoderModel

    folder = _tokenizer_folder(part.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        opened: Any = UMT5EncoderModel.from_pretrained(
            part.path,
            dtype=getattr(torch, dtype),
            device_map=device,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"cannot read the text encoder in {part.path}: {lines[0]}") from None
    network, found = opened
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        raise ValueError(f"{part.path} is missing {len(missing)} tensors of a {KIND}: {missing[:10]}")
    return TextEncoder(network.eval().requires_grad_(False), tokenizer, part, device, dtype)


def _tokenizer_folder(encoder: Path) -> Path:
    """The tokenizer's folder: beside the text encoder's folder, or that folder itself."""
    places = (encoder.parent / "tokenizer", encoder)
    for place in places:
        if any((place / mark).exists() for mark in TOKENIZER_MARKS):
            return place
    raise FileNotFoundError(f"no tokenizer in {places[0]} or {places[1]}; expected {TOKENIZER_MARKS[0]}")
