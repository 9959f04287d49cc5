# ZooError
# ├── PackageUnavailableError   a data or teacher package cannot be had or is not the pinned one
# ├── DataError            the data set on disk is damaged or does not fit the code
# ├── WeightsError         a weight file is missing, truncated or not the one that was shipped
# ├── UnknownPromptError          a prompt that cannot be drawn
# └── TrainingError        a training stage cannot start or go on
"""Every error the zoo raises on purpose; each says what was wrong, where, and what to do."""


class ZooError(Exception):
    """Base of all zoo errors: catch this one to catch them all."""


class PackageUnavailableError(ZooError):
    """A package the data set or a teacher comes from cannot be had."""


class DataError(ZooError):
    """The data set on disk is damaged or was made by other code."""


class WeightsError(ZooError):
    """A shipped part is missing, truncated, or has another checksum than recorded."""


class UnknownPromptError(ZooError):
    """A prompt from which no picture can be made."""


class TrainingError(ZooError):
    """A training stage cannot start or go on."""
