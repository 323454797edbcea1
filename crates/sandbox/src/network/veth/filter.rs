//! The packet filter: what comes from a sandbox has the machine's address, and reaches neither the
//! machine itself, unless by the address that is meant for it, nor other sandboxes.

use std::net::IpAddr;

use super::super::netlink::Message;
use super::addresses::Ends;
use super::{HOST, PREFIX};

/// A table of packet filters that ends with the connection that makes it, and how many of the orders
/// the kernel answers. It is for IPv6, too, without which each interface still has an address of
/// its own there.
pub(super) fn rules(name: &str, ends: &[Ends]) -> (Vec<Message>, usize) {
    const BATCH: [u16; 2] = [16, 17];
    let (input, forward, postrouting) = (1, 2, 4);
    let batch = |kind| Message::silent(kind, &[0, 0, 0, 10]);
    // An interface's name with all of its sixteen bytes.
    let mut whole = [0; 16];
    whole[..name.len()].copy_from_slice(name.as_bytes());
    let from_inside = nft::compare(nft::interface(true), &whole);
    let to_another = nft::compare(nft::interface(false), PREFIX.as_bytes());
    let (accepted, dropped) = (vec![nft::verdict(true)], vec![nft::verdict(false)]);
    // Unless the interface has this address, nothing arrives by it.
    let to_host = nft::address(HOST.into(), nft::End::Destination);
    let mut orders = vec![
        nft::table(name),
        nft::chain(name, "input", "filter", input, 0),
        nft::chain(name, "forward", "filter", forward, 0),
        nft::chain(name, "out", "nat", postrouting, 100),
        nft::rule(name, "input", &[from_inside.clone(), to_host, accepted.clone()].concat()),
    ];
    // Who is asked for the way out answers: solicitations and advertisements of neighbours.
    for kind in [135, 136] {
        let of_neighbours = [from_inside.clone(), nft::icmp6(kind), accepted.clone()].concat();
        orders.push(nft::rule(name, "input", &of_neighbours));
    }
    orders.push(nft::rule(name, "input", &[from_inside.clone(), dropped.clone()].concat()));
    orders.push(nft::rule(name, "forward", &[from_inside, to_another, dropped].concat()));
    for end in ends {
        let of_inside = nft::address(end.inside, nft::End::Source);
        let translated = vec![nft::expression("masq", &[])];
        orders.push(nft::rule(name, "out", &[of_inside, translated].concat()));
    }
    let answers = orders.len();
    orders.insert(0, batch(BATCH[0]));
    orders.push(batch(BATCH[1]));
    (orders, answers)
}

/// Messages of nf_tables; numbers there are in the order of the network.
mod nft {
    use super::super::super::netlink::{APPEND, Message, NEW, attribute, nested, text};
    use super::IpAddr;

    /// Both IPv4 and IPv6 (`NFPROTO_INET`), as in all messages to the table.
    const FAMILY: [u8; 4] = [1, 0, 0, 0];

    /// One of a packet's addresses.
    #[derive(Clone, Copy)]
    pub(super) enum End {
        Source,
        Destination,
    }

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
        meta(if incoming { 6 } else { 7 })
    }

    /// Loads what the kernel knows of a packet beside its bytes.
    fn meta(key: u32) -> Vec<u8> {
        expression("meta", &[number(1, 1), number(2, key)])
    }

    /// Goes on only where an address is one of a packet's.
    pub(super) fn address(address: IpAddr, end: End) -> Vec<Vec<u8>> {
        const PROTOCOL: u32 = 15;
        let is_source = matches!(end, End::Source);
        let (family, offset, bytes) = match address {
            IpAddr::V4(four) => (2, if is_source { 12 } else { 16 }, four.octets().to_vec()),
            IpAddr::V6(six) => (10, if is_source { 8 } else { 24 }, six.octets().to_vec()),
        };
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        let load = payload(1, offset, length);
        [compare(meta(PROTOCOL), &[family]), compare(load, &bytes)].concat()
    }

    /// Goes on only where a packet is a message of a kind among those that keep IPv6 going.
    pub(super) fn icmp6(kind: u8) -> Vec<Vec<u8>> {
        const TRANSPORT: u32 = 16;
        const ICMP6: u8 = 58;
        [compare(meta(TRANSPORT), &[ICMP6]), compare(payload(2, 0, 1), &[kind])].concat()
    }

    /// Loads bytes of a packet, counted from the header of the network (1) or the transport (2).
    fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
        expression(
            "payload",
            &[number(1, 1), number(2, base), number(3, offset), number(4, length)],
        )
    }

    /// Lets the packet through, or drops it.
    pub(super) fn verdict(is_through: bool) -> Vec<u8> {
        let verdict = nested(2, &[nested(2, &[number(1, u32::from(is_through))])]);
        expression("immediate", &[number(1, 0), verdict])
    }
}
