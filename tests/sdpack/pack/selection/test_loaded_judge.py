from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sdpack.documents.prompts import CatalogPrompt
from sdpack.documents.quality import JudgeModel, ReaderModel, View
from sdpack.documents.record import SIMILARITY
from sdpack.documents.source import Source
from sdpack.errors import CatalogError, ProfileError, SourceError
from sdpack.evaluate.question_answering import YES_PROBABILITY
from sdpack.evaluate.text_reading import READ_TEXT
from sdpack.pack.selection import loaded_judge
from sdpack.pack.selection.loaded_judge import LoadedJudge, ReadingJudge

from zoo import parts

MIX = cast(Any, None)
PROMPT = CatalogPrompt("a cat")


def folder_of(source: Source) -> Path:
    assert source.path is not None
    return source.path


def loaded(judge: Path, tokenizer: Path | None, *views: View) -> LoadedJudge:
    read = None if tokenizer is None else Source(path=tokenizer)
    model = JudgeModel(source=Source(path=judge), tokenizer=read, views=views, licence="MIT")
    return LoadedJudge(model, folder_of)


def test_a_judge_with_embeddings_is_loaded_with_its_tokenizer() -> None:
    judge = loaded(parts.verify("judge"), parts.verify("tokenizer"))
    assert judge.scorer.metric == SIMILARITY
    assert judge.licence == "MIT"
    assert judge.judges(PROMPT)
    found = judge.panel.embed_texts(["noto, pizza"])
    assert np.linalg.norm(found.numpy()) == pytest.approx(1)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    assert judge.score(images, ["noto, pizza"] * 2).shape == (2,)


def test_scores_depend_on_the_views() -> None:
    judge, tokenizer = parts.verify("judge"), parts.verify("tokenizer")
    plain, viewed = loaded(judge, tokenizer), loaded(judge, tokenizer, View(blur=0.01))
    assert plain.scorer.content(MIX) != viewed.scorer.content(MIX)
    assert plain.scorer.content(MIX) == loaded(judge, tokenizer).scorer.content(MIX)


def test_a_judge_with_embeddings_needs_a_tokenizer() -> None:
    with pytest.raises(CatalogError, match="needs a tokenizer; name it"):
        loaded(parts.verify("judge"), None).scorer.content(MIX)


def test_a_vision_language_model_is_asked(tmp_path: Path) -> None:
    config = {"architectures": ["LlavaForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert loaded(tmp_path, None).scorer.metric == YES_PROBABILITY
    loaded(tmp_path, None).check()


def test_a_reader_judges_prompts_that_ask_for_a_text() -> None:
    sign = CatalogPrompt("a sign that reads OPEN", rendered="OPEN")
    judge = ReadingJudge(ReaderModel(ocr="rapidocr"), [PROMPT, sign])
    assert judge.scorer.metric == READ_TEXT
    assert not judge.scorer.reads_captions
    assert [judge.judges(prompt) for prompt in (PROMPT, sign)] == [False, True]
    assert judge.licence == "Apache-2.0"


def test_judges_are_checked_without_loading_them(tmp_path: Path) -> None:
    loaded(parts.verify("judge"), parts.verify("tokenizer")).check()
    ReadingJudge(ReaderModel(ocr="rapidocr"), []).check()
    with pytest.raises(CatalogError, match="needs a tokenizer"):
        loaded(parts.verify("judge"), None).check()
    config = {"architectures": ["LlavaForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CatalogError, match="takes no views and no tokenizer"):
        loaded(tmp_path, None, View(blur=0.01)).check()
    with pytest.raises(CatalogError, match="takes no views and no tokenizer"):
        loaded(tmp_path, parts.verify("tokenizer")).check()


def test_an_optional_judge_may_be_too_large_for_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = loaded(parts.verify("judge"), parts.verify("tokenizer"))
    optional = LoadedJudge(judge.model.model_copy(update={"optional": True}), folder_of)
    optional.check()
    monkeypatch.setattr(loaded_judge, "memory_bytes", lambda: 60 * 2**20)
    judge.check()
    with pytest.raises(SourceError, match="more than a quarter of this machine's memory"):
        optional.check()
    with pytest.raises(SourceError, match="more than a quarter"):
        optional.score(np.zeros((1, 64, 64, 3), np.uint8), ["a"])


def test_an_optional_judge_that_is_too_large_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source(hub="owner/judge", revision="a" * 40)
    model = JudgeModel(source=source, tokenizer=source, optional=True)
    judge = LoadedJudge(model, lambda _: pytest.fail("it was fetched"))
    monkeypatch.setattr(loaded_judge, "remote_bytes", lambda _: 2**30)
    monkeypatch.setattr(loaded_judge, "memory_bytes", lambda: 2**31)
    with pytest.raises(SourceError, match=r"1\.\d* GiB in fp32, more than a quarter"):
        judge.check()


def test_an_optional_judge_is_left_out_where_the_memory_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown() -> int:
        raise ProfileError("no memory is reported")

    judge = loaded(parts.verify("judge"), parts.verify("tokenizer"))
    monkeypatch.setattr(loaded_judge, "memory_bytes", unknown)
    judge.check()
    with pytest.raises(SourceError, match="no memory is reported"):
        LoadedJudge(judge.model.model_copy(update={"optional": True}), folder_of).check()
