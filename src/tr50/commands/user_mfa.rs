//! `user.mfa.*`: the second factor of users, which logins need beside the password
//! (`docs/protocol/tr50.md` 3.1).

use base::{Code, Failure};
use rules::directory::Principal;
use rules::identity::model::User;
use rules::identity::{RECOVERY_BYTES, RECOVERY_CODES, SecondFactor};
use serde::Serialize;

use super::user::{self, FindParams};
use super::{authorize, commands};
use crate::app::{Affected, Effects, SessionChange};
use crate::random::random;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done, Later};
use crate::tr50::strict::Strict;

commands! {
    act "user.mfa.confirm" => confirm where user::check_is_user, [NOT_FOUND, LOGIN_REFUSED, WRONG_SESSION_KIND],
        "Makes the secret of `user.mfa.enrol` the caller's second factor, by its first code. From now \
         on logins need a code; the caller's other sessions end as revoked. Each recovery code is \
         good for one login without the authenticator; they are shown in this reply only.",
        "`recoveryCodes`";
    act "user.mfa.enrol" => enrol where user::check_is_user, [LOGIN_REFUSED, LOGIN_LOCKED, BUSY, WRONG_SESSION_KIND],
        "Makes a secret for the caller's authenticator (TOTP), which is shown in this reply only and \
         counts when `user.mfa.confirm` is called with a code of it. A second factor that is there \
         already stays until then.",
        "`secret` in Base32, `uri` for a QR code";
    "user.mfa.find" => find, [NOT_FOUND, WRONG_SESSION_KIND],
        "Shows whether the caller has a second factor, or a user whom the caller may change with \
         `user.update`: whether one is required, and how many recovery codes are left.",
        "`mfa`, `mfaRequired`, `recoveryCodesLeft`",
        "other users" where user::check_administers;
    act "user.mfa.remove" => remove, [NOT_FOUND, LOGIN_REFUSED, LOGIN_LOCKED, BUSY, WRONG_SESSION_KIND],
        "Removes a second factor: the caller's own, with the password or a code, or, for those who \
         may change the user with `user.update`, another's.",
        "",
        "other users" where user::check_administers,
        "users who may do more, or elsewhere" where authorize::check_grants_all;
}

params! {
    /// Who wants a second factor.
    pub struct EnrolParams {
        required_exact password: String = "password", "The caller's password.";
    }
}

params! {
    /// The first code.
    pub struct ConfirmParams {
        required_exact code: String = "code", "What the authenticator shows.";
    }
}

params! {
    /// The proof that it is oneself.
    pub struct Proof {
        optional_exact password: String = "password", "The caller's password.";
        optional_exact code: String = "code",
            "What the caller's authenticator shows, or a recovery code, instead.";
    }
}

/// The reply of `user.mfa.enrol`.
#[derive(Serialize)]
pub struct Enrolled {
    secret: String,
    uri: String,
}

/// The reply of `user.mfa.confirm`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Confirmed {
    recovery_codes: Vec<String>,
}

/// The reply of `user.mfa.find`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecondFactorView {
    mfa: bool,
    mfa_required: bool,
    recovery_codes_left: usize,
}

/// `user.mfa.find`.
pub fn find(
    call: &Call<'_>,
    Strict(which): Strict<FindParams>,
) -> Result<SecondFactorView, Failure> {
    let user = user::meant(call, &which)?;
    Ok(SecondFactorView {
        mfa: user.second_factor.is_active(),
        mfa_required: call.app.identity().needs_second_factor(&user),
        recovery_codes_left: user.second_factor.recovery_left(),
    })
}

/// `user.mfa.enrol`.
pub fn enrol(call: &Call<'_>, Strict(params): Strict<EnrolParams>) -> Result<Later, Failure> {
    let user = user::own(call)?;
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    Ok(Later::new(async move {
        let proof = ("password", params.password);
        app.verify_password(&user, proof, &session, app.clock.now()).await?;
        let call = Call { app: &app, session: &session, conn: *session.conn(), now };
        let turn = app.identity().turn();
        let user = user::own(&call)?;
        let (second_factor, secret) = user.second_factor.enrol(random()?);
        let reply = Enrolled { uri: uri(&user.email, &secret), secret };
        let changed = User { second_factor, ..User::clone(&user) };
        Ok(After(reply, turn.put(changed).into()))
    }))
}

