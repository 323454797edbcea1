//! The pair of interfaces: its addresses and the way to the world.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice};
use rustix::process::Pid;
use rustix::thread::LinkNameSpaceType;

use super::super::netlink::{Message, NEW, Netlink, attribute, nested, text};
use super::INSIDE;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// The interfaces of the network namespace that it was opened in.
pub(super) struct Interfaces(Netlink);

/// Those of the namespace that this process is in.
pub(super) fn open() -> Result<Interfaces, Errno> {
    Netlink::open(None).map(Interfaces)
}

impl Interfaces {
    /// Makes two interfaces that lead to each other, one of them in the namespace of a process.
    pub(super) fn make_pair(&self, name: &str, pid: Pid) -> Result<(), Errno> {
        const NAME: u16 = 3;
        const INFO: u16 = 18;
        const KIND: u16 = 1;
        const DATA: u16 = 2;
        const PEER: u16 = 1;
        const NAMESPACE_OF: u16 = 19;
        let pid = attribute(NAMESPACE_OF, &pid.as_raw_nonzero().get().to_ne_bytes());
        let peer = [interface(0, 0), text(NAME, INSIDE), pid].concat();
        let data = nested(DATA, &[attribute(PEER, &peer)]);
        let order = Message::new(NEW_LINK, NEW, &interface(0, 0))
            .with(text(NAME, name))
            .with(nested(INFO, &[text(KIND, "veth"), data]));
        self.0.order(vec![order], 1)
    }

    /// Gives an interface its addresses, each with the length of its prefix, and switches it on.
    pub(super) fn set_up(&self, name: &str, addresses: &[(IpAddr, u8)]) -> Result<(), Errno> {
        const UP: u32 = 1;
        // Nobody else can have it, so nobody is asked, which would take a second.
        const AT_ONCE: u8 = 2;
        const LOCAL: u16 = 2;
        const ADDRESS: u16 = 1;
        let index = index(name)?;
        let of_address = |(address, length): &(IpAddr, u8)| {
            let (family, bytes) = bytes_of(*address);
            let fields = [&[family, *length, AT_ONCE, 0][..], &index.to_ne_bytes()].concat();
            Message::new(NEW_ADDRESS, NEW, &fields)
                .with(attribute(ADDRESS, &bytes))
                .with(attribute(LOCAL, &bytes))
        };
        let mut orders: Vec<Message> = addresses.iter().map(of_address).collect();
        orders.push(Message::new(NEW_LINK, 0, &interface(index, UP)));
        let answers = orders.len();
        self.0.order(orders, answers)
    }

    /// Leads everything of a kind of addresses to one of them, by an interface.
    pub(super) fn lead_to(&self, name: &str, gateway: IpAddr) -> Result<(), Errno> {
        const INTERFACE: u16 = 4;
        const GATEWAY: u16 = 5;
        let (family, bytes) = bytes_of(gateway);
        // No prefixes, the main table, made by an administrator, everywhere, to one host.
        let fields = [family, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let order = Message::new(NEW_ROUTE, NEW, &fields)
            .with(attribute(GATEWAY, &bytes))
            .with(attribute(INTERFACE, &index(name)?.to_ne_bytes()));
        self.0.order(vec![order], 1)
    }
}

/// Enters the network namespace of a process.
pub(super) fn enter(pid: Pid) -> Result<(), Errno> {
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let namespace = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// `ifinfomsg`.
fn interface(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// The number of an interface of this process's namespace.
fn index(name: &str) -> Result<u32, Errno> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    netdevice::name_to_index(rustix::net::socket(family, kind, None)?, name)
}

/// The kind of an address as the kernel numbers it, and its bytes.
fn bytes_of(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (2, four.octets().to_vec()),
        IpAddr::V6(six) => (10, six.octets().to_vec()),
    }
}
