//! Which IP addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not public: the first address and the length of the prefix. From the registry of
/// special-purpose addresses of the IANA, and one address of a cloud.
const NOT_PUBLIC_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),          // this network
    ([10, 0, 0, 0], 8),         // private
    ([100, 64, 0, 0], 10),      // shared by the customers of a provider (CGNAT)
    ([127, 0, 0, 0], 8),        // loopback
    ([168, 63, 129, 16], 32),   // Azure's own services, as seen from inside
    ([169, 254, 0, 0], 16),     // link-local, with the metadata of most clouds
    ([172, 16, 0, 0], 12),      // private
    ([192, 0, 0, 0], 24),       // protocol assignments, with the metadata of Oracle's cloud
    ([192, 0, 2, 0], 24),       // documentation
    ([192, 88, 99, 0], 24),     // relays of 6to4
    ([192, 168, 0, 0], 16),     // private
    ([198, 18, 0, 0], 15),      // benchmarks
    ([198, 51, 100, 0], 24),    // documentation
    ([203, 0, 113, 0], 24),     // documentation
    ([224, 0, 0, 0], 4),        // multicast
    ([240, 0, 0, 0], 4),        // reserved
    ([255, 255, 255, 255], 32), // broadcast
];

/// The IPv6 network that public addresses are given from (`2000::/3`). What lies outside is refused as a whole: `::`,
/// `::1`, IPv4-mapped and IPv4-compatible addresses, NAT64 (`64:ff9b::/96` and `64:ff9b:1::/48`), discard-only
/// (`100::/64`), segment routing (`5f00::/16`), unique local (`fc00::/7`), link-local (`fe80::/10`), site-local
/// (`fec0::/10`), multicast (`ff00::/8`).
const GIVEN_V6: ([u16; 2], u32) = ([0x2000, 0], 3);

/// IPv6 networks within `2000::/3` that are not public: the first 32 bits and the length of the prefix.
const NOT_PUBLIC_V6: [([u16; 2], u32); 4] = [
    ([0x2001, 0], 23), // protocol assignments: Teredo (2001::/32), benchmarks (2001:2::/48), ORCHID (2001:10::/28 …)
    ([0x2001, 0x0db8], 32), // documentation
    ([0x2002, 0], 16), // 6to4, which stands for an IPv4 address
    ([0x3fff, 0], 20), // documentation
];

/// Whether an address is one of the public internet. An IPv6 address that stands for an IPv4 address never is.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let within = |(network, prefix)| shares_prefix(address.to_bits(), Ipv4Addr::from(network).to_bits(), prefix);
    !NOT_PUBLIC_V4.into_iter().any(within)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let join = |[first, second]: [u16; 2]| (u32::from(first) << 16) | u32::from(second);
    let within = |(network, prefix)| shares_prefix(join([first, second]), join(network), prefix);
    within(GIVEN_V6) && !NOT_PUBLIC_V6.into_iter().any(within)
}

/// Whether two words begin with the same `prefix` bits, of which there are 1 to 32.
fn shares_prefix(a: u32, b: u32, prefix: u32) -> bool {
    (a ^ b) >> (32 - prefix) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last address before a network, its first, its last, and the first after it.
    const V4: [(&str, &str, &str, &str); 15] = [
        ("-", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
        ("223.255.255.255", "224.0.0.0", "255.255.255.255", "-"),
    ];

    const V6: [(&str, &str, &str, &str); 7] = [
        ("-", "::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"),
        ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
        ("2001:db7:ffff::1", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
        ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
        ("3ffe:ffff::1", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
        ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5fff::", "-"),
        ("-", "6000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-"),
    ];

    fn check(address: &str, expected: bool) {
        if address != "-" {
            assert_eq!(is_global(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn networks_end_where_the_registry_says() {
        for (before, first, last, after) in V4.into_iter().chain(V6) {
            check(before, true);
            check(first, false);
            check(last, false);
            check(after, true);
        }
    }

    #[test]
    fn addresses_with_a_meaning_of_their_own_are_not_public() {
        let local = "127.0.0.1 127.1.2.3 10.1.2.3 172.20.0.1 192.168.1.1 169.254.169.254 100.100.100.200 0.0.0.0 \
                     192.0.0.192 192.0.0.9 255.255.255.255 239.255.255.250 224.0.0.1 240.0.0.1 198.19.0.1";
        let v6 = "::1 :: ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 ::127.0.0.1 ::8.8.8.8 fc00::1 fd00:ec2::254 \
                  fd20:ce::254 fe80::1 febf:ffff::1 fec0::1 feff::1 ff02::1 ff0e::1 64:ff9b::7f00:1 64:ff9b::808:808 \
                  64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:30::1 \
                  2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1";
        local.split_whitespace().chain(v6.split_whitespace()).for_each(|address| check(address, false));
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        let public = "1.1.1.1 8.8.8.8 93.184.215.14 100.0.0.1 172.15.0.1 172.32.0.1 192.0.1.1 192.31.196.1 223.1.1.1 \
                      2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450:4001::200e 2620:4f:8000::1 2400:cb00::1";
        public.split_whitespace().for_each(|address| check(address, true));
    }
}
