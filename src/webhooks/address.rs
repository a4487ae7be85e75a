//! Which addresses a webhook may reach. Whoever may make a webhook is not thereby let into the
//! server's own network, nor to the server's own machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a webhook may be sent to this address; `private`: whether also to this machine and to
/// networks that are not the Internet. Nobody's and everybody's addresses are never reached.
pub fn may_reach(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(address) => may_reach_v4(address, private),
        IpAddr::V6(address) => may_reach_v6(address, private),
    }
}

/// The networks of IPv4 that are not the Internet (IANA's registry of special-purpose addresses),
/// as address and length of the prefix.
const PRIVATE_V4: [(Ipv4Addr, u32); 13] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
];

fn may_reach_v4(address: Ipv4Addr, private: bool) -> bool {
    let [first, ..] = address.octets();
    // This network; multicast; reserved, with broadcast.
    if first == 0 || first >= 224 {
        return false;
    }
    let is_in = |(network, bits): &(Ipv4Addr, u32)| {
        (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0
    };
    private || !PRIVATE_V4.iter().any(is_in)
}

/// Of the Internet's own 2000::/3, what is not the Internet: protocol assignments with Teredo and
/// benchmarks, documentation.
const PRIVATE_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn may_reach_v6(address: Ipv6Addr, private: bool) -> bool {
    if address.is_unspecified() || address.is_multicast() {
        return false;
    }
    // Whatever stands for an address of IPv4 is as that one.
    if let Some(inner) = inner_v4(address) {
        return may_reach_v4(inner, private);
    }
    let is_in = |(network, bits): &(Ipv6Addr, u32)| {
        (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0
    };
    let is_internet = address.segments()[0] >> 13 == 1 && !PRIVATE_V6.iter().any(is_in);
    private || is_internet
}

/// The address of IPv4 that is meant: mapped, compatible, translated (NAT64), or 6to4. Loopback,
/// which looks like a compatible one, is none.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let [a, b, c, d] = [octets[12], octets[13], octets[14], octets[15]];
    let last = Ipv4Addr::new(a, b, c, d);
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(last),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x2002, high, low, ..] => {
            let bits = u32::from(high) << 16 | u32::from(low);
            Some(Ipv4Addr::from_bits(bits))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, public: bool, private: bool) {
        let parsed = address.parse().expect("an address");
        let found = (may_reach(parsed, false), may_reach(parsed, true));
        assert_eq!(found, (public, private), "{address}");
    }

    #[test]
    fn only_the_internet_is_reached() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00::1",
            "2001:200::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            check(address, true, true);
        }
    }

    #[test]
    fn networks_of_ones_own_need_the_setting() {
        for address in [
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "64:ff9b::192.168.0.1",
            "64:ff9b:1::192.168.0.1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ] {
            check(address, false, true);
        }
    }

    #[test]
    fn what_is_no_single_host_is_never_reached() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "64:ff9b::255.255.255.255",
            "2002:e000:1::1",
        ] {
            check(address, false, false);
        }
    }
}
