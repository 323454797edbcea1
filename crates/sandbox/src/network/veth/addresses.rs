//! Addresses that nobody else on this machine has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of which parts are taken, four addresses each, where this machine has no route to them.
const NETWORKS: [(Ipv4Addr, u32); 3] = [
    (Ipv4Addr::new(10, 213, 0, 0), 1 << 16),
    (Ipv4Addr::new(172, 29, 0, 0), 1 << 16),
    (Ipv4Addr::new(192, 168, 213, 0), 1 << 8),
];
/// The length of the prefix of such a part.
const PREFIX_LENGTH: u8 = 30;
/// A network of IPv6 for use on one machine (RFC 4193), with a number drawn once.
const UNIQUE_LOCAL: [u16; 3] = [0xfd66, 0x6f72, 0x6d77];

/// The addresses of a pair of interfaces, in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) outside: IpAddr,
    pub(super) inside: IpAddr,
    prefix_length: u8,
}

impl Ends {
    /// The outer one, with the length of the network's prefix.
    pub(super) fn outer(&self) -> (IpAddr, u8) {
        (self.outside, self.prefix_length)
    }

    /// The inner one, with the length of the network's prefix.
    pub(super) fn inner(&self) -> (IpAddr, u8) {
        (self.inside, self.prefix_length)
    }

    /// Those of IPv6 that go with these: as much one's own as they are.
    pub(super) fn sixth(self) -> Self {
        let of = |address: IpAddr| match address {
            IpAddr::V4(four) => {
                let [a, b, c, d] = four.octets().map(u16::from);
                let [first, second, third] = UNIQUE_LOCAL;
                Ipv6Addr::new(first, second, third, a << 8 | b, 0, 0, 0, c << 8 | d).into()
            }
            IpAddr::V6(_) => address,
        };
        Self { outside: of(self.outside), inside: of(self.inside), prefix_length: 126 }
    }
}

/// Four addresses that this machine has no route to, given `/proc/net/route`.
pub(super) fn free(routes: &str, start: u32) -> Option<Ends> {
    let network = free_network(routes, start)?.to_bits();
    let address = |number| IpAddr::from(Ipv4Addr::from_bits(network + number));
    Some(Ends { outside: address(1), inside: address(2), prefix_length: PREFIX_LENGTH })
}

fn free_network(routes: &str, start: u32) -> Option<Ipv4Addr> {
    let hexadecimal = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let taken: Vec<(u32, u32)> = routes
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (destination, mask) = (hexadecimal(fields.nth(1)?)?, hexadecimal(fields.nth(5)?)?);
            // The default route leads everywhere else.
            (mask != 0).then_some((destination, mask))
        })
        .collect();
    let own = u32::MAX << (32 - PREFIX_LENGTH);
    let is_free = |network: u32| {
        taken.iter().all(|(destination, mask)| (network ^ destination) & mask & own != 0)
    };
    NETWORKS.iter().find_map(|(network, size)| {
        let parts = size / 4;
        let part = |number: u32| network.to_bits() + (start.wrapping_add(number) % parts) * 4;
        (0..parts).map(part).find(|network| is_free(*network)).map(Ipv4Addr::from_bits)
    })
}

/// Whether an address of IPv6 is of use beyond its interface, given `/proc/net/if_inet6`.
pub(super) fn reach_the_world(known: &str) -> bool {
    // The fourth field is the scope, of which 0 is the world; each sandbox has one of its own there.
    known.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (address, scope, name) = (fields.next(), fields.nth(2), fields.nth(1));
        let is_ours = name.is_none_or(|name| name.starts_with(super::PREFIX));
        address.is_some() && scope == Some("00") && !is_ours
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";

    #[test]
    fn networks_are_taken_that_this_machine_does_not_know() {
        let free = |routes: &str, start| free_network(&format!("{HEAD}{routes}"), start);
        let default = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n";
        assert_eq!(free(default, 0), Some(Ipv4Addr::new(10, 213, 0, 0)));
        assert_eq!(free(default, 5), Some(Ipv4Addr::new(10, 213, 0, 20)));
        assert_eq!(free(default, u32::MAX), Some(Ipv4Addr::new(10, 213, 255, 252)));
        // Another sandbox has the first four.
        let taken = "fwk1\t0000D50A\t00000000\t0001\t0\t0\t0\tFCFFFFFF\t0\n";
        assert_eq!(free(taken, 0), Some(Ipv4Addr::new(10, 213, 0, 4)));
        let whole = "tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\n";
        assert_eq!(free(whole, 0), Some(Ipv4Addr::new(172, 29, 0, 0)));
        let private =
            "a\t000010AC\t0\t1\t0\t0\t0\t0000F0FF\t0\nb\t0000A8C0\t0\t1\t0\t0\t0\t0000FFFF\t0\n";
        assert_eq!(free(&format!("{whole}{private}"), 0), None);
        assert_eq!(free("nonsense\n", 0), Some(Ipv4Addr::new(10, 213, 0, 0)));
    }

    #[test]
    fn both_kinds_of_addresses_belong_together() {
        let ends = super::free("", 5).unwrap();
        assert_eq!((ends.outer(), ends.inner()), (of("10.213.0.21", 30), of("10.213.0.22", 30)));
        let six = ends.sixth();
        assert_eq!(six.outer(), of("fd66:6f72:6d77:ad5::15", 126));
        assert_eq!(six.inner(), of("fd66:6f72:6d77:ad5::16", 126));
    }

    fn of(address: &str, length: u8) -> (IpAddr, u8) {
        (address.parse().unwrap(), length)
    }

    #[test]
    fn only_addresses_of_the_world_count() {
        let own = "00000000000000000000000000000001 01 80 10 80       lo\n\
                   fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n";
        let sandboxs = "fd666f726d770ad50000000000000015 07 7e 00 80   fwk123\n";
        assert!(!reach_the_world(&format!("{own}{sandboxs}")));
        let global = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert!(reach_the_world(&format!("{own}{global}")));
        assert!(!reach_the_world("") && !reach_the_world("nonsense\n00 00 00 00\n"));
    }
}
