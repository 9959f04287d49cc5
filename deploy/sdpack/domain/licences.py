"""Whether a licence restricts commercial use, from its name alone.

The answer helps to read a list of licences; it is not legal advice, and the licence's text decides.
A name that is not in the tables is unknown, and never counts as free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CommercialUse(StrEnum):
    """What a licence says about commercial use; members are in ascending order of restriction."""

    ALLOWED = "allowed"
    CONDITIONS = "with conditions"
    UNKNOWN = "unknown"
    FORBIDDEN = "not allowed"


@dataclass(frozen=True)
class Terms:
    """What is known of a licence.

    Attributes:
        use: whether it allows commercial use.
        words: the same in words, such as "forbids commercial use".
    """

    use: CommercialUse
    words: str


@dataclass(frozen=True)
class LicensedPart:
    """Something that a bundle contains, and its licence.

    Attributes:
        name: what it is, such as "denoiser flux-dev".
        licence: name of its licence, as the catalog states it.
    """

    name: str
    licence: str

    def __str__(self) -> str:
        return f"{self.name} ({self.licence})"

    @property
    def terms(self) -> Terms:
        """What its licence says about commercial use."""
        return terms(self.licence)


UNKNOWN = Terms(CommercialUse.UNKNOWN, "unknown: read it")
_NON_COMMERCIAL = Terms(CommercialUse.FORBIDDEN, "forbids commercial use")

# Names are compared as `_plain` writes them. Words in _FORBIDDEN forbid commercial use wherever
# they stand; the patterns in _NAMES must match the whole name.
_FORBIDDEN = re.compile(
    r"(^|-)(nc|non-?commercial|not-for-commercial|no-commercial|non-production|academic|"
    r"research-(only|use|purposes?)|evaluation-only|qwen-research|apple-amlr|nscl(-?v[12])?|"
    r"nvidia-source-code|deepfloyd-if)(-|$)"
)
_NAMES: tuple[tuple[re.Pattern[str], Terms], ...] = tuple(
    (re.compile(pattern), Terms(use, words))
    for pattern, use, words in (
        (
            r"apache-v?2(-0)?|mit(-0)?|bsd(-[23]-clause)?|isc|zlib|unlicense|0bsd|cc0(-1-0)?|"
            r"cc-by(-[1-4]-[05])?|cdla-permissive-[12]-0|afl-3-0|wtfpl|ms-pl",
            CommercialUse.ALLOWED,
            "allows commercial use",
        ),
        (
            r"(creativeml-|bigscience-)?openrail(-m)?(-1-0)?|bigscience-bloom-rail-1-0",
            CommercialUse.CONDITIONS,
            "allows commercial use, but forbids some uses, and these rules must be passed on",
        ),
        (
            r"cc-by-sa(-[1-4]-[05])?|[la]?gpl(-?v?[1-3](-[01])?)?(-only|-or-later)?|"
            r"(eupl|mpl|osl)(-[1-3]-[0-2])?|faipl-1-0(-sd)?",
            CommercialUse.CONDITIONS,
            "allows commercial use, but changed versions must be passed on under the same terms",
        ),
        (
            r"cc-by-nd(-[1-4]-[05])?",
            CommercialUse.CONDITIONS,
            "allows commercial use, but changed versions must not be passed on, and a quantized "
            "part may be one",
        ),
        (
            r"stability-?ai(-ai)?-community|stability-community",
            CommercialUse.CONDITIONS,
            "allows commercial use up to a yearly revenue",
        ),
        (
            r"llama-?[234](-[1-9])?(-community)?|qwen|tongyi-qianwen|"
            r"playground-v2(dot5|-5)?-community",
            CommercialUse.CONDITIONS,
            "allows commercial use up to a number of users",
        ),
        (
            r"gemma|nvidia-open-model",
            CommercialUse.CONDITIONS,
            "allows commercial use under its maker's rules of use",
        ),
        (
            r"(tencent-)?hunyuan-community",
            CommercialUse.CONDITIONS,
            "allows commercial use in some countries, up to a number of users",
        ),
    )
)
_FILLER = re.compile(r"(^|-)(the|licen[cs]ed?|agreement|version)(?=-|$)")
_REASONS: Mapping[CommercialUse, str] = {
    CommercialUse.FORBIDDEN: "not for commercial use, because of {}",
    CommercialUse.UNKNOWN: "unknown for {}: read it before commercial use",
    CommercialUse.CONDITIONS: "commercial use under conditions for {}",
}


def terms(licence: str) -> Terms:
    """Return what a licence says about commercial use.

    Args:
        licence: its name: an SPDX identifier, the hub's name of it, or the name in words. Of
            several names, joined by "and", "or", "/" or commas, the most restrictive counts.
    """
    words = licence.casefold().replace(", version", " version")
    names = re.split(r"\s(?:and|or)\s|[,;/&]", words)
    found = [_terms_of_one(name) for name in names if name.strip()]
    return max(found, key=lambda each: _rank(each.use), default=UNKNOWN)


def commercial_use(parts: Iterable[LicensedPart]) -> CommercialUse:
    """Return what the most restrictive licence of several parts says."""
    return max((part.terms.use for part in parts), key=_rank, default=CommercialUse.UNKNOWN)


def licence_line(parts: Sequence[LicensedPart]) -> str:
    """Say in one line whether the parts of a bundle may be used commercially, and why not."""
    reasons = [
        sentence.format(", ".join(str(part) for part in those))
        for use, sentence in _REASONS.items()
        if (those := [part for part in parts if part.terms.use is use])
    ]
    if not parts:
        reasons = ["unknown: no part is named"]
    elif not reasons:
        names = ", ".join(dict.fromkeys(part.licence for part in parts))
        reasons = [f"every part allows commercial use ({names})"]
    return f"Licences: {'; '.join(reasons)}."


def licence_figures(parts: Sequence[LicensedPart]) -> dict[str, Any]:
    """Return the licences of a bundle's parts and what they say, as JSON values."""
    return {
        "commercial_use": commercial_use(parts).value,
        "line": licence_line(parts),
        "parts": [
            {
                "part": part.name,
                "licence": part.licence,
                "commercial_use": part.terms.use.value,
                "terms": part.terms.words,
            }
            for part in parts
        ],
    }


def _rank(use: CommercialUse) -> int:
    return list(CommercialUse).index(use)


def _terms_of_one(name: str) -> Terms:
    plain = _plain(name)
    if _FORBIDDEN.search(plain):
        return _NON_COMMERCIAL
    return next((found for pattern, found in _NAMES if pattern.fullmatch(plain)), UNKNOWN)


def _plain(name: str) -> str:
    """Write a name in lower case, with "-" between words and without words such as "licence"."""
    plain = "-".join(re.findall(r"[a-z0-9]+", name.removeprefix("license:")))
    return _FILLER.sub("", plain.replace("open-rail", "openrail")).strip("-")
