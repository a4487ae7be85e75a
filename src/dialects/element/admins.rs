//! Cluster administrators, which are the users. Their number is the last 53 bits of a user's id:
//! every client's numbers hold that many, it stays the same, and nothing has to be stored for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{
    UserId,
    json::{self, ObjectWriter, key},
    limits,
};
use rules::directory::Principal;
use rules::identity::model::User;

use super::auth::Caller;
use super::error::{self, Error};
use super::methods::{Call, Task};
use super::request::Params;
use crate::app::App;

/// The bits of a user's number: an integer in JSON is exact up to 2^53 (RFC 8259, 6).
const NUMBER_MASK: u64 = (1 << 53) - 1;

/// `GetCurrentClusterAdmin`.
pub(super) fn current(call: &Call<'_>, _: &Params<'_>) -> Result<Task, Error> {
    let mut result = br#"{"clusterAdmin":"#.to_vec();
    write(&mut result, call.caller.user());
    result.push(b'}');
    Ok(Task::Answer(result))
}

/// `ListClusterAdmins`, which may be long.
pub(super) fn list(call: &Call<'_>, _: &Params<'_>) -> Result<Task, Error> {
    match call.caller.sees_others() {
        true => Ok(Task::ListAdmins),
        false => Err(Error::denied("Only administrators may list users.")),
    }
}

/// The result of `ListClusterAdmins`: the users whom the caller sees, by e-mail address.
///
/// # Errors
///
/// There are more than one answer holds.
pub(super) fn write_list(out: &mut Vec<u8>, app: &App, caller: &Caller) -> Result<(), Error> {
    let users = seen(app, caller);
    if users.len() > limits::ELEMENT_LISTED_MAX {
        return Err(Error::new(error::EXCEEDED_LIMIT, "There are too many users to list."));
    }
    out.extend_from_slice(br#"{"clusterAdmins":["#);
    for (index, user) in users.values().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, user);
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// The users whom the caller sees: all, or those of the organisations where the caller is
/// administrator; and the caller.
fn seen(app: &App, caller: &Caller) -> BTreeMap<String, Arc<User>> {
    let mut users = match caller.sees_all() {
        true => app.identity().users(),
        false => {
            let orgs = caller.orgs(app);
            orgs.into_iter().flat_map(|org| app.identity().users_of(org)).collect()
        }
    };
    users.push(caller.user().clone());
    users.into_iter().map(|user| (user.email.to_lowercase(), user)).collect()
}

/// The logins of the user with the number that `clusterAdminID` says. Only who may look at others
/// may name anybody but themselves; a user who is in none of the caller's organisations, and has no
/// session there, does not exist.
///
/// # Errors
///
/// As said.
pub(super) fn named(
    call: &Call<'_>,
    params: &Params<'_>,
    may_name_others: bool,
) -> Result<Vec<Principal>, Error> {
    let number = params.integer("clusterAdminID")?;
    let (app, caller) = (call.app, call.caller);
    if number == Some(number_of(caller.user().id)) {
        return Ok(vec![caller.principal()]);
    }
    if !may_name_others {
        return Err(Error::denied("Only administrators may name another user."));
    }
    let orgs = caller.orgs(app);
    let is_seen = |user: &User| {
        let belongs = |org| user.home == org || user.memberships.iter().any(|held| held.org == org);
        let sessions = || app.directory().of_principal(&Principal::User(user.id));
        caller.sees_all()
            || orgs.iter().any(|org| belongs(*org))
            || sessions().iter().any(|session| caller.sees(session))
    };
    let users = app.identity().users();
    let users = users.iter().filter(|user| Some(number_of(user.id)) == number);
    let found: Vec<_> =
        users.filter(|user| is_seen(user)).map(|user| Principal::User(user.id)).collect();
    if found.is_empty() {
        let number = number.unwrap_or_default();
        return Err(Error::new(error::NO_SUCH_ADMIN, format!("clusterAdminID={number}")));
    }
    Ok(found)
}

/// A user's `clusterAdminID`.
pub(super) fn number_of(id: UserId) -> i64 {
    let last = id.as_bytes().iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    (last & NUMBER_MASK) as i64
}

/// The access that an administrator of something, a super operator, or anybody else has, as a JSON
/// array in Element's words.
pub(super) const fn access(administrator: bool, super_ops: bool) -> &'static [u8] {
    match (administrator, super_ops) {
        (true, _) => br#"["administrator"]"#,
        (false, true) => br#"["read","reporting"]"#,
        (false, false) => br#"["read"]"#,
    }
}

fn write(out: &mut Vec<u8>, user: &User) {
    let authority = user.authority();
    let mut object = ObjectWriter::new(out);
    object
        .name(key!("access"))
        .extend_from_slice(access(authority.administers_any(), authority.super_ops));
    object.name(key!("attributes")).extend_from_slice(b"{}");
    object.string(key!("authMethod"), "Cluster");
    json::push_integer(object.name(key!("clusterAdminID")), number_of(user.id));
    object.string(key!("username"), &user.email);
    object.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_number_is_the_end_of_the_id_and_exact_in_any_client() {
        let number = |text: &str| number_of(text.parse().expect("an id"));
        assert_eq!(number("000000000000000000000003"), 3);
        assert_eq!(number("ffffffffffe0000000000003"), 3);
        assert_eq!(number("ffffffffffffffffffffffff"), 9_007_199_254_740_991);
    }
}
