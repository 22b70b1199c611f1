"""What is one person's is nobody else's: every RPC that names a project refuses strangers, and changes nothing."""

from dataclasses import replace
from itertools import product

import pytest
from broken_stack import wait_until
from conftest import Account, Stack, new_account
from credentials import machine, nobody, person
from guarded import GOOD_FIELDS, GUARDED, WAYS, failures, fields_of
from surface import RPCS
from transports import Transport, over_native_grpc, over_rest

from nimbus.v1.access_pb2 import ACCESS_PROJECT, ACCESS_PUBLIC, ACCESS_STREAM
from nimbus_server.errors import Reason

FOR_KEYS = {ACCESS_PROJECT, ACCESS_STREAM}
# What needs credentials but names no project: each speaks of the caller alone, as the tests below show.
OF_THE_CALLER = {
    "AuthService.Refresh",
    "AuthService.Logout",
    "AuthService.GetMe",
    "ProjectService.CreateProject",
    "ProjectService.ListProjects",
}


def everything_of(stack: Stack, account: Account) -> list[object]:
    """All that the owner can see; the signature also shows that the key still works."""
    project = {"project_id": account.project_id}
    return [
        over_native_grpc(stack, RPCS[name], project, who(account)).response
        for name, who in (
            ("ProjectService.GetProject", person),
            ("EventService.ListEvents", machine),
            ("MetricsService.QueryMetrics", machine),
            ("StreamService.ListConsumers", machine),
        )
    ]


@pytest.fixture
def owner(stack: Stack) -> Account:
    """Someone with an event in their project, and a consumer."""
    account = new_account(stack)
    events = {"project_id": account.project_id, "events": [{"name": "secret plan", "user_id": "ada"}]}
    assert over_rest(stack, RPCS["EventService.IngestEvents"], events, machine(account)).response.accepted == 1
    project = {"project_id": account.project_id}
    over_native_grpc(stack, RPCS["StreamService.SubscribeEvents"], project | {"consumer": "billing"}, person(account))
    listing = RPCS["StreamService.ListConsumers"]
    wait_until(lambda: not over_rest(stack, listing, project, person(account)).response.items[0].active)
    return account


def test_every_rpc_is_covered() -> None:
    assert GOOD_FIELDS.keys() == {name for name, rpc in RPCS.items() if "project_id" in rpc.fields}
    guarded = {name for name, rpc in RPCS.items() if rpc.access != ACCESS_PUBLIC}
    assert guarded == GOOD_FIELDS.keys() | OF_THE_CALLER


@pytest.mark.parametrize("transport", WAYS)
@pytest.mark.parametrize("name", GOOD_FIELDS)
def test_a_stranger_finds_no_project_and_changes_nothing(
    stack: Stack, owner: Account, account: Account, name: str, transport: Transport
) -> None:
    before = everything_of(stack, owner)
    rpc = RPCS[name]
    theirs = fields_of(rpc, owner)
    for failure in failures(transport, stack, rpc, theirs, person(account)):
        assert failure.reason == Reason.PROJECT_NOT_FOUND
    for failure in failures(transport, stack, rpc, theirs, nobody):
        assert failure.reason == Reason.CREDENTIALS_MISSING
    expected = Reason.PROJECT_MISMATCH if rpc.access in FOR_KEYS else Reason.CREDENTIALS_MISSING
    for failure in failures(transport, stack, rpc, theirs, machine(account)):
        assert failure.reason == expected
    assert everything_of(stack, owner) == before


@pytest.mark.parametrize("transport", WAYS)
@pytest.mark.parametrize("name", [name for name, rpc in GUARDED.items() if rpc.access in FOR_KEYS])
def test_the_key_of_ones_other_project_opens_nothing(
    stack: Stack, owner: Account, name: str, transport: Transport
) -> None:
    created = over_rest(stack, RPCS["ProjectService.CreateProject"], {"name": "another"}, person(owner)).response
    other = replace(owner, api_key_id=created.project.api_key_id, api_key_secret=created.api_key_secret)
    before = everything_of(stack, owner)
    for failure in failures(transport, stack, RPCS[name], fields_of(RPCS[name], owner), machine(other)):
        assert failure.reason == Reason.PROJECT_MISMATCH
    assert everything_of(stack, owner) == before


def test_lists_show_ones_own_alone(stack: Stack, owner: Account, account: Account) -> None:
    for who, other in ((owner, account), (account, owner)):
        listed = over_rest(stack, RPCS["ProjectService.ListProjects"], {"page_size": 1000}, person(who)).response
        assert [project.id for project in listed.items] == [who.project_id]
        events = over_rest(stack, RPCS["EventService.ListEvents"], {"project_id": who.project_id}, person(who)).response
        assert {event.project_id for event in events.items} <= {who.project_id}
        assert over_rest(stack, RPCS["AuthService.GetMe"], {}, person(who)).response.email == who.email != other.email


def test_the_page_token_of_one_person_shows_another_nothing_of_theirs(stack: Stack, owner: Account) -> None:
    for _ in range(2):
        over_rest(stack, RPCS["ProjectService.CreateProject"], {"name": "more"}, person(owner))
    page = over_rest(stack, RPCS["ProjectService.ListProjects"], {"page_size": 1}, person(owner)).response
    newcomer = new_account(stack)
    asked = {"page_token": page.next_page_token, "page_size": 1000}
    listed = over_rest(stack, RPCS["ProjectService.ListProjects"], asked, person(newcomer)).response
    assert [project.id for project in listed.items] == [newcomer.project_id]


def test_a_deleted_project_is_gone_for_its_owner_and_its_key(stack: Stack, owner: Account) -> None:
    project = {"project_id": owner.project_id}
    assert over_rest(stack, RPCS["ProjectService.DeleteProject"], project, person(owner)).failure is None
    for transport, (name, rpc) in product((over_rest, over_native_grpc), GUARDED.items()):
        if "project_id" in rpc.fields:
            for failure in failures(transport, stack, rpc, fields_of(rpc, owner), person(owner)):
                assert failure.reason == Reason.PROJECT_NOT_FOUND, name
        if rpc.access in FOR_KEYS:
            for failure in failures(transport, stack, rpc, fields_of(rpc, owner), machine(owner)):
                assert failure.reason == Reason.API_KEY_UNKNOWN, name
