//! What `tr50d init` writes and says.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{BOOTSTRAP, CERT, CONFIG, DATA, KEY};

/// What may stand in a part of a URL as it is.
const IN_URL: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Where TLS is looked for without a port, as `tr50d call` does.
const MQTTS: u16 = 8883;
const TCPS: u16 = 5051;
const HTTPS: u16 = 8443;

/// What is to be made.
pub(super) struct Site {
    /// Its absolute path.
    pub dir: PathBuf,
    pub org: String,
    pub slug: String,
    pub email: String,
    /// The names beside localhost in a certificate; none without TLS.
    pub names: Option<Vec<String>>,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where TLS listeners listen: a name is for others to reach the server by.
    fn tls_host(&self) -> Option<&'static str> {
        let names = self.names.as_ref()?;
        Some(if names.is_empty() { "127.0.0.1" } else { "0.0.0.0" })
    }
}

/// What is said once and not written.
pub(super) struct Secrets {
    /// The password, if it was made.
    pub password: Option<String>,
    pub token: String,
}

/// The configuration.
///
/// # Errors
/// The path can't stand in TOML.
pub(super) fn config(site: &Site) -> Result<String, String> {
    let quoted = |name: &str| quoted_path(&site.path(name));
    let (data, bootstrap) = (quoted(DATA)?, quoted(BOOTSTRAP)?);
    let tls_listen = |port: u16| match site.tls_host() {
        Some(host) => format!("tls_listen = \"{host}:{port}\""),
        None => format!("# tls_listen = \"0.0.0.0:{port}\""),
    };
    let tls = match &site.names {
        Some(_) => format!("[tls]\ncert = {}\nkey = {}\n", quoted(CERT)?, quoted(KEY)?),
        None => "# TLS: name a certificate and its key here, and turn on `tls_listen` above.\n\
                 # [tls]\n# cert = \"/path/to/chain.pem\"\n# key = \"/path/to/key.pem\"\n"
            .to_owned(),
    };
    let (mqtts, tcps, https) = (tls_listen(MQTTS), tls_listen(TCPS), tls_listen(HTTPS));
    Ok(format!(
        r#"# The configuration of a tr50d server, made by `tr50d init`.
#
#   tr50d check --config FILE     looks it over
#   tr50d serve --config FILE     starts the server; Ctrl-C or SIGTERM stops it
#
# What is not here has its default: config/tr50d.toml in the sources explains every key. A variable
# TR50D_<SECTION>__<KEY> overrides one, such as TR50D_MQTT__TLS_LISTEN=0.0.0.0:8883.

[server]
# The state; made at the first start.
data_dir = {data}
# Who there is at the first start; read once, while the state is empty.
bootstrap = {bootstrap}

# Passwords and tokens go through listeners without TLS as they are: those stay on loopback, unless
# allow_plaintext = true in [server] says that the network is trusted.

[mqtt]
listen = "127.0.0.1:1883"
{mqtts}

[tcp]
listen = "127.0.0.1:5050"
{tcps}

[http]
listen = "127.0.0.1:8080"
{https}

{tls}
[limits]
# Commands a second for one session.
commands_per_s = 100
"#
    ))
}

/// The bootstrap file. Its roles are those of every organisation in fixtures/demo.toml.
pub(super) fn bootstrap(site: &Site, password_hash: &str, token_hash: &str) -> String {
    let (org, email) = (quoted(&site.org), quoted(&site.email));
    let slug = quoted(&site.slug);
    format!(
        r#"# Who there is at the first start of this server, made by `tr50d init`. It is read once, into an
# empty store; afterwards commands such as user.update change who there is, and this file changes
# nothing. fixtures/demo.toml in the sources explains every key.

[[org]]
key = {org}
slug = {slug}

# What devices, programs and developers may do, as the vendor's setup scripts expect it.
[[role]]
key = "device"
org = {org}

[[role]]
key = "automation"
org = {org}

[[role]]
key = "developer"
org = {org}

# The administrator, of everything.
[[user]]
email = {email}
password_hash = "{password_hash}"
home = {org}
super_admin = true

[[user.membership]]
org = {org}
org_admin = true

# What devices log in with: any thing key, and the token.
[[application]]
name = "devices"
org = {org}
token_hash = "{token_hash}"
token_name = "devices"
roles = ["device"]
auto_register = true
"#
    )
}

