"""The bodies of requests and responses, in the shapes that clients know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sdpack.runtime.pictures import Encoding
from sdpack.runtime.pipeline import LARGEST_SEED
from sdpack.serve.limits import MOST_GUIDANCE
from sdpack.serve.request_model import RequestModel, or_say

MOST_COUNT = 10_000  # of anything that is counted
NO_EFFECT = "Accepted for OpenAI's clients; has no effect."
WARNINGS = "Prompts and negative prompts that a text encoder truncates."


def _is_text(text: str) -> str:
    """Rejects lone surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise ValueError("not valid Unicode: it has a lone surrogate") from cause
    return text


PromptText = Annotated[str, AfterValidator(_is_text)]
Guidance = Annotated[float, Field(allow_inf_nan=False, ge=0, le=MOST_GUIDANCE)]


class JobRequest(RequestModel):
    """A request of OpenAI's images API, with further fields for diffusion models."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[PromptText, Field(min_length=1, description="What to draw.")]
    model: PromptText | None = Field(
        None, description="The bundle's name or an alias; see /v1/models."
    )
    n: int | None = Field(
        1, ge=1, le=MOST_COUNT, description="Number of pictures; picture i uses seed + i."
    )
    size: PromptText | None = Field(None, description="Width x height in pixels, or auto.")
    output_format: Encoding = Encoding.PNG
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of jpeg and webp; png takes only 100."
    )
    user: PromptText | None = Field(None, description=NO_EFFECT)
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="Default: random.")
    steps: int | None = Field(
        None, ge=1, le=MOST_COUNT, description="One of the step counts in /capabilities."
    )
    guidance_scale: Guidance | None = None
    negative_prompt: PromptText | None = None


class GenerationRequest(JobRequest):
    """A request of OpenAI's images API, with the fields that only OpenAI's models support.

    Values that ask for a result this server cannot give are rejected. Preferences are accepted;
    their descriptions say that they have no effect.
    """

    response_format: Literal["b64_json", "url"] = "b64_json"
    background: Annotated[
        Literal["auto", "opaque"], or_say("pictures here are opaque; use opaque or auto")
    ] = Field("auto", description="Pictures are opaque; transparent is refused.")
    stream: Annotated[
        Literal[False],
        or_say("streaming is not supported; omit it, or follow a job's steps at /v1/jobs"),
    ] = Field(False, description="Pictures are sent whole; see /v1/jobs for progress.")
    partial_images: Annotated[
        Literal[0], or_say("partial images are not supported; omit it, or use 0")
    ] = Field(0, description="Pictures are sent whole.")
    frame_count: Annotated[None, or_say("animations are not supported; omit it")] = None
    frame_duration_ms: Annotated[None, or_say("animations are not supported; omit it")] = None
    svg: Annotated[None, or_say("vector graphics are not supported; omit it")] = None
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = (
        Field(None, description=f"{NO_EFFECT} Ask for `steps` instead.")
    )
    style: Literal["vivid", "natural"] | None = Field(
        None, description=f"{NO_EFFECT} Describe the style in the prompt."
    )
    complexity: Literal["low", "medium", "high"] | None = Field(None, description=NO_EFFECT)
    moderation: Literal["low", "auto"] | None = Field(
        None, description=f"{NO_EFFECT} Nothing is filtered."
    )
    safety_identifier: PromptText | None = Field(None, description=NO_EFFECT)


class ImageData(BaseModel):
    """One image of a response."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = Field(
        None, description="The part of the prompt that was read, if it was truncated."
    )
    seed: int


class Generation(BaseModel):
    """The response of OpenAI's images API."""

    created: int
    data: list[ImageData]
    output_format: Encoding
    background: Literal["opaque"] = "opaque"
    size: str
    warnings: list[str] = Field([], description=WARNINGS)


class ModelData(BaseModel):
    """A model, in OpenAI's shape."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "sdpack"


class ModelList(BaseModel):
    """All models, in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[ModelData]


class ErrorData(BaseModel):
    """The details of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error, in OpenAI's shape."""

    error: ErrorData


class JobData(BaseModel):
    """The progress of a job, with its images once it is done."""

    id: str
    object: Literal["job"] = "job"
    created: int
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(description="0 to 1, over all pictures of the job.")
    step: int = Field(description="Current step of the pictures being drawn.")
    steps: int
    made: int = Field(description="Number of pictures drawn so far.")
    n: int
    seed: int
    error: ErrorData | None = None
    warnings: list[str] = Field([], description=WARNINGS)
    data: list[ImageData] = []


class WebUiRequest(RequestModel):
    """A request of AUTOMATIC1111's web UI; `webui_settings` checks all other fields."""

    model_config = ConfigDict(extra="allow")

    prompt: PromptText = ""
    negative_prompt: PromptText | None = None
    seed: int = Field(-1, ge=-1, le=LARGEST_SEED)
    steps: int | None = Field(None, ge=1, le=MOST_COUNT)
    cfg_scale: Guidance | None = None
    width: int | None = Field(None, ge=1, le=MOST_COUNT)
    height: int | None = Field(None, ge=1, le=MOST_COUNT)
    batch_size: int = Field(1, ge=1, le=MOST_COUNT)
    n_iter: int = Field(1, ge=1, le=MOST_COUNT)
    send_images: bool = True
    save_images: bool = False


class WebUiImages(BaseModel):
    """Images as AUTOMATIC1111's web UI returns them: in base64, with JSON in a string."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class WebUiModel(BaseModel):
    """A model, in the shape of AUTOMATIC1111's web UI."""

    title: str
    model_name: str
    hash: str
    sha256: str
    filename: str
    config: str | None = None


class WebUiProgress(BaseModel):
    """The progress of the oldest running job."""

    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None = None
    textinfo: str | None = None


class WebUiPngInfoRequest(BaseModel):
    """An image whose file holds the parameters it was made with."""

    image: str = Field(description="A PNG, JPEG or WebP file in base64, or as a data URL.")


class WebUiPngInfo(BaseModel):
    """The texts in an image's file.

    Attributes:
        info: the web UI's text; "" if there is none.
        items: other texts of the file, by their keys.
        parameters: the values in `info`, by the web UI's keys.
    """

    info: str
    items: dict[str, str]
    parameters: dict[str, str]
