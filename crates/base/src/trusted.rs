//! Trusted peers: load balancers and reverse proxies whose word is taken for the address of the
//! client behind them, and how X-Forwarded-For is read.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The peers that are believed when they say for whom they speak.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trusted(Vec<IpNet>);

impl Trusted {
    /// The peers with these addresses, or in these networks (`10.0.0.0/8`); `None` if a text is
    /// neither.
    pub fn parse<'a>(networks: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        networks.into_iter().map(network).collect::<Option<_>>().map(Self)
    }

    /// Whether `addr` is one of them. An IPv4 address inside an IPv6 one counts as what it is.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&addr.to_canonical()))
    }

    /// The peer for whom `peer` forwards an HTTP request, by the values of its X-Forwarded-For
    /// headers in order.
    ///
    /// Read from the right, for everything left of the first peer that is not trusted is only that
    /// peer's own word. The port is 0 where the header names none.
    pub fn forwarded<'a>(
        &self,
        peer: SocketAddr,
        values: impl DoubleEndedIterator<Item = &'a str>,
    ) -> SocketAddr {
        let mut real = peer;
        for hop in values.rev().flat_map(|value| value.rsplit(',')) {
            if !self.contains(real.ip()) {
                break;
            }
            match forwarded_addr(hop.trim()) {
                Some(addr) => real = addr,
                None => break,
            }
        }
        real
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
}

/// An address as X-Forwarded-For writes it: with or without a port, IPv6 with or without brackets.
fn forwarded_addr(text: &str) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().ok();
    with_port
        .or_else(|| {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            Some(SocketAddr::new(bare.unwrap_or(text).parse().ok()?, 0))
        })
        .map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(networks: &[&str]) -> Trusted {
        Trusted::parse(networks.iter().copied()).expect("addresses and networks")
    }

    #[test]
    fn networks_contain_their_addresses() {
        let check = |network: &str, addr: &str, inside: bool| {
            let contains = trusted(&[network]).contains(addr.parse().expect(addr));
            assert_eq!(contains, inside, "{addr} in {network}");
        };
        check("10.0.0.0/8", "10.255.1.2", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "::1", true);
        check("10.1.2.3/8", "10.255.1.2", true);
        check("192.0.2.129/25", "192.0.2.128", true);
        check("192.0.2.129/25", "192.0.2.127", false);
        check("192.0.2.1/32", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::1", "::1", true);
        check("::1", "::2", false);
        // No peer is in it, for its addresses count as those of IPv4.
        check("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", false);
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/-1", "10.0.0"] {
            assert_eq!(Trusted::parse([bad]), None, "{bad:?}");
        }
    }

    #[test]
    fn only_trusted_hops_are_followed() {
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]);
        let check = |peer: &str, values: &[&str], real: &str| {
            let real: SocketAddr = real.parse().expect(real);
            let peer = peer.parse().expect(peer);
            assert_eq!(proxies.forwarded(peer, values.iter().copied()), real, "{values:?}");
        };
        check("192.0.2.9:5", &["198.51.100.1"], "192.0.2.9:5");
        check("10.0.0.1:5", &["198.51.100.1"], "198.51.100.1:0");
        check("10.0.0.1:5", &["6.6.6.6, 198.51.100.1"], "198.51.100.1:0");
        check("10.0.0.1:5", &["6.6.6.6", "198.51.100.1:77 ,10.0.0.2"], "198.51.100.1:77");
        check("10.0.0.1:5", &["2001:db8::1, [fd00::1]:9"], "[2001:db8::1]:0");
        check("10.0.0.1:5", &["198.51.100.1, unknown, 10.0.0.3"], "10.0.0.3:0");
        check("10.0.0.1:5", &[], "10.0.0.1:5");
        check("10.0.0.1:5", &[""], "10.0.0.1:5");
    }
}
