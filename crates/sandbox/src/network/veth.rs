//! The way out through a pair of interfaces with address translation, for real root.
//!
//! A process of ours makes the pair and the packet filter, and stays: the kernel removes the filter
//! with the process (`NFT_TABLE_F_OWNER`, Linux 5.12) and the pair with the network namespace, so
//! nothing of it outlives the sandbox, whatever is killed. Routing between interfaces has to be
//! switched on already: that is for the machine's owner to decide.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, netlink as protocols};
use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;

use super::netlink::{APPEND, Message, NEW, Netlink, attribute, nested, text};
use super::{Connected, GO, HOST};
use crate::sys::{self, Fork};
use crate::{SandboxError, Stage};

/// What begins the names of our interfaces on this machine.
const PREFIX: &str = "fwk";
/// The name of the interface in the sandbox.
const INSIDE: &str = "eth0";
/// Networks of which parts are taken, four addresses each, where this machine has no route to them.
const NETWORKS: [(Ipv4Addr, u32); 3] = [
    (Ipv4Addr::new(10, 213, 0, 0), 1 << 16),
    (Ipv4Addr::new(172, 29, 0, 0), 1 << 16),
    (Ipv4Addr::new(192, 168, 213, 0), 1 << 8),
];
/// The length of the prefix of such a part.
const PREFIX_LENGTH: u8 = 30;

/// Starts it for the network namespace of a process, which it tells when it is ready.
pub(super) fn start(host: bool, pid: Pid, tell: OwnedFd) -> Result<Connected, SandboxError> {
    let fork =
        sys::fork(0).map_err(|errno| SandboxError::setup(Stage::Network, "the way out", errno))?;
    match fork {
        Fork::Parent(pid, process) => Ok(Connected { pid, process }),
        Fork::Child => {
            serve(host, pid, tell);
            sys::exit(0)
        }
    }
}

fn serve(host: bool, pid: Pid, tell: OwnedFd) {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if bound.is_err() || sys::close_all_but(&[tell.as_fd()]).is_err() {
        return;
    }
    let connected = connect(host, pid);
    let word = match &connected {
        Ok(_) => vec![GO],
        Err(problem) => problem.clone().into_bytes(),
    };
    let _ = rustix::io::write(&tell, &word);
    drop(tell);
    // The filter lasts as long as the connection that has made it.
    while connected.is_ok() {
        rustix::event::pause();
    }
}

/// Makes the way out; returns what has to be kept for it.
fn connect(host: bool, pid: Pid) -> Result<Netlink, String> {
    let forwards = fs_err::read("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    if !forwards.starts_with(b"1") {
        return Err(
            "without `pasta`, a private network needs routing between interfaces, which is \
                    switched off here: install the package `passt`, or set the sysctl \
                    net.ipv4.ip_forward to 1"
                .to_owned(),
        );
    }
    let failed = |what: &'static str| {
        move |errno: Errno| {
            format!("cannot {what} of a private network ({errno}); install the package `passt`")
        }
    };
    let name = format!("{PREFIX}{}", rustix::process::getpid().as_raw_nonzero());
    let routes = fs_err::read_to_string("/proc/net/route").unwrap_or_default();
    let start = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let network = free_network(&routes, start)
        .ok_or("this machine has routes to all networks that a private one could be")?;
    let outside = Ipv4Addr::from_bits(network.to_bits() + 1);
    let inside = Ipv4Addr::from_bits(network.to_bits() + 2);
    let filter = Netlink::open(Some(protocols::NETFILTER)).map_err(failed("make the filter"))?;
    filter.order(rules(&name, inside), RULES).map_err(failed("make the filter"))?;
    let interfaces = Netlink::open(None).map_err(failed("make the interfaces"))?;
    interfaces.order(vec![pair(&name, pid)], 1).map_err(failed("make the interfaces"))?;
    let of_host = host.then_some((HOST, 32));
    let addresses = [Some((outside, PREFIX_LENGTH)), of_host];
    set_up(&interfaces, &name, &addresses).map_err(failed("set up the outer interface"))?;
    enter(pid).map_err(failed("enter the namespace"))?;
    let interfaces = Netlink::open(None).map_err(failed("set up the interface"))?;
    let addresses = [Some((inside, PREFIX_LENGTH))];
    set_up(&interfaces, INSIDE, &addresses).map_err(failed("set up the interface"))?;
    interfaces.order(vec![default_route(outside)], 1).map_err(failed("set up the route"))?;
    Ok(filter)
}

/// Four addresses that this machine has no route to, given `/proc/net/route`.
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

