"""Every error Ratchet raises on purpose, as one tree.

    RatchetError                     one clear sentence: what, where, expected, what to do
    ├── ConfigError                  params.yaml, environment, command-line arguments
    │   ├── UnknownKey               a key params.yaml does not know ("did you mean …")
    │   ├── UnknownAgent             no such entry under `agents:`
    │   └── MissingDependency        an optional package or program is not installed
    ├── DataError                    bars, actions, datasets
    │   ├── UnknownSymbol            the source has no such symbol
    │   ├── SourceUnavailable        the vendor did not answer (worth a retry)
    │   ├── BadBars                  the delivered bars cannot be read as bars
    │   ├── ValidationFailed         the gate refused a dataset; the last good one stays
    │   ├── StaleBar                 the newest bar is older than it must be
    │   ├── NotEnoughData            fewer rows than the request needs
    │   └── FutureLeak               something knows what comes after its own bar
    ├── StorageError                 files and databases of Ratchet's own
    │   ├── CorruptFile              a file does not read, or does not match its hash
    │   ├── DiskFull                 nothing was written; what was there is untouched
    │   └── SchemaMismatch           the database belongs to a newer Ratchet
    ├── TrainingError                a study, a trial or a learner failed
    ├── RegistryError                versions, aliases, bundles
    │   ├── BadBundle                a bundle is incomplete, altered or not loadable
    │   ├── SpecMismatch             the bundle expects other features than this code builds
    │   ├── UnknownVersion           no such version, alias or history
    │   └── PromotionRefused         the gate said no and nobody overrode it
    ├── ServiceUnavailable           MLflow, Prefect or a database does not answer
    └── ExecutionError               orders, brokers, the worker
        ├── BrokerError              the broker refused or vanished
        │   └── BrokerUnavailable    no link or no answer: ask before anything is sent again
        └── NotAllowed               a safety rule forbids this (live trading without consent …)
            └── Fenced               another process trades this account now

A message names a value: ``StaleBar("AAPL: newest bar is 2026-03-02, expected 2026-03-03;
refusing to trade")``. Foreign exceptions are renamed at the edge where they enter, with
``raise … from``. The command line prints the message and exits with ``exit_code``.
"""


class RatchetError(Exception):
    """Anything a user can understand and act on; shown without a traceback."""

    exit_code = 1


class ConfigError(RatchetError):
    """Something the user wrote or set is wrong."""

    exit_code = 2


class UnknownKey(ConfigError):
    """A key that params.yaml does not know."""


class UnknownAgent(ConfigError):
    """No such entry under ``agents:`` in params.yaml."""


class MissingDependency(ConfigError):
    """An optional package or program is not installed."""


class DataError(RatchetError):
    """Bars, corporate actions or datasets are not what they must be."""

    exit_code = 3


class UnknownSymbol(DataError):
    """The source has no such symbol."""


class SourceUnavailable(DataError):
    """The vendor did not answer, or asked to wait."""


class BadBars(DataError):
    """What was delivered cannot be read as bars."""


class ValidationFailed(DataError):
    """The validation gate refused a dataset; the last good one stays in place."""


class StaleBar(DataError):
    """The newest bar is older than it must be."""


class NotEnoughData(DataError):
    """Fewer rows than the request needs."""


class FutureLeak(DataError):
    """Something knows at its bar what happens only after it."""


class StorageError(RatchetError):
    """A file or database of Ratchet's own cannot be read or written."""

    exit_code = 4


class CorruptFile(StorageError):
    """A file does not read, or does not match its hash."""


class DiskFull(StorageError):
    """No space left; nothing was half-written."""


class SchemaMismatch(StorageError):
    """The database was written by a newer Ratchet."""


class TrainingError(RatchetError):
    """A study, a trial or a learner failed."""

    exit_code = 5


class RegistryError(RatchetError):
    """Versions, aliases and bundles."""

    exit_code = 6


class BadBundle(RegistryError):
    """A bundle is incomplete, altered or not loadable."""


class SpecMismatch(RegistryError):
    """A bundle expects other features than this code builds."""


class UnknownVersion(RegistryError):
    """No such version, alias or history."""


class PromotionRefused(RegistryError):
    """The gate said no and nobody overrode it."""


class ServiceUnavailable(RatchetError):
    """MLflow, Prefect or a database does not answer."""

    exit_code = 7


class ExecutionError(RatchetError):
    """Orders, brokers and the worker."""

    exit_code = 8


class BrokerError(ExecutionError):
    """The broker refused or vanished."""


class BrokerUnavailable(BrokerError):
    """No link, or no answer in time: whether an order arrived must be asked, not guessed."""


class NotAllowed(ExecutionError):
    """A safety rule forbids this."""


class Fenced(NotAllowed):
    """A newer epoch of the lease has begun: this process must order and write nothing more."""
