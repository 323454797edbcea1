//! What private networks take of this machine's: its name servers, and where they may, its services.
//!
//! It only reads what this machine says of itself; the sandbox makes the networks.

use std::net::{IpAddr, Ipv4Addr};

use formwork_build::{UPLINK_HOST, Uplink};

use crate::exit::Failure;

/// Files with the servers that a resolver of this machine's own asks: systemd's, NetworkManager's.
const UPSTREAM: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// The servers where none is known that can be reached: those of docker and BuildKit.
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// The servers to ask for names from within a private network, given the texts of files; none where
/// those of `/etc/resolv.conf` will do. What listens on this machine's loopback interface, as
/// systemd's resolver does, cannot be reached from there; what it asks itself can.
pub(crate) fn name_servers(text: impl Fn(&'static str) -> String) -> Vec<IpAddr> {
    let servers = |file| -> Vec<IpAddr> {
        let text = text(file);
        let lines = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
        lines.filter_map(|address| address.trim().parse().ok()).collect()
    };
    let reachable = |mut servers: Vec<IpAddr>| {
        servers.retain(|server| !server.to_canonical().is_loopback());
        servers
    };
    let own = servers("/etc/resolv.conf");
    let of_own = reachable(own.clone());
    if !of_own.is_empty() {
        return if of_own.len() == own.len() { Vec::new() } else { of_own };
    }
    let known = UPSTREAM.map(|file| reachable(servers(file)));
    let known = known.into_iter().find(|servers| !servers.is_empty());
    known.unwrap_or_else(|| PUBLIC.map(IpAddr::from).into())
}

/// Lets a private network reach this machine; by which address.
pub(crate) fn open(uplink: &mut Uplink) -> Result<Ipv4Addr, Failure> {
    match uplink {
        Uplink::Veth { host } => {
            *host = true;
            Ok(UPLINK_HOST)
        }
        Uplink::Pasta { host, .. } => {
            let routes = fs_err::read_to_string("/proc/net/route").unwrap_or_default();
            *host = gateway(&routes);
            host.ok_or_else(|| {
                Failure::machine(
                    "`host-gateway` takes a route to the world, and this machine has none",
                )
                .with_help("name an address, or use `--network=host`")
            })
        }
    }
}

/// The gateway of the best default route, given `/proc/net/route`.
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    // The kernel writes what is in the network's order as a number of the machine's.
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let default = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        let (gateway, metric) = (address(fields.get(2)?)?, fields.get(6)?.parse::<u32>().ok()?);
        (destination == 0 && mask == 0 && gateway != 0).then_some((metric, gateway))
    });
    default.min().map(|(_, gateway)| Ipv4Addr::from_bits(gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_those_that_a_private_network_reaches() {
        let servers = |own: &str, upstream: &str, other: &str| {
            let files = [("/etc/resolv.conf", own), (UPSTREAM[0], upstream), (UPSTREAM[1], other)];
            let text = |file| {
                let found = files.iter().find(|(name, _)| *name == file);
                found.map(|(_, text)| (*text).to_owned()).unwrap_or_default()
            };
            let found = name_servers(text).into_iter().map(|server| server.to_string());
            found.collect::<Vec<_>>().join(" ")
        };
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(servers("nameserver 10.0.0.1\nsearch a\n", "nameserver 10.0.0.2\n", ""), "");
        assert_eq!(servers("nameserver ::1\nnameserver\t10.0.0.1\n", "", ""), "10.0.0.1");
        assert_eq!(
            servers(stub, "nameserver 10.0.0.2\nnameserver fd00::2\n", ""),
            "10.0.0.2 fd00::2"
        );
        assert_eq!(servers(stub, stub, "nameserver 10.0.0.3\n"), "10.0.0.3");
        assert_eq!(servers(stub, "", ""), "8.8.8.8 8.8.4.4");
        assert_eq!(servers("", "", ""), "8.8.8.8 8.8.4.4");
    }

    #[test]
    fn the_gateway_is_that_of_the_best_route() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                      tun0\t00000000\t00000000\t0001\t0\t0\t10\t00000000\t0\n\
                      wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\n\
                      eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\n\
                      eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        assert_eq!(gateway(routes), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(gateway(""), None);
    }
}