/// What is said at the end: what was made, the secrets, and how to go on.
pub(super) fn summary(site: &Site, secrets: &Secrets) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "tr50d".into());
    let program = shell_word(&program.to_string_lossy());
    let config = shell_word(&site.path(CONFIG).to_string_lossy());
    let mut text = format!("Made in {}:\n", site.dir.display());
    let _ = writeln!(text, "  {CONFIG:<15} the configuration");
    let _ = writeln!(text, "  {BOOTSTRAP:<15} who there is at the first start, without secrets");
    if site.names.is_some() {
        let _ = writeln!(text, "  {CERT:<15} the certificate, for clients too");
        let _ = writeln!(text, "  {KEY:<15} its key");
    }
    let _ = writeln!(text, "\nOrganisation   {} ({})", site.org, site.slug);
    if let Some(host) = site.tls_host() {
        let _ = writeln!(
            text,
            "TLS            mqtts {host}:{MQTTS}, tcps {host}:{TCPS}, https {host}:{HTTPS}"
        );
    }
    let _ = writeln!(text, "Administrator  {}", site.email);
    if let Some(password) = &secrets.password {
        let _ = writeln!(text, "Password       {password}  (shown only now)");
    }
    let _ = writeln!(text, "Device token   {}  (shown only now)", secrets.token);
    let email = utf8_percent_encode(&site.email, IN_URL);
    let password = secrets.password.as_deref().unwrap_or("PASSWORD");
    let device = format!("device-1:{}", secrets.token);
    let _ = writeln!(
        text,
        "\nNext:\n  {program} check --config {config}\n  {program} serve --config {config}\n\
         and, in another terminal, as a device and as the administrator:\n  \
         {program} call diag.ping --url 'mqtt://{device}@127.0.0.1'\n  \
         {program} call thing.list --url 'tcp://{email}:{password}@127.0.0.1'"
    );
    if site.names.is_some() {
        let cert = site.path(CERT);
        let cert = cert.to_string_lossy();
        let ca = utf8_percent_encode(&cert, IN_URL);
        let _ = writeln!(
            text,
            "  {program} call diag.ping --url 'mqtts://{device}@localhost/?ca={ca}'"
        );
    }
    text
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> Result<String, String> {
    let text = path.to_str().ok_or_else(|| {
        format!("the path {} is not UTF-8, which a configuration has to be", path.display())
    })?;
    Ok(quoted(text))
}

/// A text as one word of a shell's command line.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use base::Timestamp;
    use rules::identity::bootstrap;

    use super::*;
    use crate::config::Config;

    fn site(names: Option<&[&str]>) -> Site {
        Site {
            dir: "/srv/a \"b\"".into(),
            org: "Lawns\" & 'Co'".to_owned(),
            slug: "lawns".to_owned(),
            email: "o'neill@example.org".to_owned(),
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    fn read_config(site: &Site) -> Config {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(CONFIG);
        std::fs::write(&file, config(site).expect("UTF-8")).expect("written");
        Config::load(Some(&file), std::iter::empty()).expect("a configuration that works")
    }

    #[test]
    fn the_configuration_differs_from_the_defaults_in_what_it_says() {
        let mut expected = Config::default();
        expected.server.data_dir = "/srv/a \"b\"/data".into();
        expected.server.bootstrap = Some("/srv/a \"b\"/bootstrap.toml".into());
        assert_eq!(read_config(&site(None)), expected);
        let check = |names: &[&str], host: &str| {
            let config = read_config(&site(Some(names)));
            assert_eq!(config.tls.cert, Some("/srv/a \"b\"/cert.pem".into()));
            assert_eq!(config.tls.key, Some("/srv/a \"b\"/key.pem".into()));
            let listeners = [config.mqtt.tls_listen, config.tcp.tls_listen, config.http.tls_listen];
            for (listener, port) in listeners.into_iter().zip([8883, 5051, 8443]) {
                assert_eq!(listener, format!("{host}:{port}").parse().ok());
            }
        };
        check(&[], "127.0.0.1");
        check(&["tr50.example.org"], "0.0.0.0");
    }

    #[test]
    fn devices_may_do_what_they_may_in_the_demo() {
        let read = |text: &str| {
            let mut next = 0;
            let mut distinct = |bytes: &mut [u8]| {
                next += 1;
                bytes.fill(next);
            };
            bootstrap::read(text, Timestamp::from_millis(1), &mut distinct).expect("right")
        };
        let hash = rules::identity::password::hash_password("correct horse", [9; 16]);
        let made = read(&super::bootstrap(&site(None), &hash, &"0a".repeat(32)));
        let demo = read(include_str!("../../../fixtures/demo.toml"));
        let roles = |records: &rules::identity::Records| -> Vec<_> {
            let roles = records.roles.iter().take(3);
            roles.map(|role| (role.key.clone(), role.permissions.clone())).collect()
        };
        assert_eq!((roles(&made), made.roles.len()), (roles(&demo), 3));
        assert_eq!(made.orgs[0].key, "Lawns\" & 'Co'");
        assert_eq!(made.users[0].email, "o'neill@example.org");
        assert!(made.users[0].super_admin && made.users[0].memberships[0].org_admin);
        assert_eq!(made.applications[0].token_hash, [10; 32]);
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        let check = |text: &str, expected: &str| assert_eq!(shell_word(text), expected);
        check("/srv/tr50d.toml", "/srv/tr50d.toml");
        check("/a b/x", "'/a b/x'");
        check("o'neill", r"'o'\''neill'");
        check("~root", "'~root'");
        check("", "''");
    }
}
