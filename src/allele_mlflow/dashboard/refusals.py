"""
Why a request is not answered as it was asked, and how it is told.
"""

from __future__ import annotations

from allele_mlflow.errors import (
    AlleleMlflowError,
    AnalysisError,
    ErrorKind,
    MatrixError,
    PermanentTrackingError,
    PromotionRefusedError,
    RegistryError,
    TrackingError,
)

TITLES = {
    400: "This address means nothing here",
    401: "No entrance",
    403: "Not allowed",
    404: "Not there",
    405: "Not that way",
    409: "Another one was faster",
    413: "Too large",
    422: "Refused",
    500: "A mistake of ours",
    503: "The store does not answer",
}


class RefusalError(Exception):
    """
    A request that is answered with an error. `status` is HTTP's, `text` is for a person, `back` a
    path of ours at which it can be put right.
    """

    def __init__(self, status: int, text: str, *, back: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.back = back

    @property
    def title(self) -> str:
        """
        The error in a few words.
        """
        return TITLES.get(self.status, "Refused")


def refusal_of(error: AlleleMlflowError) -> RefusalError:
    """
    What an error of the package means to whoever asked for a page.
    """
    if isinstance(error, PromotionRefusedError):
        status = 409 if error.kind is ErrorKind.OTHER_HOLDER else 422
    elif error.kind is ErrorKind.NOT_FOUND:
        status = 404
    elif isinstance(error, AnalysisError | MatrixError | RegistryError):
        status = 400
    elif isinstance(error, PermanentTrackingError):
        status = 413 if error.kind is ErrorKind.BAD_ARTIFACT else 400
    else:
        status = 503 if isinstance(error, TrackingError) else 500
    return RefusalError(status, str(error))
