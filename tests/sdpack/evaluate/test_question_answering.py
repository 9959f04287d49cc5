from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sdpack.errors import SourceError
from sdpack.evaluate.question_answering import QUESTION, QuestionAnswering, answers_questions
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} :{% endif %}"
)
CAPTIONS = ["a red square", "a blue circle"]
WORDS = " ".join([*CAPTIONS, QUESTION, "yes Yes no No"])


def tokenizer(words: str = WORDS) -> PreTrainedTokenizerFast:
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    pieces = ["<unk>", "<image>", "<pad>", ":"]
    pieces += [piece for piece, _ in splitter.pre_tokenize_str(words)]
    known = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    core.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )


def write(folder: Path, words: str = WORDS) -> LlavaForConditionalGeneration:
    """A tiny random LLaVA with its processor."""
    torch.manual_seed(0)
    texts = tokenizer(words)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    language = LlamaConfig(
        vocab_size=len(texts),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    image_token = texts.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=image_token,
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    model.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    images = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    processor = LlavaProcessor(
        images,
        texts,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llava")
    write(path)
    return path


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)


def test_the_probability_of_yes_is_that_of_the_model_s_next_token(folder: Path) -> None:
    judge = QuestionAnswering(folder)
    found = judge.scores(pictures(), CAPTIONS)
    assert all(0 < each < 1 for each in found)
    assert found[0] != found[1]
    assert np.array_equal(judge.scores(pictures(), CAPTIONS), found)
    assert judge.scores(pictures()[:1], CAPTIONS[1:])[0] != found[0]
    processor, model = judge._loaded
    text = f"<image> {QUESTION.format(CAPTIONS[0])} :"
    inputs = processor(images=[pictures()[0]], text=[text], return_tensors="pt")
    with torch.no_grad():
        chances = torch.softmax(model(**inputs).logits[0, -1].double(), 0)
    yes, no = (
        sum(float(chances[processor.tokenizer.convert_tokens_to_ids(word)]) for word in words)
        for words in (("yes", "Yes"), ("no", "No"))
    )
    assert found[0] == pytest.approx(yes / (yes + no), rel=1e-5)


def test_the_content_depends_on_the_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert QuestionAnswering(folder).content == QuestionAnswering(folder).content
    assert QuestionAnswering(folder).content != QuestionAnswering(tmp_path).content


def test_a_folder_is_told_by_the_class_in_its_config(folder: Path, tmp_path: Path) -> None:
    assert answers_questions(folder)
    assert not answers_questions(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["CLIPModel"]}))
    assert not answers_questions(tmp_path)


def test_a_tokenizer_without_yes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, words=" ".join([*CAPTIONS, "Does this image show"]))
    with pytest.raises(SourceError, match='does not tell "yes" from "no"'):
        QuestionAnswering(tmp_path).scores(pictures(), CAPTIONS)


def test_a_folder_without_a_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(SourceError, match="no vision-language model with its processor"):
        QuestionAnswering(tmp_path).scores(pictures(), CAPTIONS)
