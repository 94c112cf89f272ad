"""Every error that wsiseg raises on purpose.

    WsisegError
    |-- InputError             something that was given cannot be used; the message says what to do
    |   |-- SlideError         a slide cannot be opened or read, or has no usable pixel size
    |   |-- RegionError        a region file cannot be read, or holds no area
    |   |-- PointsError        a file of clicked nuclei cannot be read
    |   |-- DataError          a folder of labelled images is not what it should be
    |   |-- ModelError         a checkpoint is missing, damaged or not one of ours
    |   |-- ConfigError        a setting is unknown or outside its range
    |   |-- DeviceError        a device was asked for that is not there
    |   |-- OutputError        an output cannot be written, or its suffix has no exporter
    |   |-- StoreError         a store is damaged, locked or made with other settings
    |   `-- ContractError      a file that QuPath would not read whole
    `-- TaskError              a task of a running job failed; names the tile and the cause

The command line prints the message of a `WsisegError` as one line and exits with status 2.
"""


class WsisegError(Exception):
    """Base of every error raised on purpose; its text is one line for a person to act on."""


class InputError(WsisegError):
    """Something that was given cannot be used."""


class SlideError(InputError):
    """A slide cannot be opened or read, or has no usable pixel size."""


class RegionError(InputError):
    """A region file cannot be read, or holds no area."""


class PointsError(InputError):
    """A file of clicked nuclei cannot be read."""


class DataError(InputError):
    """A folder of labelled images is not what it should be."""


class ModelError(InputError):
    """A checkpoint is missing, damaged or not one of ours."""


class ConfigError(InputError):
    """A setting is unknown or outside its range."""


class DeviceError(InputError):
    """A device was asked for that is not there, or its memory does not hold one tile."""


class OutputError(InputError):
    """An output cannot be written, or its suffix has no exporter."""


class StoreError(InputError):
    """A store is damaged, locked or made with other settings."""


class ContractError(InputError):
    """A file that QuPath would not read whole."""


class TaskError(WsisegError):
    """A task of a running job failed; the text names the tile and the cause."""


def brief(error: BaseException) -> str:
    r"""An error's kind and the first line of what it says.

    >>> brief(ValueError("no such tile\nand more"))
    'ValueError: no such tile'
    """
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
