"""What goes over the wire, in the shapes clients know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sdpack.serve.pictures import Encoding
from sdpack.serve.request_model import RequestModel

MOST = 10_000  # of anything that is counted


def _is_text(text: str) -> str:
    """Refuses halves of characters, which no UTF-8 can say."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise ValueError("not valid Unicode: it has a lone surrogate") from cause
    return text


Text = Annotated[str, AfterValidator(_is_text)]
Guidance = Annotated[float, Field(allow_inf_nan=False, ge=0, le=100)]


class PicturesRequest(RequestModel):
    """What to draw, as OpenAI's images API has it, and what of a diffusion model more."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[Text, Field(min_length=1, description="What to draw.")]
    model: Text | None = Field(None, description="The bundle's name; see /v1/models.")
    n: int | None = Field(1, ge=1, le=MOST, description="Pictures; number i starts from seed + i.")
    size: Text | None = Field(None, description="Width x height in pixels, or auto.")
    output_format: Encoding = Encoding.PNG
    output_compression: int | None = Field(
        None, ge=0, le=100, description="The quality of a lossy format."
    )
    user: Text | None = Field(None, description="Taken and not used.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Default: a random one.")
    steps: int | None = Field(None, ge=1, le=MOST, description="One of /capabilities.")
    guidance_scale: Guidance | None = None
    negative_prompt: Text | None = None


class GenerationRequest(PicturesRequest):
    """As OpenAI's images API has it; what only its own models know is taken and not used."""

    response_format: Literal["b64_json", "url"] = "b64_json"
    quality: Text | None = Field(None, description="Taken and not used.")
    style: Text | None = Field(None, description="Taken and not used.")
    background: Text | None = Field(None, description="Taken and not used.")
    moderation: Text | None = Field(None, description="Taken and not used.")
    stream: Literal[False] | None = Field(None, description="Pictures come when they are whole.")


class PictureData(BaseModel):
    """One picture of an answer."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class Generation(BaseModel):
    """The answer of OpenAI's images API."""

    created: int
    data: list[PictureData]
    output_format: Encoding
    size: str


class ModelData(BaseModel):
    """A model, as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "sdpack"


class ModelList(BaseModel):
    """The models there are."""

    object: Literal["list"] = "list"
    data: list[ModelData]


class ErrorData(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error, as OpenAI's API says it."""

    error: ErrorData


class JobData(BaseModel):
    """How far a job is; pictures once it is done."""

    id: str
    object: Literal["job"] = "job"
    created: int
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(description="0 to 1, over all of its pictures.")
    step: int = Field(description="Of the pictures being drawn.")
    steps: int
    made: int = Field(description="Pictures that are drawn.")
    n: int
    seed: int
    error: ErrorData | None = None
    data: list[PictureData] = []


class WebUiRequest(RequestModel):
    """What AUTOMATIC1111's web UI is asked for; what this server does not know is passed over."""

    model_config = ConfigDict(extra="ignore")

    prompt: Text = ""
    negative_prompt: Text | None = None
    seed: int = Field(-1, ge=-1, le=2**63 - 1)
    steps: int | None = Field(None, ge=1, le=MOST)
    cfg_scale: Guidance | None = None
    width: int | None = Field(None, ge=1, le=MOST)
    height: int | None = Field(None, ge=1, le=MOST)
    batch_size: int = Field(1, ge=1, le=MOST)
    n_iter: int = Field(1, ge=1, le=MOST)
    send_images: bool = True
    save_images: bool = False


class WebUiPictures(BaseModel):
    """Pictures as AUTOMATIC1111's web UI gives them: base64, and JSON in a text."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class WebUiModel(BaseModel):
    """A model, as AUTOMATIC1111's web UI lists it."""

    title: str
    model_name: str
    hash: str
    sha256: str
    filename: str
    config: str | None = None


class WebUiProgress(BaseModel):
    """How far the oldest job under way is."""

    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None = None
    textinfo: str | None = None