/// `ifinfomsg`.
fn interface(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// Makes two interfaces that lead to each other, one of them in the namespace of a process.
fn pair(name: &str, pid: Pid) -> Message {
    const NEW_LINK: u16 = 16;
    const NAME: u16 = 3;
    const INFO: u16 = 18;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const PEER: u16 = 1;
    const NAMESPACE_OF: u16 = 19;
    let pid = attribute(NAMESPACE_OF, &pid.as_raw_nonzero().get().to_ne_bytes());
    let peer = [interface(0, 0), text(NAME, INSIDE), pid].concat();
    let data = nested(DATA, &[attribute(PEER, &peer)]);
    Message::new(NEW_LINK, NEW, &interface(0, 0))
        .with(text(NAME, name))
        .with(nested(INFO, &[text(KIND, "veth"), data]))
}

/// Gives an interface its addresses, each with the length of its prefix, and switches it on.
fn set_up(
    netlink: &Netlink,
    name: &str,
    addresses: &[Option<(Ipv4Addr, u8)>],
) -> Result<(), Errno> {
    const NEW_LINK: u16 = 16;
    const NEW_ADDRESS: u16 = 20;
    const UP: u32 = 1;
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    let index = netdevice::name_to_index(rustix::net::socket(family, kind, None)?, name)?;
    let of_address = |(address, length): &(Ipv4Addr, u8)| {
        let fields = [&[2, *length, 0, 0][..], &index.to_ne_bytes()].concat();
        Message::new(NEW_ADDRESS, NEW, &fields)
            .with(attribute(1, &address.octets()))
            .with(attribute(2, &address.octets()))
    };
    let mut orders: Vec<Message> = addresses.iter().flatten().map(of_address).collect();
    orders.push(Message::new(NEW_LINK, 0, &interface(index, UP)));
    let answers = orders.len();
    netlink.order(orders, answers)
}

/// Leads everything to an address.
fn default_route(gateway: Ipv4Addr) -> Message {
    const NEW_ROUTE: u16 = 24;
    const GATEWAY: u16 = 5;
    // IPv4, no prefixes, the main table, made by an administrator, everywhere, to one host.
    let fields = [2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    Message::new(NEW_ROUTE, NEW, &fields).with(attribute(GATEWAY, &gateway.octets()))
}

/// Enters the network namespace of a process.
fn enter(pid: Pid) -> Result<(), Errno> {
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let namespace = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// How many of the orders of [`rules`] are answered.
const RULES: usize = 8;

/// A table of packet filters that ends with this process: what comes from the sandbox has the
/// machine's address, and reaches neither the machine itself, unless by the address that is meant for
/// it, nor other sandboxes.
fn rules(name: &str, inside: Ipv4Addr) -> Vec<Message> {
    const BATCH: [u16; 2] = [16, 17];
    let (input, forward, postrouting) = (1, 2, 4);
    let batch = |kind| Message::silent(kind, &[0, 0, 0, 10]);
    // An interface's name with all of its sixteen bytes.
    let mut whole = [0; 16];
    whole[..name.len()].copy_from_slice(name.as_bytes());
    let from_inside = nft::compare(nft::interface(true), &whole);
    let to_another = nft::compare(nft::interface(false), PREFIX.as_bytes());
    let of_inside = nft::compare(nft::source(), &inside.octets());
    // Unless the interface has this address, nothing arrives by it.
    let to_host = nft::compare(nft::destination(), &HOST.octets());
    vec![
        batch(BATCH[0]),
        nft::table(name),
        nft::chain(name, "input", "filter", input, 0),
        nft::chain(name, "forward", "filter", forward, 0),
        nft::chain(name, "out", "nat", postrouting, 100),
        nft::rule(name, "input", &[from_inside.clone(), to_host, vec![nft::accepted()]].concat()),
        nft::rule(name, "input", &[from_inside.clone(), vec![nft::dropped()]].concat()),
        nft::rule(name, "forward", &[from_inside, to_another, vec![nft::dropped()]].concat()),
        nft::rule(name, "out", &[of_inside, vec![nft::expression("masq", &[])]].concat()),
        batch(BATCH[1]),
    ]
}

/// Messages of nf_tables; numbers there are in the order of the network.
mod nft {
    use super::{APPEND, Message, NEW, attribute, nested, text};

    /// IPv4, as in all messages to the table.
    const FAMILY: [u8; 4] = [2, 0, 0, 0];

    fn message(kind: u16, flags: u16) -> Message {
        Message::new(10 << 8 | kind, flags, &FAMILY)
    }

    fn number(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_be_bytes())
    }

    /// A table that the kernel removes with the connection.
    pub(super) fn table(name: &str) -> Message {
        const OWNED: u32 = 2;
        message(0, NEW).with(text(1, name)).with(number(2, OWNED))
    }

    pub(super) fn chain(table: &str, name: &str, kind: &str, hook: u32, priority: u32) -> Message {
        let hook = nested(4, &[number(1, hook), number(2, priority)]);
        message(3, NEW).with(text(1, table)).with(text(3, name)).with(hook).with(text(7, kind))
    }

    pub(super) fn rule(table: &str, chain: &str, expressions: &[Vec<u8>]) -> Message {
        let expressions = nested(4, expressions);
        message(6, APPEND).with(text(1, table)).with(text(2, chain)).with(expressions)
    }

    pub(super) fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        nested(1, &[text(1, name), nested(2, data)])
    }

    /// Goes on only where what an expression loads is, or begins with, some bytes.
    pub(super) fn compare(load: Vec<u8>, bytes: &[u8]) -> Vec<Vec<u8>> {
        let value = nested(3, &[attribute(1, bytes)]);
        vec![load, expression("cmp", &[number(1, 1), number(2, 0), value])]
    }

    /// Loads the name of the interface that a packet comes in by, or goes out by.
    pub(super) fn interface(incoming: bool) -> Vec<u8> {
        let key = if incoming { 6 } else { 7 };
        expression("meta", &[number(1, 1), number(2, key)])
    }

    /// Loads the address that a packet comes from.
    pub(super) fn source() -> Vec<u8> {
        expression("payload", &[number(1, 1), number(2, 1), number(3, 12), number(4, 4)])
    }

    /// Loads the address that a packet goes to.
    pub(super) fn destination() -> Vec<u8> {
        expression("payload", &[number(1, 1), number(2, 1), number(3, 16), number(4, 4)])
    }

    /// Drops the packet.
    pub(super) fn dropped() -> Vec<u8> {
        verdict(0)
    }

    /// Lets the packet through.
    pub(super) fn accepted() -> Vec<u8> {
        verdict(1)
    }

    fn verdict(code: u32) -> Vec<u8> {
        let verdict = nested(2, &[nested(2, &[number(1, code)])]);
        expression("immediate", &[number(1, 0), verdict])
    }
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
}
