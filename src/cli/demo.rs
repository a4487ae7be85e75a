//! What `serve --demo` prints: logins, and three commands to try.

use std::io::{self, Write};
use std::path::Path;

use base::Protocol;

use crate::serve::Listening;

/// Writes the tour for the listeners that there are. `goes`: whether the state in `data_dir` goes
/// with the server.
///
/// # Errors
///
/// The output can't be written.
pub fn write_tour(
    out: &mut impl Write,
    listening: &[Listening],
    data_dir: &Path,
    goes: bool,
) -> io::Result<()> {
    let state = if goes { "Demo state, gone when the server stops" } else { "Demo state" };
    writeln!(out, "\n{state}: {}", data_dir.display())?;
    out.write_all(LOGINS.as_bytes())?;
    writeln!(out, "To try:")?;
    let address = |wanted: Protocol| {
        listening.iter().find(|l| l.name() == wanted.as_str()).map(|l| l.address)
    };
    if let Some(address) = address(Protocol::Mqtt) {
        let (ip, port) = (address.ip(), address.port());
        writeln!(
            out,
            "  mosquitto_rr -h {ip} -p {port} -i demo -u mower-1 -P demo-token-basicorg \
             -t api/1 -e reply/1 -m '{LIST}'"
        )?;
    }
    if let Some(address) = address(Protocol::Tcp) {
        let (ip, port) = (address.ip(), address.port());
        writeln!(out, "  echo '{}' | nc -q1 {ip} {port}", with_auth(TCP_AUTH))?;
    }
    if let Some(address) = address(Protocol::Http) {
        writeln!(out, "  curl -s http://{address}/api -d '{}'", with_auth(HTTP_AUTH))?;
    }
    writeln!(out)
}

const LOGINS: &str = "\
Logins:
  super administrator           admin@devicewise.com          demo-admin-password
  administrator of BasicOrg     operator@basicorg.example     demo-operator-password
  user without permissions      viewer@basicorg.example       demo-viewer-password
  any thing of BasicOrg         thing key of your choice      demo-token-basicorg
  any thing of YorkOrg          thing key of your choice      demo-token-yorkorg
";

const LIST: &str = r#"{"cmd":{"command":"session.list"}}"#;

const TCP_AUTH: &str = r#""thingKey":"gateway-1","appToken":"demo-token-basicorg","appId":"demo""#;

const HTTP_AUTH: &str =
    r#""username":"operator@basicorg.example","password":"demo-operator-password""#;

/// A login and `session.list` in one request.
fn with_auth(params: &str) -> String {
    let list = LIST.strip_prefix('{').unwrap_or(LIST);
    format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{params}}}}},{list}"#)
}
