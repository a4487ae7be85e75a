"""A client made by openapi-python-client from /openapi.json, at work: a login, lists, a point, a failure,
principals of both types.

    openapi_client.py URL SLUG

The package `tr50d_client` has to be on the path. Prints `the client did well`.
"""

import datetime
import sys

from tr50d_client import AuthenticatedClient, Client
from tr50d_client.api.api import api_authenticate
from tr50d_client.api.principals import list_principals
from tr50d_client.api.property_ import property_current, property_publish
from tr50d_client.api.session import session_list
from tr50d_client.api.thing import thing_create, thing_find, thing_list
from tr50d_client import models


def main(url, slug):
    stranger = Client(base_url=url)
    refused = api_authenticate.sync_detailed(
        client=stranger,
        body=models.ApiAuthenticateBody(username="operator@basicorg.example", password="wrong"),
        status="http",
    )
    assert refused.status_code == 401, refused
    assert isinstance(refused.parsed, models.Failure) and refused.parsed.error_codes == [-95007]
    login = api_authenticate.sync(
        client=stranger,
        body=models.ApiAuthenticateBody(
            username="operator@basicorg.example", password="demo-operator-password"
        ),
    )
    assert login.success and login.params.org_key == "BasicOrg", login

    client = AuthenticatedClient(base_url=url, token=login.params.session_id)
    made = thing_create.sync(client=client, body=models.ThingCreateBody(key="made", name="Made"))
    assert made.success, made
    sessions = session_list.sync(client=client, body=models.SessionListBody(limit=10))
    assert sessions.success and sessions.params.count >= 1, sessions
    things = thing_list.sync(client=client, body=models.ThingListBody())
    assert [row["key"] for row in things.params.result] == ["made"], things

    ts = datetime.datetime(2026, 3, 2, 8, 15, tzinfo=datetime.timezone.utc)
    point = models.PropertyPublishBody(
        key="temperature", value=21.5, thing_key="made", ts=ts, corr_id="c-1"
    )
    for _ in range(2):
        published = property_publish.sync(client=client, body=point)
        assert published.success, published
    wanted = models.PropertyCurrentBody(key="temperature", thing_key="made")
    current = property_current.sync(client=client, body=wanted)
    assert current.params.value == 21.5 and current.params.ts == "2026-03-02T08:15:00.000Z", current

    # Without a status of its own a failure is a reply, with one a model of its own.
    missing = models.ThingFindBody(key="no-such")
    plain = thing_find.sync_detailed(client=client, body=missing)
    assert plain.status_code == 200 and not plain.parsed.success, plain
    assert plain.parsed.error_codes == [-90008], plain
    failed = thing_find.sync_detailed(client=client, body=missing, status="http")
    assert failed.status_code == 404 and isinstance(failed.parsed, models.Failure), failed

    page = list_principals.sync(slug, client=client)
    kinds = {type(item) for item in page.items}
    assert kinds == {models.UserPrincipal, models.ServiceAccount}, kinds
    assert {item.type_ for item in page.items} == {"USER", "SERVICE_ACCOUNT"}, page
    print("the client did well")


main(*sys.argv[1:])
