//! What a certificate says: until when it is good, and whom it names.

use base::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::app::ClientNames;

/// The end of a certificate's time; none if it can't be read, which its user will tell.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
}

/// Whom a client's certificate names, in its subject's CN and in its subjectAltName: e-mail
/// addresses, DNS names and URIs. A certificate that can't be read names nobody.
pub(super) fn client_names(certificate: &CertificateDer<'_>) -> ClientNames {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return ClientNames::default();
    };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.map(|extension| extension.value.general_names.as_slice());
    let mut names = ClientNames::default();
    for name in alternatives.unwrap_or_default() {
        match name {
            GeneralName::RFC822Name(address) => names.emails.push((*address).into()),
            GeneralName::DNSName(name) | GeneralName::URI(name) => {
                names.others.push((*name).into())
            }
            _ => {}
        }
    }
    let common = certificate.subject().iter_common_name();
    for name in common.filter_map(|name| name.as_str().ok()) {
        let kind = if name.contains('@') { &mut names.emails } else { &mut names.others };
        kind.push(name.into());
    }
    names
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn names(common: Option<&str>, alternatives: Vec<SanType>) -> ClientNames {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = alternatives;
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let end = expiry(certificate.der()).expect("an end");
        assert_eq!(end.to_string(), "2030-01-02T00:00:00.000Z");
        client_names(certificate.der())
    }

    #[test]
    fn names_are_those_of_subject_and_alternatives() {
        let check = |found: ClientNames, emails: &[&str], others: &[&str]| {
            let expected = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
            assert_eq!(found, ClientNames { emails: expected(emails), others: expected(others) });
        };
        let ia5 = |text: &str| text.try_into().expect("ASCII");
        check(names(Some("mower-1"), Vec::new()), &[], &["mower-1"]);
        check(names(Some("me@x.example"), Vec::new()), &["me@x.example"], &[]);
        check(names(None, Vec::new()), &[], &[]);
        let alternatives = vec![
            SanType::Rfc822Name(ia5("me@x.example")),
            SanType::DnsName(ia5("mower-2")),
            SanType::URI(ia5("urn:mower:3")),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ];
        check(
            names(Some("mower-1"), alternatives),
            &["me@x.example"],
            &["mower-2", "urn:mower:3", "mower-1"],
        );
        assert_eq!(client_names(&CertificateDer::from(vec![1, 2, 3])), ClientNames::default());
    }
}
