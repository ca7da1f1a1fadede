"""What can go wrong, without HTTP (:mod:`service.problems` has the status of each).

WinnowError
├── RequestError
│   ├── MalformedRequest      the body cannot be read as a form
│   ├── TooManyFiles          more than one file
│   ├── MissingField          a field that must be there is not
│   ├── InvalidField          a field's value is outside what it may be, or the field is unknown
│   ├── NotMultipart          the body is something else than a form
│   ├── NotAcceptable         no format fits the Accept header
│   ├── Unauthorized          no key, or one that is not known
│   ├── RequestStalled        the head or the body does not come on
│   ├── HeadTooLarge          more header lines, or bytes of them, than allowed
│   ├── UploadTooLarge        more bytes than allowed
│   ├── JobNotFound           no such job, or somebody else's
│   ├── JobGone               the job was canceled, or its results have expired or been deleted
│   ├── IdempotencyMismatch   the same key came with something else before
│   └── RangeNotSatisfiable   the range begins beyond the end
├── AudioError
│   ├── UnsupportedAudio      not audio, or of a kind that is not read here
│   ├── EmptyAudio            no bytes, or no samples
│   ├── TruncatedAudio        the file ends before its header says
│   ├── CorruptAudio          the decoder gave up half way
│   ├── NotFinite             a sample is NaN or infinite
│   ├── RateOutOfRange        sample rate below or above what the model takes
│   ├── TooManyChannels
│   ├── AudioTooLong          more seconds, or more decoded bytes, than allowed
│   └── TooLongToWait         more work than fits before the deadline, even with nobody else inside
├── CapacityError
│   ├── Busy                  as many requests wait as may
│   ├── QuotaExceeded         this caller has had its share; others are served
│   ├── Draining              the service is about to stop
│   ├── NotReady              the model is still loading
│   ├── EngineStuck           the engine will not answer again; the process has to be replaced
│   ├── StorageFull           no room for the request's temporary files
│   ├── JobUnfinished         the job has not ended yet
│   ├── JobsUnavailable       the place where jobs are kept does not answer
│   └── DeadlinePassed        not done in the time the caller gave
├── ModelError                the model's answer is not a sound
├── JobLost                   the replicas that worked on the job were lost, one after the other
├── ChildError                a process that works for this one was lost
└── StartError                the service cannot start as configured
"""

from __future__ import annotations


class WinnowError(Exception):
    """Base of everything raised on purpose.

    Attributes:
        detail: one sentence for a person, with the limit where there is one; never the caller's own input.
        field: the form field at fault, if one is.
        limit: the bound that was passed, in the unit the detail names, or the accepted values.
    """

    def __init__(self, detail: str, *, field: str | None = None, limit: float | str | list[str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.limit = limit


class RequestError(WinnowError):
    """The request itself is wrong."""


class MalformedRequest(RequestError):
    """The body cannot be read as a form."""


class TooManyFiles(RequestError):
    """More than one file."""


class MissingField(RequestError):
    """A field that must be there is not."""


class InvalidField(RequestError):
    """A field's value is outside what it may be, or the field is unknown."""


class NotMultipart(RequestError):
    """The body is something else than a form with files."""


class NotAcceptable(RequestError):
    """No format fits the Accept header."""


class Unauthorized(RequestError):
    """No key, or one that is not known."""


class RequestStalled(RequestError):
    """The head or the body does not come on."""


class HeadTooLarge(RequestError):
    """More header lines, or bytes of them, than allowed."""


class UploadTooLarge(RequestError):
    """More bytes than allowed."""


class JobNotFound(RequestError):
    """No such job, or somebody else's."""


class JobGone(RequestError):
    """The job was canceled, or its results have expired or been deleted."""


class IdempotencyMismatch(RequestError):
    """The same key came with something else before."""


class RangeNotSatisfiable(RequestError):
    """The range begins beyond the end of what there is."""


class AudioError(WinnowError):
    """The recording is wrong."""

    def __init__(self, detail: str, *, limit: float | str | list[str] | None = None) -> None:
        super().__init__(detail, field="audio", limit=limit)


class UnsupportedAudio(AudioError):
    """Not audio, or of a kind that is not read here."""


class EmptyAudio(AudioError):
    """No bytes, or no samples."""


class TruncatedAudio(AudioError):
    """The file ends before its header says."""


class CorruptAudio(AudioError):
    """The decoder gave up half way."""


class NotFinite(AudioError):
    """A sample is NaN or infinite."""


class RateOutOfRange(AudioError):
    """Sample rate below or above what the model takes."""


class TooManyChannels(AudioError):
    """More channels than allowed."""


class AudioTooLong(AudioError):
    """More seconds, or more decoded bytes, than allowed."""


class TooLongToWait(AudioError):
    """More work than fits before the deadline, even with nobody else inside."""


class CapacityError(WinnowError):
    """The service cannot take this now; later it may.

    Attributes:
        retry_after_s: whole seconds after which to try again.
    """

    def __init__(self, detail: str, *, retry_after_s: int = 5, limit: float | None = None) -> None:
        super().__init__(detail, limit=limit)
        self.retry_after_s = retry_after_s


class Busy(CapacityError):
    """As many requests wait as may."""


class QuotaExceeded(CapacityError):
    """This caller has had its share; others are served."""


class Draining(CapacityError):
    """The service is about to stop."""


class NotReady(CapacityError):
    """The model is still loading."""


class EngineStuck(CapacityError):
    """The engine will not answer again; the process has to be replaced."""


class StorageFull(CapacityError):
    """No room for the request's temporary files."""


class JobUnfinished(CapacityError):
    """The job has not ended yet."""


class JobsUnavailable(CapacityError):
    """The place where jobs are kept does not answer."""


class DeadlinePassed(CapacityError):
    """Not done in the time the caller gave."""


class ModelError(WinnowError):
    """The model's answer is not a sound."""


class JobLost(WinnowError):
    """The replicas that worked on the job were lost, one after the other."""


class ChildError(WinnowError):
    """A process that works for this one was lost, through no fault of the recording."""


class StartError(WinnowError):
    """The service cannot start as configured; the detail says how to mend it."""


class Abandoned(BaseException):
    """The caller has gone: unwinds a worker thread. Not an error, so no ``except Exception`` may swallow it."""
