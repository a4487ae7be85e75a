//! `tr50d init`: a directory from which a server can start.

mod files;
mod password;
mod texts;

use std::io::Write;
use std::path::PathBuf;

use base::Timestamp;
use clap::Args;
use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use rules::identity::password::hash_password;
use rules::identity::{NAME_RULE, SLUG_RULE, bootstrap, is_email, is_name, is_slug};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};

use crate::random::random;
use files::NewFiles;
use texts::{Secrets, Site};

/// The configuration's name in its directory.
const CONFIG: &str = "tr50d.toml";

/// The bootstrap file's name.
const BOOTSTRAP: &str = "bootstrap.toml";

/// The certificate's name, and its key's.
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// The name of the directory of the durable state, which the server makes.
const DATA: &str = "data";

/// How many years a certificate is good for: nobody renews those of a site of one's own in time.
const CERT_YEARS: i32 = 10;

/// Makes a directory from which a server can start, with an administrator and a token for devices.
///
/// In it are a configuration and the first organisation with its administrator and an application,
/// whose token devices log in with. The administrator's password is asked for; where nobody can be
/// asked, or nothing is entered, one is made and shown once. The token is made and shown once. Only
/// hashes of both are written. Nothing that exists is changed, and nothing is left of a failure.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tr50d init my-site
  tr50d init my-site-with-tls --org \"Green Lawns\" --self-signed tr50.example.org 192.0.2.7
  echo 'correct horse' | tr50d init my-other-site --email me@example.org --password-stdin

Start it with `tr50d serve --config DIR/tr50d.toml`. With --self-signed, clients get DIR/cert.pem to
check the server's certificate against. TLS listeners are on loopback without a NAME, and on every
address with one; those without TLS stay on loopback.")]
pub struct InitArgs {
    /// Where to make it: a directory that is not there yet, or has none of these files
    dir: PathBuf,
    /// Name of the first organisation
    #[arg(long, value_name = "NAME", default_value = "Main", value_parser = org)]
    org: String,
    /// The organisation's name in paths: a-z, 0-9 and '-' [default: made from its name]
    #[arg(long, value_name = "SLUG", value_parser = slug)]
    slug: Option<String>,
    /// E-mail address that the administrator logs in with
    #[arg(long, value_name = "ADDRESS", default_value = "admin@localhost", value_parser = email)]
    email: String,
    /// Read the administrator's password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Make a certificate for localhost and these names and addresses, and serve TLS with it
    #[arg(long, value_name = "NAME", num_args = 0.., value_parser = server_name)]
    self_signed: Option<Vec<String>>,
}

/// Runs `tr50d init`.
///
/// # Errors
/// Why nothing was made, in one sentence.
pub async fn run(args: InitArgs) -> Result<(), String> {
    let slug = match args.slug {
        Some(slug) => slug,
        None => slug_of(&args.org)?,
    };
    // Before anybody is asked for anything.
    NewFiles::check(&args.dir, &[CONFIG, BOOTSTRAP, CERT, KEY, DATA])?;
    let chosen = password::choose(args.password_stdin, &args.email).await?;
    let is_made = chosen.is_none();
    let password = match chosen {
        Some(password) => password,
        None => BASE32_DNSSEC.encode(&random::<15>().map_err(sentence)?),
    };
    // Sixteen characters, for some vendor tools take no others.
    let token = BASE32_DNSSEC.encode(&random::<10>().map_err(sentence)?);
    let password_hash = hash_password(&password, random().map_err(sentence)?);
    let mut files = NewFiles::in_dir(&args.dir)?;
    let token_hash = HEXLOWER.encode(&Sha256::digest(&token));
    let site = Site {
        dir: files.dir().to_owned(),
        org: args.org,
        slug,
        email: args.email,
        names: args.self_signed,
    };
    let bootstrap = texts::bootstrap(&site, &password_hash, &token_hash);
    // Whatever these options make, `serve` must be able to read.
    bootstrap::check_text(&bootstrap, Timestamp::now())
        .map_err(|problem| format!("can't make the bootstrap file: {problem}"))?;
    if let Some(names) = &site.names {
        let pair = make_certificate(names)
            .map_err(|error| format!("can't make a certificate for these names: {error}"))?;
        files.write(CERT, &pair.cert.pem())?;
        files.write(KEY, &pair.signing_key.serialize_pem())?;
    }
    files.write(BOOTSTRAP, &bootstrap)?;
    // Last: where it is, everything is.
    files.write(CONFIG, &texts::config(&site)?)?;
    let secrets = Secrets { password: is_made.then_some(password), token };
    let said = texts::summary(&site, &secrets);
    // Before the files stay: without what is said, nobody can log in.
    let mut out = std::io::stdout().lock();
    out.write_all(said.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("can't say what was made, so nothing was: {error}"))?;
    files.keep();
    Ok(())
}

