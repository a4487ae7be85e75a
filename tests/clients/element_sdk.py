"""NetApp's SDK for Element (solidfire-sdk-python), as published, against a server of the demo over TLS: it looks
at who there is and which sessions live, and ends some.

    element_sdk.py HOST HTTPS_PORT

The things mower-1, mower-2 and mower-3 have one session each, the viewer two. When it is done only that of mower-1
lives. Whatever goes wrong ends it with a traceback.
"""

import datetime
import sys

from solidfire.common import ApiConnectionError, ApiServerError, setLogLevel
from solidfire.factory import ElementFactory
from solidfire.models import AuthMethod

ADMIN = ("admin@devicewise.com", "demo-admin-password")
VIEWER = ("viewer@basicorg.example", "demo-viewer-password")
METHODS = [
    "DeleteAuthSession",
    "DeleteAuthSessionsByClusterAdmin",
    "DeleteAuthSessionsByUsername",
    "ListActiveAuthSessions",
    "ListAuthSessionsByClusterAdmin",
    "ListAuthSessionsByUsername",
]


def refused(call, *arguments, **named):
    """The name and the message of the error of a call that has to fail."""
    try:
        call(*arguments, **named)
    except ApiServerError as error:
        assert error.error_code == 500, error
        return error.error_name, error.message
    raise AssertionError("no error")


def usernames(result):
    return sorted(session.username for session in result.sessions)


def check_session(session):
    """Every field is there, in its type."""
    for text in (session.session_creation_time, session.last_access_timeout, session.final_timeout):
        datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    assert session.session_creation_time < session.last_access_timeout <= session.final_timeout
    assert session.session_id.version == 8, session
    assert session.auth_method.get_value() in AuthMethod.enum_values
    assert all(isinstance(number, int) for number in session.cluster_admin_ids)
    assert session.access_group_list, session
    assert session.idp_config_version == 0


def connect(host, port, login, **more):
    return ElementFactory.create(host, *login, port=port, print_ascii_art=False, **more)


def shake_hands(host, port):
    assert connect(host, port, ADMIN).api_version == 12.3
    assert connect(host, port, ADMIN, version="12.0").api_version == 12.0
    try:
        connect(host, port, (ADMIN[0], "wrong"))
    except ApiConnectionError as error:
        assert "Bad Credentials" in str(error), error
    else:
        raise AssertionError("no error")


def look_around(admin, viewer):
    api = admin.invoke_sfapi("GetAPI")
    assert set(METHODS) <= set(api["12.3"]), api
    assert refused(admin.invoke_sfapi, "ListVolumes") == ("xUnknownAPIMethod", "method=ListVolumes")

    me = viewer.get_current_cluster_admin().cluster_admin
    assert (me.username, me.access, me.auth_method) == (VIEWER[0], ["read"], "Cluster"), me
    admins = admin.list_cluster_admins().cluster_admins
    assert [user.username for user in admins] == [ADMIN[0], "operator@basicorg.example", VIEWER[0]]
    assert me.cluster_admin_id == admins[2].cluster_admin_id
    return me.cluster_admin_id


def list_sessions(admin, viewer, viewer_id):
    active = admin.list_active_auth_sessions()
    assert usernames(active) == ["mower-1", "mower-2", "mower-3", VIEWER[0], VIEWER[0]], active
    for session in active.sessions:
        check_session(session)
    assert usernames(viewer.list_auth_sessions_by_username()) == [VIEWER[0]] * 2
    assert usernames(admin.list_auth_sessions_by_username()) == []
    named = admin.list_auth_sessions_by_username(username="mower-1", auth_method="Idp")
    assert usernames(named) == ["mower-1"]
    assert named.sessions[0].cluster_admin_ids == []
    # The SDK sends its own type as {}.
    bad = refused(admin.list_auth_sessions_by_username, VIEWER[0], AuthMethod("Cluster"))
    assert bad == ("xUnrecognizedEnumString", "{}"), bad
    by_id = admin.list_auth_sessions_by_cluster_admin(viewer_id)
    assert usernames(by_id) == [VIEWER[0]] * 2
    assert by_id.sessions[0].cluster_admin_ids == [viewer_id]
    for call in (viewer.list_active_auth_sessions, viewer.get_login_session_info):
        assert refused(call)[0] == "xPermissionDenied"
    assert refused(viewer.list_auth_sessions_by_username, "mower-1")[0] == "xPermissionDenied"


def set_timeout(admin):
    assert admin.get_login_session_info().login_session_info.timeout == "24:00:00"
    admin.set_login_session_info("00:90:00")
    assert admin.get_login_session_info().login_session_info.timeout == "1:30:00"
    assert refused(admin.set_login_session_info, "00:00:59")[0] == "xInvalidParameter"
    admin.set_login_session_info()
    assert admin.get_login_session_info().login_session_info.timeout == "0:00"


def delete_sessions(admin, viewer, viewer_id):
    first, second = viewer.list_auth_sessions_by_username().sessions
    ended = viewer.delete_auth_session(first.session_id).session
    assert ended.session_id == first.session_id
    check_session(ended)
    again = refused(viewer.delete_auth_session, first.session_id)
    assert again[0] == "xAuthSessionDoesNotExist", again
    ended = admin.delete_auth_sessions_by_cluster_admin(viewer_id).sessions
    assert [session.session_id for session in ended] == [second.session_id]
    ended = admin.delete_auth_sessions_by_username("mower-2", "Idp")
    assert usernames(ended) == ["mower-2"]
    named = {"username": "mower-3"}
    ended = admin.invoke_sfapi("DeleteAuthSessionsByUsername", named)["sessions"]
    assert [session["username"] for session in ended] == ["mower-3"]
    assert usernames(admin.list_active_auth_sessions()) == ["mower-1"]


def main(host, port):
    setLogLevel("ERROR")
    shake_hands(host, port)
    admin, viewer = connect(host, port, ADMIN), connect(host, port, VIEWER)
    viewer_id = look_around(admin, viewer)
    list_sessions(admin, viewer, viewer_id)
    set_timeout(admin)
    delete_sessions(admin, viewer, viewer_id)


main(sys.argv[1], int(sys.argv[2]))
