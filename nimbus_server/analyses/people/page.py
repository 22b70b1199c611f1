"""Page tokens: opaque to clients, so that what they hold can change."""

import base64
import binascii

import orjson

from nimbus_server.errors import Reason, field_error


def page_token(uid: int) -> str:
    """The token of the page that starts after a person."""
    return base64.urlsafe_b64encode(orjson.dumps(uid)).decode()


def read_page_token(token: str) -> int:
    """The person in a token. Raises NimbusError with FIELD_INVALID for what page_token did not make."""
    try:
        uid = orjson.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError):
        uid = None
    if type(uid) is not int or not 0 <= uid < 2**63:
        raise field_error(
            Reason.FIELD_INVALID, "page_token", "page_token must be the next_page_token of an earlier answer."
        )
    return uid
