# ZooError
# ├── PackageUnavailableError   a data or teacher package cannot be had or is not the pinned one
# ├── DataError            the data set on disk is damaged or does not fit the code
# ├── WeightsError         a weight file is missing, truncated or not the one that was shipped
# ├── UnknownPromptError          a prompt that cannot be drawn
# └── TrainingError        a training stage cannot start or go on
"""The errors that the zoo raises; each message names the problem, its place and the remedy."""


class ZooError(Exception):
    """The base class of all errors of the zoo."""


class PackageUnavailableError(ZooError):
    """A package with the data or a teacher cannot be downloaded or is not installed."""


class DataError(ZooError):
    """The data set on disk is damaged or was made by other code."""


class WeightsError(ZooError):
    """A shipped part is missing, truncated, or does not match its checksum."""


class UnknownPromptError(ZooError):
    """A prompt cannot be used to draw an image."""


class TrainingError(ZooError):
    """A training stage cannot start or continue."""