/// What authenticators read: the key URI format, with the values that are the default of all.
fn uri(email: &str, secret: &str) -> String {
    let label = percent_encoding::utf8_percent_encode(email, percent_encoding::NON_ALPHANUMERIC);
    format!(
        "otpauth://totp/tr50d:{label}?secret={secret}&issuer=tr50d&algorithm=SHA1&digits=6&period=30"
    )
}

/// `user.mfa.confirm`.
pub fn confirm(
    call: &Call<'_>,
    Strict(params): Strict<ConfirmParams>,
) -> Result<After<Confirmed>, Failure> {
    let turn = call.app.identity().turn();
    let user = user::own(call)?;
    if !user.second_factor.is_enrolled() {
        return Err(Failure::new(
            Code::NOT_FOUND,
            "There is no secret to confirm; make one with user.mfa.enrol.",
        ));
    }
    let bytes: [u8; RECOVERY_BYTES * RECOVERY_CODES] = random()?;
    let (chunks, _) = bytes.as_chunks::<RECOVERY_BYTES>();
    let random = std::array::from_fn(|index| chunks[index]);
    let confirmed = user.second_factor.confirm(&params.code, random, call.now);
    let (second_factor, recovery_codes) = confirmed.ok_or_else(|| {
        let sentence = "Parameter \"code\" is not what the authenticator shows now.";
        Failure::new(Code::LOGIN_REFUSED, sentence)
    })?;
    call.app.forget_codes(user.id);
    let id = user.id;
    let changed = turn.put(User { second_factor, ..User::clone(&user) });
    // They began with the password alone, or with another factor.
    let others = SessionChange::EndOthers(Principal::User(id), call.session.clone());
    let effects = Effects::from(changed).followed_by(Affected::User(id)).and_sessions([others]);
    Ok(After(Confirmed { recovery_codes }, effects))
}

/// `user.mfa.remove`.
pub fn remove(
    call: &Call<'_>,
    Strict((which, proof)): Strict<(FindParams, Proof)>,
) -> Result<Later, Failure> {
    let user = user::meant(call, &which)?;
    if user.second_factor.is_none() {
        return Err(Failure::not_found(format!("A second factor of {}", user.email)));
    }
    let is_own = call.session.who().principal() == Principal::User(user.id);
    if is_own && proof.password.is_none() && proof.code.is_none() {
        return Err(missing("password"));
    }
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    Ok(Later::new(async move {
        match (is_own, proof.password, proof.code) {
            (true, Some(password), _) => {
                let proof = ("password", password);
                app.verify_password(&user, proof, &session, app.clock.now()).await?;
            }
            (true, None, Some(code)) => {
                app.verify_code(&user, &code, &session, app.clock.now()).await?;
            }
            _ => {}
        }
        let call = Call { app: &app, session: &session, conn: *session.conn(), now };
        let turn = app.identity().turn();
        // Again, for it took a while.
        let which = FindParams { id: Some(user.id), ..FindParams::default() };
        let user = user::meant(&call, &which)?;
        let mut changed = User { second_factor: SecondFactor::default(), ..User::clone(&user) };
        changed.updated = authorize::stamp(&call);
        app.forget_codes(user.id);
        let effects = Effects::from(turn.put(changed)).followed_by(Affected::User(user.id));
        Ok(After(Done, effects))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authenticators_read_whose_secret_it_is() {
        let uri = uri("a+b@c.example", "ABC");
        let label = "otpauth://totp/tr50d:a%2Bb%40c%2Eexample?secret=ABC&";
        assert!(uri.starts_with(label), "{uri}");
    }
}
