"""The stages of a run, in the order in which they depend on each other."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.training.decoder_stage import DecoderStage
from zoo.training.denoiser_stage import DenoiserStage
from zoo.training.judge_stage import JudgeStage
from zoo.training.run import TrainingRun
from zoo.training.second_judge_stage import SecondJudgeStage
from zoo.training.text_stage import TextStage


@dataclass(frozen=True)
class Stages:
    """All stages of one run."""

    run: TrainingRun
    text: TextStage
    decoders: DecoderStage
    denoisers: DenoiserStage
    judge: JudgeStage
    second_judge: SecondJudgeStage

    @classmethod
    def of(cls, run: TrainingRun) -> Stages:
        """Return the stages of a run, before any training."""
        recipe = run.recipe
        text = TextStage(run, recipe.text, recipe.wordnet_share)
        decoders = DecoderStage(run, recipe.vae, recipe.tiny)
        denoisers = DenoiserStage(run, recipe.denoiser, text, decoders)
        judge = JudgeStage(run, recipe.judge, text)
        second_judge = SecondJudgeStage(run, recipe.second_judge, text)
        return cls(run, text, decoders, denoisers, judge, second_judge)
