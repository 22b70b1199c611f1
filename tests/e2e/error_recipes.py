"""How to provoke each reason on a stack that is in order: a call, and who makes it."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import jwt
from asking import fill, until_it_answers
from conftest import Account, Stack
from credentials import Credentials, bearer, machine, nobody, person, signed
from outcomes import Outcome
from surface import RPCS, Binding, Rpc
from transports import Fields, Transport, over_rest

from nimbus_server.errors import Reason

EVENT = {"name": "page_view"}
NO_SUCH_RPC = Rpc(
    "EventService.Nope",
    "/nimbus.v1.EventService/Nope",
    0,
    RPCS["AuthService.GetMe"].request,
    RPCS["AuthService.GetMe"].response,
    (Binding("GET", "/v1/nope", ""),),
)


@dataclass(frozen=True)
class World:
    """A stack and someone with a project on it."""

    stack: Stack
    account: Account


@dataclass(frozen=True)
class Recipe:
    """A call that must fail; `violations` are the fields that the error names."""

    rpc: str
    fields: Callable[[World], Fields | bytes]
    who: Callable[[World], Credentials]
    violations: tuple[str, ...] = ()

    def follow(self, transport: Transport, world: World) -> Outcome:
        rpc = RPCS.get(self.rpc, NO_SUCH_RPC)
        return transport(world.stack, rpc, self.fields(world), self.who(world))


def tokens(world: World, **claims: object) -> dict[str, object]:
    """The claims of the account's access token, some of them replaced."""
    return {**jwt.decode(world.account.access_token, options={"verify_signature": False}), **claims}


def minted(stack: Stack, claims: dict[str, object]) -> str:
    """A token that the stack itself could have issued."""
    secret = json.loads((stack.data_dir / "secrets.json").read_text())["jwt_secret"]
    return jwt.encode(claims, secret, algorithm="HS256")


def _expired(world: World) -> Credentials:
    return bearer(minted(world.stack, tokens(world, exp=int(time.time()) - 1)))


def _logged_out(world: World) -> Credentials:
    assert over_rest(world.stack, RPCS["AuthService.Logout"], {}, person(world.account)).failure is None
    return person(world.account)


def _anyone(_world: World) -> Credentials:
    return nobody


def _person(world: World) -> Credentials:
    return person(world.account)


def _batch(count: int) -> Callable[[World], Fields]:
    return lambda world: {"project_id": world.account.project_id, "events": [EVENT] * count}


def _user(password: str) -> Callable[[World], Fields]:
    return lambda world: {"email": world.account.email, "password": password}


def _project(project_id: str) -> Callable[[World], Fields]:
    return lambda _world: {"project_id": project_id}


def _raw(body: bytes) -> Callable[[World], bytes]:
    return lambda _world: body


def _long_answer(world: World) -> Fields:
    until_it_answers(world.stack, world.account)
    fill(world.stack, world.account, 600, md5s=250)
    return {"project_id": world.account.project_id, "property": "props.long", "limit": 1000}


def _named(name: str) -> Callable[[World], Fields]:
    return lambda _world: {"name": name}


def _no_fields(_world: World) -> Fields:
    return {}


RECIPES = {
    Reason.FIELD_INVALID: Recipe("ProjectService.GetProject", _project("x"), _person, ("project_id",)),
    Reason.FIELD_REQUIRED: Recipe("ProjectService.CreateProject", _no_fields, _person, ("name",)),
    Reason.FIELD_TOO_LONG: Recipe("ProjectService.CreateProject", _named("x" * 201), _person, ("name",)),
    Reason.FIELD_UNKNOWN: Recipe("ProjectService.CreateProject", _raw(b'{"nmae": "x"}'), _person, ("nmae",)),
    Reason.REQUEST_UNPARSABLE: Recipe("EventService.IngestEvents", _raw(b'{"project_id": \xff'), _person),
    Reason.PASSWORD_WEAK: Recipe("AuthService.Register", _user("short"), _anyone, ("password",)),
    Reason.BATCH_EMPTY: Recipe("EventService.IngestEvents", _batch(0), _person, ("events",)),
    Reason.BATCH_TOO_LARGE: Recipe("EventService.IngestEvents", _batch(1001), _person, ("events",)),
    Reason.CREDENTIALS_MISSING: Recipe("AuthService.GetMe", _no_fields, _anyone),
    Reason.TOKEN_INVALID: Recipe("AuthService.GetMe", _no_fields, lambda _world: bearer("a.b.c")),
    Reason.TOKEN_EXPIRED: Recipe("AuthService.GetMe", _no_fields, _expired),
    Reason.SESSION_ENDED: Recipe("AuthService.GetMe", _no_fields, _logged_out),
    Reason.LOGIN_FAILED: Recipe("AuthService.Login", _user("not the password"), _anyone),
    Reason.API_KEY_UNKNOWN: Recipe(
        "EventService.IngestEvents", _batch(1), lambda w: signed(w.account.api_key_id[:-1] + "_", "any")
    ),
    Reason.SIGNATURE_STALE: Recipe(
        "EventService.IngestEvents",
        _batch(1),
        lambda w: signed(w.account.api_key_id, w.account.api_key_secret, str(int(time.time()) - 302)),
    ),
    Reason.SIGNATURE_MISMATCH: Recipe(
        "EventService.IngestEvents", _batch(1), lambda w: signed(w.account.api_key_id, "another secret")
    ),
    Reason.PROJECT_MISMATCH: Recipe(
        "EventService.ListEvents", _project(str(uuid.uuid4())), lambda world: machine(world.account)
    ),
    Reason.PROJECT_NOT_FOUND: Recipe("ProjectService.GetProject", _project(str(uuid.uuid4())), _person),
    Reason.ROUTE_NOT_FOUND: Recipe("no such RPC", _no_fields, _person),
    Reason.CONSUMER_NOT_FOUND: Recipe(
        "StreamService.DeleteConsumer",
        lambda world: {"project_id": world.account.project_id, "consumer": "nobody"},
        _person,
    ),
    Reason.POSITION_AHEAD: Recipe(
        "StreamService.StreamEvents",
        lambda world: {"project_id": world.account.project_id, "after_seq": 1},
        lambda world: machine(world.account),
    ),
    Reason.QUESTION_TOO_LARGE: Recipe("AnalysisService.ListPropertyValues", _long_answer, _person),
    Reason.EMAIL_TAKEN: Recipe("AuthService.Register", _user("correct horse battery"), _anyone),
    Reason.BODY_TOO_LARGE: Recipe("EventService.IngestEvents", _raw(b" " * (16 * 1024 * 1024 + 1)), _person),
}
