"""CSM, cross-modal semantic modelling: a frozen vision-language encoder reads a reference picture with its words.

Part of AnomalyControl-CSM (arXiv 2412.06510): learned queries attend to the tokens of a picture and, through shared
self-attention, to words; what they become says what the picture shows *of what the words name*. `asea.py` moves that
attention onto the damage.

    picture (B,3,H,W) RGB in [-1,1], words  ->  queries (B,Q,D), attention (B,g*g)

There are two. `Blip2CSM` is BLIP-2's first stage through transformers: the paper's. `BuiltinCSM` is ours and needs no
hub: EfficientNet-Lite0's maps as picture tokens, the built-in text encoder for words, and between them a small
Q-Former of the same class (4 layers of width 128), trained contrastively on factory pictures and captions by
`recipes/csm.py`.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin
from flawsmith.nn.features import load_extractor, tensors_fingerprint
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.networks.extractor import scaled
from flawsmith.nn.prompts import spelled
from flawsmith.nn.text import token_numbers
from flawsmith.nn.weights import fresh_layers, load_tensors, save_tensors
from flawsmith.paths import require_files

_BLIP_MEAN, _BLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Phrases(NamedTuple):
    """Embedded phrases, as a CSM's queries meet them."""

    states: Tensor
    """float32 (B,T,D)."""
    mask: Tensor
    """int64 (B,T): 1 where there is a token, 0 where the phrase is over."""

    def rows(self, index: Tensor) -> Phrases:
        """Return some phrases; `index` is int64 (K,)."""
        return Phrases(self.states[index], self.mask[index])


class CSM(nn.Module):
    """What both have in common: queries through a Q-Former, and the attention that they pay to the picture."""

    qformer: Any
    """A transformers Blip2QFormerModel."""
    query: nn.Parameter
    """float32 (1,Q,D)."""
    width: int
    """D."""
    grid: int
    """g: image tokens lie on g x g cells."""
    extra: int
    """Tokens before those of the cells (a class token)."""
    fingerprint: str
    """First 12 hex digits of the SHA-256 of the CSM's own weights."""

    @abstractmethod
    def tokens(self, image: Tensor) -> Tensor:
        """Return the image tokens float32 (B, extra + g*g, V), without gradients."""

    @abstractmethod
    def phrases(self, texts: Sequence[str]) -> Phrases:
        """Return word embeddings and their mask."""

    def query_picture(self, tokens: Tensor, words: Phrases | None) -> tuple[Tensor, Tensor]:
        """Return (queries float32 (B,Q,D), attention float32 (B,g*g)); gradients pass to the tokens.

        Attention is the mean over cross-attention layers, heads and queries, without the class token's share.
        """
        count, length = len(tokens), self.query.shape[1]
        query = self.query.expand(count, -1, -1)
        visible = torch.ones(query.shape[:2], dtype=torch.int64, device=query.device)
        if words is not None:
            query, visible = torch.cat([query, words[0]], 1), torch.cat([visible, words[1]], 1)
        out = self.qformer(
            query_embeds=query,
            query_length=length,
            attention_mask=visible,
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones(tokens.shape[:2], dtype=torch.int64, device=tokens.device),
            output_attentions=True,
        )
        paid = torch.stack([layer.mean((1, 2)) for layer in out.cross_attentions]).mean(0)
        return out.last_hidden_state[:, :length], paid[:, self.extra :]


