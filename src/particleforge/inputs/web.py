"""Talk to web servers that may be slow, lie, or never end.

Inputs -> outputs: a URL and headers -> the beginning of the answer and the blocks of its body.

What requests leaves open is settled here. A time limit of its own begins anew with every byte, so a
thread asks and reads, and whoever waits for it leaves after ``timeout_s``: for the beginning of the
answer, and for each block of the body. Redirects lead to ``http`` and ``https`` only, never from
``https`` back, and are followed so many times. Bodies come as they are: one that is compressed
although that was declined is refused, since its lengths would not be those of the file.

A failure that may pass is a ``BrokenOffError``; what stays wrong however often it is tried, such as
an address that cannot be, a redirect in circles, a certificate that does not fit, is a UserError.
"""

import queue
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from threading import Thread
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from particleforge.errors import UserError

BLOCK = 1 << 16  # bytes; what is lost of a transfer that breaks off, at most
_REDIRECTS_MAX = 10
_PASSING = (408, 425, 429)  # of the 4xx, those that may pass by themselves
_REASON_LENGTH = 80

_Steps = Generator[requests.Response | bytes]
_Step = TypeVar("_Step")


class BrokenOffError(Exception):
    """A try that ended early, for a reason that may pass."""


@contextmanager
def asking(
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    remedy: str = "correct the address, or ask for access",
) -> Iterator[tuple[requests.Response, Iterator[bytes]]]:
    """Yield a server's answer, its body unread, and the blocks of the body.

    The answer is one of success, or 416 (the part that was asked for is not there); any other is an
    error, with ``remedy`` if it is one that stays.
    """
    steps = in_time(_steps(url, headers, timeout_s), timeout_s)
    with closing(steps):
        answer = next(steps)
        assert isinstance(answer, requests.Response)
        _check(url, answer, remedy)
        yield answer, (block for block in steps if isinstance(block, bytes))


def length_of(answer: requests.Response) -> int | None:
    """Return the length of the body that the server announces, None if it does not."""
    text = answer.headers.get("Content-Length")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise BrokenOffError(f"the server announces a length of {text[:_REASON_LENGTH]!r}")
    return int(text)


def reason_of(error: BaseException) -> str:
    """Return an error's kind and the innermost cause that says something."""
    return f"{type(error).__name__}: {_innermost(error)}"


def _check(url: str, answer: requests.Response, remedy: str) -> None:
    """Refuse an answer that brings nothing, and one that brings it in another shape."""
    status = answer.status_code
    if status == requests.codes.requested_range_not_satisfiable:
        return
    if status not in (requests.codes.ok, requests.codes.partial_content):
        reason = "".join(filter(str.isprintable, str(answer.reason)))[:_REASON_LENGTH]
        said = f"the server answers {status} {reason}"
        if status < 500 and status not in _PASSING:
            raise UserError(f"{url}: {said}; {remedy}")
        raise BrokenOffError(said)
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UserError(
            f"{url}: the server sends it compressed, although that was declined; fetch it by hand"
            " and give its path"
        )


def _steps(url: str, headers: Mapping[str, str], timeout_s: float) -> _Steps:
    """Yield the answer and then its blocks; each step may take long, or never end."""
    here = url
    try:
        with requests.Session() as session:
            for _ in range(_REDIRECTS_MAX + 1):
                with session.get(
                    here,
                    headers={"Accept-Encoding": "identity", **headers},
                    stream=True,
                    timeout=timeout_s,
                    allow_redirects=False,  # requests would read their bodies to the end
                ) as answer:
                    target = session.get_redirect_target(answer)
                    if target is None:
                        yield answer
                        yield from answer.iter_content(BLOCK)
                        return
                here = redirected(url, here, target)
    except UserError:
        raise
    except Exception as error:
        # requests lets errors of the libraries below it through
        raise _told(url, error) from error
    raise UserError(
        f"{url}: the server redirects in circles, or more than {_REDIRECTS_MAX} times; open the"
        " address in a browser and correct it"
    )


def redirected(url: str, here: str, target: str) -> str:
    """Return where a redirect leads; UserError where it may not be followed."""
    there = urljoin(here, target)
    scheme = urlsplit(there).scheme
    if scheme not in ("http", "https") or (urlsplit(here).scheme, scheme) == ("https", "http"):
        raise UserError(
            f"{url}: the server redirects to {scheme or 'nowhere'}://, which is not followed; give"
            " the address that it leads to, if you trust it"
        )
    return there


def _told(url: str, error: Exception) -> Exception:
    if isinstance(_innermost(error), ssl.SSLCertVerificationError):
        return UserError(
            f"{url}: the server's certificate is not valid ({_innermost(error)}); correct the"
            " address, or name the certificates to trust in REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, ValueError):  # whatever requests and urllib3 say of an address
        return UserError(f"{url}: cannot be asked ({reason_of(error)}); correct the address")
    return BrokenOffError(f"the connection failed ({reason_of(error)})")


def _innermost(error: BaseException) -> BaseException:
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def in_time(steps: Generator[_Step], timeout_s: float) -> Generator[_Step]:
    """Yield what a generator does, each within ``timeout_s``; BrokenOffError if one takes longer.

    A thread takes the steps, one when it is asked to, and ends the generator. One that is stuck is
    left alone; it ends with its step, or with the process.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    taken: queue.SimpleQueue[_Step | Exception | None] = queue.SimpleQueue()

    def take() -> None:
        with closing(steps):
            while wanted.get():
                try:
                    taken.put(next(steps, None))
                except Exception as error:
                    taken.put(error)

    Thread(target=take, daemon=True).start()
    answer: requests.Response | None = None
    try:
        while True:
            wanted.put(True)
            step = taken.get(timeout=timeout_s)
            if step is None:
                return
            if isinstance(step, Exception):
                raise step
            if isinstance(step, requests.Response):
                answer = step
            yield step
    except queue.Empty:
        if answer is not None:
            with suppress(OSError, RuntimeError, ValueError):
                answer.raw.shutdown()  # wakes the thread that reads
        raise BrokenOffError(
            f"the connection failed (less than {BLOCK >> 10} KiB came in {timeout_s:g} s)"
        ) from None
    finally:
        wanted.put(False)