fn sentence(error: impl std::error::Error) -> String {
    error.to_string()
}

/// A pair for localhost and these names, which signs itself.
fn make_certificate(names: &[String]) -> Result<rcgen::CertifiedKey<rcgen::KeyPair>, rcgen::Error> {
    let signing_key = rcgen::KeyPair::generate()?;
    let cert = certificate(names)?.self_signed(&signing_key)?;
    Ok(rcgen::CertifiedKey { cert, signing_key })
}

/// What a certificate says that is made now.
fn certificate(names: &[String]) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let now = Timestamp::now().to_string();
    let year: i32 = now.split('-').next().and_then(|year| year.parse().ok()).unwrap_or(2000);
    let local = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let first = names.first().unwrap_or(&local[0]).clone();
    let mut all = names.to_vec();
    all.extend(local.into_iter().filter(|name| !names.contains(name)));
    let mut params = rcgen::CertificateParams::new(all)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, first);
    // From the beginning of the year before: clocks of devices are late.
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + CERT_YEARS, 1, 1);
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A slug from an organisation's name: what fits, in lower case, the rest as hyphens.
fn slug_of(org: &str) -> Result<String, String> {
    let mut slug = String::with_capacity(org.len());
    for c in org.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_matches('-');
    if is_slug(slug) {
        return Ok(slug.to_owned());
    }
    Err(format!("no slug can be made from {org:?}; give one with --slug: {SLUG_RULE}"))
}

fn org(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("it must be {NAME_RULE}")) }
}

fn slug(text: &str) -> Result<String, String> {
    if is_slug(text) { Ok(text.to_owned()) } else { Err(format!("it must be {SLUG_RULE}")) }
}

fn email(text: &str) -> Result<String, String> {
    if is_email(text) { Ok(text.to_owned()) } else { Err("it is no e-mail address".to_owned()) }
}

fn server_name(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    match ServerName::try_from(name) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it is no host name and no IP address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_made_from_names() {
        let check = |org: &str, expected: Option<&str>| {
            assert_eq!(slug_of(org).ok().as_deref(), expected, "{org}");
        };
        check("Main", Some("main"));
        check("Green Lawns & Co.", Some("green-lawns-co"));
        check("  Ärger 7", Some("rger-7"));
        check("7 Dwarfs", None);
        check("日本", None);
        check("X", None);
    }

    #[test]
    fn a_certificate_has_the_names_and_an_end() {
        let names = ["tr50.example.org", "localhost", "192.0.2.7"].map(str::to_owned);
        let params = certificate(&names).expect("names that are possible");
        let [.., v4, v6] = params.subject_alt_names.as_slice() else { panic!("no names") };
        let ip = |text: &str| rcgen::SanType::IpAddress(text.parse().expect("an address"));
        assert_eq!((v4, v6), (&ip("127.0.0.1"), &ip("::1")));
        assert_eq!(params.subject_alt_names.len(), 5, "localhost only once");
        let years = params.not_after.year() - params.not_before.year();
        assert_eq!(years, CERT_YEARS + 1);
        assert!(make_certificate(&["ü".to_owned()]).is_err());
    }
}