class BuiltinCSM(CSM):
    """EfficientNet-Lite0's maps, the built-in text encoder, and a Q-Former of ours between them.

    Args:
        text_encoder: A CLIPTextModel.
        tokenizer: Its CLIPTokenizer.
        width: D of queries and image tokens.
        layers: Of the Q-Former; every second one looks at the picture.
        queries: Q.
    """

    mean: Tensor
    std: Tensor
    side = 256
    """Side in pixels to which references are scaled."""
    channels = 496
    """Of the four depths of EfficientNet-Lite0, side by side."""
    grid, extra = 16, 0

    def __init__(
        self, text_encoder: Any, tokenizer: Any, *, width: int = 128, layers: int = 4, queries: int = 16
    ) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        self.width = width
        self.made_of = {"width": width, "layers": layers, "queries": queries}
        spoken = int(text_encoder.config.hidden_size)
        config = Blip2QFormerConfig(
            hidden_size=width,
            encoder_hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            cross_attention_frequency=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            use_qformer_text_input=True,
        )
        config._attn_implementation = "eager"  # the only one that returns its attention
        with fresh_layers():
            self.qformer = Blip2QFormerModel(config)
            self.query = nn.Parameter(torch.randn(1, queries, width) * 0.02)
            self.lift = nn.Linear(self.channels, width)
            self.place = nn.Parameter(torch.randn(1, self.grid**2, width) * 0.02)
            self.level = nn.LayerNorm(width)
            self.hear = nn.Linear(spoken, width)
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("std", torch.ones(self.channels))
        self.text_encoder, self.tokenizer = text_encoder.eval().requires_grad_(False), tokenizer
        self._extractor: Any = None
        self.fingerprint = ""

    @torch.no_grad()
    def cells(self, image: Tensor) -> Tensor:
        """Return float32 (B,g*g,496): the four depths of the extractor, each brought to g x g cells."""
        if self._extractor is None:  # in a tuple, so that its weights do not count among the CSM's own
            self._extractor = (load_extractor("efficientnet-lite0", device=str(self.query.device)),)
        # So it does not move with the CSM either, which may be parked between two calls.
        maps = self._extractor[0].to(image.device).maps(scaled(image, self.side))
        size = (self.grid, self.grid)
        cells = [
            F.adaptive_avg_pool2d(depth, size)
            if depth.shape[-1] >= self.grid
            else F.interpolate(depth, size, mode="bilinear", align_corners=False)
            for depth in maps
        ]
        return torch.cat(cells, 1).flatten(2).transpose(1, 2).clone()

    def lifted(self, cells: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return image tokens float32 (B,g*g,D) of cells, or of those alone that `kept` (int64) names."""
        some = slice(None) if kept is None else kept
        return self.level(self.lift((cells[:, some] - self.mean) / self.std) + self.place[:, some])

    @torch.no_grad()
    def tokens(self, image: Tensor) -> Tensor:
        return self.lifted(self.cells(image))

    def phrases(self, texts: Sequence[str]) -> Phrases:
        states, mask = self.states(texts)
        return Phrases(self.hear(states), mask)

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> Phrases:
        """Return the frozen text encoder's last states (B,T,W), and the mask of what is not padding."""
        ids = token_numbers(self.tokenizer, self.text_encoder, texts).to(self.query.device)
        # The end of text is also what pads, and what stands for an unknown sign: it is the one behind the last word.
        words = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        last = words.where(ids != self.tokenizer.eos_token_id, 0).amax(1, keepdim=True)
        mask = (words <= last + 1).long()
        return Phrases(self.text_encoder(ids).last_hidden_state.float(), mask)

    def save(self, folder: Path) -> None:
        """Write reader.json, model.safetensors (float16), text_encoder/ and tokenizer/."""
        folder.mkdir(parents=True, exist_ok=True)
        own = {k: v.half() for k, v in self.state_dict().items() if not k.startswith("text_encoder.")}
        save_tensors(folder / "model.safetensors", own)
        (folder / "reader.json").write_text(json.dumps(self.made_of) + "\n", encoding="utf-8")
        with quiet():
            copy.deepcopy(self.text_encoder).half().save_pretrained(folder / "text_encoder")
            self.tokenizer.save_pretrained(folder / "tokenizer")

    @classmethod
    def load(cls, folder: Path) -> BuiltinCSM:
        """Read what `save` wrote.

        Raises:
            BackboneError: the folder holds something else.
        """
        from transformers import CLIPTextModel, CLIPTokenizer

        try:
            with quiet():
                text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", local_files_only=True)
                tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
            csm = cls(text_encoder.float(), tokenizer, **json.loads((folder / "reader.json").read_text()))
            tensors, _ = load_tensors(folder / "model.safetensors")
            report = csm.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise BackboneError(f"{folder}: holds no CSM of flawsmith's ({str(error).splitlines()[0]})") from error
        missing = [key for key in report.missing_keys if not key.startswith("text_encoder.")]
        if missing or report.unexpected_keys:
            wrong = (missing or report.unexpected_keys)[0]
            raise BackboneError(f"{folder}/model.safetensors: does not fit this CSM, e.g. {wrong}")
        csm.fingerprint = tensors_fingerprint(csm)
        return csm


class Blip2CSM(CSM):
    """BLIP-2's first stage, as in the paper: EVA-CLIP-g and its Q-Former.

    Args:
        model: A transformers Blip2ForImageTextRetrieval whose Q-Former returns its attention ("eager").
        tokenizer: Its BERT tokenizer.
    """

    extra = 1

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        if not model.config.qformer_config.use_qformer_text_input:
            raise BackboneError(
                "this BLIP-2 takes no words (its qformer_config says use_qformer_text_input = false); "
                "name one for image-text retrieval, e.g. Salesforce/blip2-itm-vit-g"
            )
        self.vision, self.embeddings, self.qformer = model.vision_model, model.embeddings, model.qformer
        self.query, self.tokenizer = model.query_tokens, tokenizer
        vision = model.config.vision_config
        self.width, self.side = int(self.query.shape[-1]), int(vision.image_size)
        self.grid = self.side // int(vision.patch_size)
        self.longest = int(model.config.qformer_config.max_position_embeddings)
        self.register_buffer("mean", torch.tensor(_BLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_BLIP_STD).view(1, 3, 1, 1), persistent=False)
        self.fingerprint = tensors_fingerprint(self.qformer)

    @torch.no_grad()
    def tokens(self, image: Tensor) -> Tensor:
        side = (self.side, self.side)
        small = F.interpolate(image, side, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        normalised = ((small + 1) / 2 - self.mean) / self.std  # type: ignore[operator]
        return self.vision(normalised).last_hidden_state.float()

    def phrases(self, texts: Sequence[str]) -> Phrases:
        coded = self.tokenizer(
            [spelled(self.tokenizer, text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        ).to(self.query.device)
        return Phrases(self.embeddings(input_ids=coded.input_ids), coded.attention_mask.long())


def builtin_folder() -> Path:
    """Return the folder of the CSM that came with the package.

    Raises:
        BackboneError: this installation has none.
    """
    place = builtin.WEIGHTS / "reader"
    if not (place / "model.safetensors").is_file():
        raise BackboneError(f"the built-in CSM is not at {place}; name a BLIP-2 folder in its place")
    return place


@lru_cache(maxsize=4)
def load_csm(source: str = "builtin", *, offline: bool = True, device: str = "cpu") -> CSM:
    """Return a frozen CSM; the same arguments give the same object.

    Args:
        source: "builtin", a folder that `BuiltinCSM.save` or transformers (BLIP-2) wrote, or a hub id of a BLIP-2.
        offline: True: a hub is never asked.
        device: Where it computes, in float32.

    Raises:
        BackboneError: there is no such thing.
    """
    folder = builtin_folder() if source == "builtin" else Path(source)
    require_files(folder)
    if (folder / "reader.json").is_file():
        csm: CSM = BuiltinCSM.load(folder)
    else:
        csm = _blip2(source, offline)
    return csm.float().eval().requires_grad_(False).to(device)


def _blip2(source: str, offline: bool) -> Blip2CSM:
    from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

    plugin: Any = Blip2ForImageTextRetrieval  # its types do not know output_loading_info
    if offline and not Path(source).is_dir():
        raise BackboneError(
            f"CSM {source!r}: no such folder, and asking a hub is off; name a folder of BLIP-2 for image-text "
            'retrieval, "builtin", or set generator.settings.offline = false'
        )
    try:
        with quiet():
            model, report = plugin.from_pretrained(
                source,
                local_files_only=offline,
                attn_implementation="eager",
                output_loading_info=True,
                dtype=torch.float32,  # whatever the file holds
            )
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
    except Exception as error:  # every library below raises its own kind of error for a broken file
        raise BackboneError(f"CSM {source!r}: cannot be loaded ({str(error).splitlines()[0][:200]})") from error
    # A generation model's folder has no words' embeddings; transformers would fill them with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise BackboneError(
            f"CSM {source!r}: {len(missing)} tensors are missing, e.g. {missing[0]}; it must be a BLIP-2 for "
            "image-text retrieval, e.g. Salesforce/blip2-itm-vit-g"
        )
    return Blip2CSM(model, tokenizer)
