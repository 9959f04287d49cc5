import pytest
import torch
from transformers import PreTrainedTokenizerFast

from zoo import parts
from zoo.training import text_encoder as text


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return parts.load_tokenizer()


def test_case_and_accents_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    a, b = text.token_ids(tokenizer, ["Noto, Piñata", "noto, pinata"])
    assert torch.equal(a, b)


def test_a_caption_of_a_thousand_words_keeps_its_style(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = text.token_ids(tokenizer, ["fluent 3d, " + "pizza " * 1000])
    assert ids.shape == (1, text.MAX_TOKENS)
    assert tokenizer.decode(ids[0], skip_special_tokens=True).startswith("fluent 3d , pizza")


def test_an_unknown_script_is_one_unknown_token_not_an_error(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert tokenizer.unk_token_id in text.token_ids(tokenizer, ["ቤት"])[0]


def test_last_tokens_mark_where_words_and_text_end(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ends, words = text.last_tokens(tokenizer, ["hatching chick"])
    ids = text.token_ids(tokenizer, ["hatching chick"])[0]
    assert ids[ends[0]] == tokenizer.eos_token_id
    assert ids[ends[0] - 1] != tokenizer.eos_token_id
    assert words[0, 1] == ends[0] - 1
    assert tokenizer.decode(ids[1 : words[0, 0] + 1]) == "hatching"
    assert (words[0, 2:] == 0).all()


def test_wordnet_lines_become_word_and_definition() -> None:
    line = '02121620 05 n 02 true_cat 0 cat 0 000 | feline mammal; "a cat (noun)"'
    assert list(text._synset(line)) == ["true cat", "true cat, feline mammal"]
    assert list(text._synset(line.replace(" 05 ", " 04 ", 1))) == []


def test_word_means_average_each_word_s_pieces() -> None:
    states = torch.tensor([[[9.0], [1.0], [3.0], [5.0], [9.0]]])
    means = text._word_means(states, [[None, 0, 0, 1, None]])
    assert means[0, :3, 0].tolist() == [2.0, 5.0, 0.0]


@pytest.mark.parametrize("size", parts.SIZES)
def test_encoders_place_kin_words_closer_than_strangers(
    size: parts.Size, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = parts.load_text_encoder(size)
    words = ["dog", "puppy", "hammer", "wrench", "apple", "banana"]
    ends, _ = text.last_tokens(tokenizer, words)
    states = text.encode(encoder, text.token_ids(tokenizer, words))[torch.arange(6), ends]
    near = torch.nn.functional.normalize(states - states.mean(0), dim=-1)
    alike = near @ near.T
    alike.fill_diagonal_(-2)
    assert alike.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
