"""What the scripts share: the clients, and a way to ask the test for a restart of the server."""

import sys
import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

PATIENCE_SECS = 30
NAMESPACE = "default"

config.load_kube_config()


def expect(holds, *said):
    if not holds:
        raise AssertionError(" ".join(str(word) for word in said))


def refused(code, call, *args, **kwargs):
    """The refusal, after it was seen to be one of that code."""
    try:
        found = call(*args, **kwargs)
    except ApiException as error:
        expect(error.status == code, "refused with", error.status, "instead of", code, error.body)
        return error
    raise AssertionError(f"{call.__name__} was not refused: {found}")


def until(what, holds):
    """Waits for a condition; an answer that the server owes while it restarts is no answer."""
    end = time.monotonic() + PATIENCE_SECS
    while True:
        try:
            if holds():
                return
        except (ApiException, OSError) as error:
            said = error
        except Exception as error:  # urllib3 has many of them
            if "urllib3" not in type(error).__module__:
                raise
            said = error
        else:
            said = ""
        expect(time.monotonic() < end, "in vain:", what, said)
        time.sleep(0.02)


def ask(word):
    """Has the test do something, and waits until it is done."""
    print(word, flush=True)
    expect(sys.stdin.readline().strip() == "done", word, "was not done")


def apply(patch, *args, body, manager="python", force=True):
    """Server-side apply through a typed method."""
    return patch(
        *args,
        body=body,
        field_manager=manager,
        force=force,
        _content_type="application/apply-patch+yaml",
    )
