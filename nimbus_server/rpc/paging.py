"""Page tokens: opaque to clients, so that what they hold can change."""

import base64
import binascii
from datetime import datetime
from uuid import UUID

import orjson

from nimbus_server.errors import Reason, field_error

Place = tuple[datetime, UUID]


def page_token(place: Place) -> str:
    """The token of the page that starts after `place`."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


def read_page_token(token: str) -> Place:
    """The place in a token. Raises NimbusError with FIELD_INVALID for what page_token did not make."""
    try:
        at, row_id = orjson.loads(base64.urlsafe_b64decode(token))
        return datetime.fromisoformat(at), UUID(row_id)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise field_error(
            Reason.FIELD_INVALID, "page_token", "page_token must be the next_page_token of an earlier answer."
        ) from None
