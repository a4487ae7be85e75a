"""What an administrator does with Cognite's own clients, unmodified: the SDK and the toolkit list principals and
login sessions, and the SDK ends some.

    cognite_sdk.py HTTPS_PORT SESSION VIEWER_ID VIEWER_SESSIONS PRINCIPALS YORK_TOKEN

SESSION is the session id of an administrator of basic-org with PRINCIPALS principals. Both clients talk to
https://auth.cognite.com and nothing else: a proxy in this process, which the environment names to them, leads
that to HTTPS_PORT of this machine and refuses every other place. SSL_CERT_FILE has to name the certificate.
Whatever goes wrong ends it with a traceback.
"""

import os
import socket
import sys
import threading

HOST = "auth.cognite.com:443"


def pump(source, sink):
    """Copies until the end."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        sink.close()


def tunnel(client, port):
    """Serves one CONNECT."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data:
            return
        head += data
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    if (method, target) != ("CONNECT", HOST):
        client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        client.close()
        return
    server = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)


def start_proxy(port):
    """The address of a proxy to the server."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            client = listener.accept()[0]
            threading.Thread(target=tunnel, args=(client, port), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def raised(kind, call):
    """The exception of this kind that the call ends with."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def sdk_client(token, project="basic-org"):
    from cognite.client import ClientConfig, CogniteClient
    from cognite.client.credentials import Token

    config = ClientConfig("tests", project, Token(token), base_url=f"https://{HOST.split(':')[0]}")
    return CogniteClient(config)


def use_the_sdk(token, viewer, viewer_sessions, count, york):
    from cognite.client import global_config
    from cognite.client.exceptions import CogniteAPIError, CogniteNotFoundError, CogniteProjectAccessError

    global_config.max_retries = 0
    global_config.disable_pypi_version_check = True
    client = sdk_client(token)
    principals = client.iam.principals
    me = principals.me()
    assert (me.email, me.given_name) == ("operator@basicorg.example", "Organisation"), me
    everybody = principals.list(limit=None)
    assert (len(everybody), len(set(everybody.as_ids()))) == (count, count), len(everybody)
    users = principals.list(types="user", limit=None)
    accounts = principals.list(types=["service_account"], limit=None)
    both = principals.list(types=["user", "service_account"], limit=None)
    assert both.as_ids() == users.as_ids() + accounts.as_ids() == everybody.as_ids()
    assert {type(p).__name__ for p in users} == {"UserPrincipal"}
    assert {type(p).__name__ for p in accounts} == {"ServicePrincipal"}
    assert accounts[0].created_by.org_id == "basic-org" and accounts[0].created_time > 0
    for limit in (1, 7, 25, 100, 101):
        assert principals.list(limit=limit).as_ids() == everybody.as_ids()[:limit], limit

    assert principals.retrieve(id=viewer).email == "viewer@basicorg.example"
    app = principals.retrieve(external_id="demo-app")
    assert (app.name, app.external_id) == ("demo-app", "demo-app"), app
    assert principals.retrieve(id="nobody") is None
    assert principals.retrieve(id=everybody.as_ids()).as_ids() == everybody.as_ids()
    some = principals.retrieve(id=[viewer, "nobody"], ignore_unknown_ids=True)
    assert some.as_ids() == [viewer]
    missing = raised(CogniteNotFoundError, lambda: principals.retrieve(id=[viewer, "nobody"]))
    assert missing.not_found == [{"id": "nobody"}] and "not found" in str(missing), missing

    stranger = sdk_client(york, project="york-org")
    assert stranger.iam.principals.me().name == "demo-app-york"
    path = "/api/v1/orgs/basic-org/principals"
    refused = raised(CogniteAPIError, lambda: stranger.get(path))
    assert refused.code == 403 and refused.x_request_id, refused
    unknown = raised(CogniteProjectAccessError, lambda: sdk_client("nobody").get(path))
    assert "code: 401" in str(unknown), unknown

    # The SDK has no call of its own for sessions; any path can be asked for.
    path = f"{path}/{viewer}/sessions"
    page = client.get(path, params={"limit": 1000}).json()
    assert "nextCursor" not in page
    active = [item["id"] for item in page["items"] if item["status"] == "ACTIVE"]
    assert len(active) == len(page["items"]) == viewer_sessions, page
    for start in range(0, len(active), 10):
        items = [{"id": session} for session in active[start : start + 10]]
        answer = client.post(f"{path}/revoke", json={"items": items})
        assert (answer.status_code, answer.content) == (204, b""), answer
    page = client.get(path, params={"limit": 1000}).json()
    assert {item["status"] for item in page["items"]} == {"REVOKED"}, page
    return everybody.as_ids(), [item["id"] for item in page["items"]]


def use_the_toolkit(token, viewer, everybody, sessions):
    from cognite.client.credentials import Token
    from cognite_toolkit._cdf_tk.client import ToolkitClient, ToolkitClientConfig
    from cognite_toolkit._cdf_tk.client.http_client import ToolkitAPIError
    from cognite_toolkit._cdf_tk.client.identifiers import ExternalId, PrincipalId, PrincipalLoginId

    config = ToolkitClientConfig("tests", "basic-org", Token(token), base_url="https://auth.cognite.com")
    principals = ToolkitClient(config).principals
    assert principals.me().email == "operator@basicorg.example"
    assert [p.id for p in principals.list(limit=None)] == everybody
    assert [p.id for p in principals.list(types=["USER", "SERVICE_ACCOUNT"], limit=None)] == everybody
    users = [p.id for p in principals.list(types=["USER"], limit=None)]
    assert users == everybody[: len(users)] and viewer in users
    found = principals.retrieve([PrincipalId(id=viewer), ExternalId(external_id="demo-app")])
    assert [p.name for p in found] == ["Plain User", "demo-app"], found
    error = raised(ToolkitAPIError, lambda: principals.retrieve([PrincipalId(id="nobody")]))
    assert error.code == 400 and error.missing == [{"id": "nobody"}] and error.x_request_id, error

    listed = principals.login_sessions.list(viewer, limit=None)
    assert [session.id for session in listed] == sessions
    assert {session.status for session in listed} == {"REVOKED"}
    assert all(session.deactivated_time >= session.created_time for session in listed)
    page = principals.login_sessions.paginate(viewer, limit=7)
    rest = principals.login_sessions.paginate(viewer, limit=100, cursor=page.next_cursor)
    assert [session.id for session in page.items + rest.items] == sessions[:107]
    # It names the principal wrongly when it revokes (docs/protocol/cognite.md A5).
    login = PrincipalLoginId(principal=viewer, id=sessions[0])
    assert raised(ToolkitAPIError, lambda: principals.login_sessions.revoke([login])).code == 404
    error = raised(ToolkitAPIError, lambda: principals.login_sessions.list(everybody[-1]))
    assert error.code == 403, error


def main():
    port, token, viewer, viewer_sessions, count, york = sys.argv[1:]
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        os.environ[name] = start_proxy(int(port))
        os.environ.pop(name.lower(), None)
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        os.environ.pop(name, None)
    everybody, sessions = use_the_sdk(token, viewer, int(viewer_sessions), int(count), york)
    print("the SDK did well", flush=True)
    use_the_toolkit(token, viewer, everybody, sessions)
    print("the toolkit did well", flush=True)


main()
