"""Client of Nimbus: sends events, queries them and follows them over gRPC, signed with a project's API key.

`Nimbus` and `AsyncNimbus` are all that most services need. `signed_channel` and `signed_aio_channel` are for those who
use the generated stubs (`nimbus.v1`) themselves, `signature_headers` for those who speak REST.
"""

from nimbus_client.aio_client import AsyncNimbus
from nimbus_client.aio_subscription import AsyncSubscription
from nimbus_client.channel import signed_aio_channel, signed_channel
from nimbus_client.client import Nimbus
from nimbus_client.errors import FieldViolation, NimbusError
from nimbus_client.events import Consumer, Event, EventBatch, EventError, MetricPoint, Receipt, StoredEvent
from nimbus_client.questions import all_of, any_of, condition, not_, select, series, step
from nimbus_client.retries import RetryPolicy
from nimbus_client.signing import signature_headers
from nimbus_client.subscription import Subscription

__all__ = [
    "AsyncNimbus",
    "AsyncSubscription",
    "Consumer",
    "Event",
    "EventBatch",
    "EventError",
    "FieldViolation",
    "MetricPoint",
    "Nimbus",
    "NimbusError",
    "Receipt",
    "RetryPolicy",
    "StoredEvent",
    "Subscription",
    "all_of",
    "any_of",
    "condition",
    "not_",
    "select",
    "series",
    "signature_headers",
    "signed_aio_channel",
    "signed_channel",
    "step",
]
