//! Commands that take no parameter that nobody knows: a member that was mistyped would change or
//! show something else than was meant. What devices and the vendor's apps send stays lenient.

use base::{Code, Failure, excerpt};

use super::envelope::{Members, RawParams};
use super::params::{Field, Params, Reach};

/// Parameters, of which none may be unknown. A command whose handler takes these is strict.
pub struct Strict<P>(pub P);

impl<P: Params> Params for Strict<P> {
    const IS_STRICT: bool = true;
    const REACH: Reach = P::REACH;

    fn fields() -> Vec<Field> {
        P::fields()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        P::from_members(members).map(Self)
    }

    fn read(params: RawParams<'_>) -> Result<Self, Failure> {
        P::read(params).map(Self)
    }
}

/// Members of strict commands that the vendor's clients send, or may send back from an object that
/// they were shown (`docs/protocol/tr50.md` 3.4 and 4.1), and that have no effect here.
const WITHOUT_EFFECT: [(&str, &[&str]); 7] = [
    ("app.update", RECORD),
    ("org.create", &["profile", "owner"]),
    (
        "org.update",
        &[
            "profile",
            "owner",
            "lastLoginBy",
            "lastLoginOn",
            "createdBy",
            "createdOn",
            "updatedBy",
            "updatedOn",
        ],
    ),
    ("role.create", &["readOnly"]),
    ("role.update", &["readOnly", "createdBy", "createdOn", "updatedBy", "updatedOn"]),
    ("user.list", &["support"]),
    ("user.update", RECORD),
];

/// Who made and changed a record.
const RECORD: &[&str] = &["createdBy", "createdOn", "updatedBy", "updatedOn"];

/// Who asks, in a body at `/rest/_/…`: no parameter of the command.
const SESSION: &str = "sessionId";

/// The members of a command that are accepted and have no effect.
pub(super) fn without_effect(command: &str) -> &'static [&'static str] {
    let found = WITHOUT_EFFECT.iter().find(|(name, _)| *name == command);
    found.map_or(&[], |(_, members)| members)
}

/// Reads the parameters of a command.
///
/// # Errors
///
/// As [`Params::read`]; or the command is strict, and one of them is unknown.
pub(super) fn read<P: Params>(command: &str, params: RawParams<'_>) -> Result<P, Failure> {
    if P::IS_STRICT {
        check(command, &P::fields(), &Members::read(params)?)?;
    }
    P::read(params)
}

fn check(command: &str, fields: &[Field], members: &Members<'_>) -> Result<(), Failure> {
    let ignored = without_effect(command);
    let is = |known: &str, name: &str| known.eq_ignore_ascii_case(name);
    let known = |name: &str| {
        fields.iter().any(|field| is(field.name, name))
            || ignored.iter().any(|other| is(other, name))
            || is(SESSION, name)
    };
    let Some((name, _)) = members.0.iter().find(|(name, _)| !known(name)) else { return Ok(()) };
    let names = fields.iter().map(|field| field.name);
    let rest = match (nearest(name, names.clone()), fields.is_empty()) {
        (Some(near), _) => format!("is unknown. Did you mean \"{near}\"?"),
        (None, true) => "is unknown; the command takes none.".to_owned(),
        (None, false) => {
            let names: Vec<_> = names.collect();
            format!("is unknown; there are {}.", names.join(", "))
        }
    };
    let sentence = format!("Parameter \"{}\" {rest}", excerpt(name));
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

/// The name that may be meant by one that nobody knows: the one with the fewest letters changed, if
/// these are few.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const BYTES_MAX: usize = 64;
    const CHANGES_MAX: usize = 3;
    if name.len() > BYTES_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let most = (name.len() / 3).min(CHANGES_MAX);
    let changes =
        |known: &'n str| (strsim::osa_distance(&name, &known.to_ascii_lowercase()), known);
    known
        .into_iter()
        .map(changes)
        .filter(|(changes, _)| *changes <= most)
        .min()
        .map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::super::commands::COMMANDS;
    use super::*;

    #[test]
    fn the_near_name_is_found() {
        let known = ["disabled", "disabledUntil", "reason"];
        let check = |name: &str, near| assert_eq!(nearest(name, known), near, "{name}");
        check("disbled", Some("disabled"));
        check("DISABLEDuntil", Some("disabledUntil"));
        check("resaon", Some("reason"));
        check("colour", None);
        check("", None);
        check(&"disabled".repeat(100), None);
    }

    #[test]
    fn every_permission_of_the_vendor_is_known() {
        use rules::identity::permission::Permission;
        let page = include_str!("../../docs/protocol/tr50.md");
        let annex = page.split("## Annex A.").nth(1).and_then(|rest| rest.split("\n## ").next());
        let lines = annex.expect("the annex").lines().filter_map(|line| line.strip_prefix("* **"));
        let mut count = 0;
        for line in lines {
            let (family, members) = line.split_once("**: ").expect("a family");
            for member in members.split(", ") {
                let name = match member {
                    "(group)" => family.to_owned(),
                    member => format!("{family}.{member}"),
                };
                assert!(Permission::named(&name).is_some(), "{name}");
                count += 1;
            }
        }
        assert_eq!(count, 160);
    }

    #[test]
    fn what_administers_is_strict_and_what_devices_send_is_not() {
        let strict =
            |family: &str| ["user", "app", "role", "org", "audit", "login"].contains(&family);
        let single = ["session.list", "session.end", "session.mine"];
        for info in COMMANDS.iter() {
            let family = info.name.split_once('.').map_or("", |(family, _)| family);
            if strict(family) || single.contains(&info.name) {
                assert!(info.is_strict, "{}", info.name);
            }
            if ["property", "alarm", "attribute", "mailbox", "api", "diag", "file", "log"]
                .contains(&family)
            {
                assert!(!info.is_strict, "{}", info.name);
            }
        }
        for (name, members) in WITHOUT_EFFECT {
            let info = COMMANDS.iter().find(|info| info.name == name).expect("a command");
            let fields = (info.params)();
            assert!(info.is_strict && fields.iter().all(|field| !members.contains(&field.name)));
        }
    }
}
