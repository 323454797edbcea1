//! Orders to the kernel about interfaces, routes and packet filters.
//!
//! A few kinds of messages, all of the same simple form (netlink(7)), are all that is needed. The
//! crates for it either bring an asynchronous runtime along, or wrap libraries in C, or lack packet
//! filters.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `NLM_F_REQUEST | NLM_F_ACK`.
const ORDER: u16 = 0x5;
/// `NLM_F_CREATE | NLM_F_EXCL`.
pub(super) const NEW: u16 = 0x600;
/// `NLM_F_CREATE | NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0xc00;
/// `NLMSG_ERROR`, which is also how the kernel says that all is well.
const ANSWER: u16 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// A connection with the kernel, for one of its subsystems.
pub(super) struct Netlink(OwnedFd);

/// One order.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Netlink {
    /// The subsystem of a protocol; without one, that of interfaces and routes (`NETLINK_ROUTE`).
    pub(super) fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map(Self)
    }

    /// Gives orders, and waits until the kernel has carried out those that it answers.
    pub(super) fn order(&self, mut messages: Vec<Message>, answers: usize) -> Result<(), Errno> {
        for (number, message) in (1_u32..).zip(&mut messages) {
            message.bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        }
        let bytes: Vec<u8> = messages.into_iter().flat_map(|message| message.bytes).collect();
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; 32 << 10];
        let mut answered = 0;
        while answered < answers {
            let (_, length) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            answered += answers_of(buffer.get(..length).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The number of answers that say that all is well; fails with the first other one.
fn answers_of(mut bytes: &[u8]) -> Result<usize, Errno> {
    let mut count = 0;
    while let Some((length, kind)) = header(bytes) {
        let code = bytes.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
        match (kind, code.map(i32::from_ne_bytes)) {
            (ANSWER, Some(0)) => count += 1,
            (ANSWER, Some(code)) => return Err(Errno::from_raw_os_error(code.wrapping_neg())),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

/// The length and the kind of the first message.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    (HEADER..=bytes.len()).contains(&length).then_some((length, kind))
}

impl Message {
    /// An order of a kind, with the fields that come before the attributes.
    pub(super) fn new(kind: u16, flags: u16, fields: &[u8]) -> Self {
        let mut message = Self::silent(kind, fields);
        message.bytes[6..8].copy_from_slice(&(ORDER | flags).to_ne_bytes());
        message
    }

    /// One that the kernel does not answer.
    pub(super) fn silent(kind: u16, fields: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&1_u16.to_ne_bytes());
        bytes.extend_from_slice(fields);
        Self { bytes }.sized()
    }

    /// With one more attribute.
    pub(super) fn with(mut self, attribute: Vec<u8>) -> Self {
        self.bytes.extend(attribute);
        self.sized()
    }

    fn sized(mut self) -> Self {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// An attribute: its length, its kind, the value, and nothing up to the next multiple of four.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute with a text, which ends with a NUL byte.
pub(super) fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), b"\0"].concat())
}

/// An attribute that holds attributes.
pub(super) fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tell_their_length() {
        let message = Message::new(16, NEW, &[7; 4]).with(text(3, "lo")).with(nested(18, &[]));
        let expected = [
            &32_u32.to_ne_bytes()[..],
            &16_u16.to_ne_bytes(),
            &0x605_u16.to_ne_bytes(),
            &[0; 8],
            &[7; 4],
            &7_u16.to_ne_bytes(),
            &3_u16.to_ne_bytes(),
            b"lo\0\0",
            &4_u16.to_ne_bytes(),
            &0x8012_u16.to_ne_bytes(),
        ];
        assert_eq!(message.bytes, expected.concat());
    }

    #[test]
    fn answers_are_counted_until_one_is_bad() {
        let answer = |code: i32| {
            let mut message = Message::silent(ANSWER, &code.to_ne_bytes()).bytes;
            message.extend([0; 16]);
            message[0] = 36;
            message
        };
        assert_eq!(answers_of(&[answer(0), answer(0)].concat()), Ok(2));
        assert_eq!(answers_of(&[answer(0), answer(-17)].concat()), Err(Errno::EXIST));
        for end in 0..36 {
            assert_eq!(answers_of(&answer(0)[..end]), Ok(0));
        }
    }
}
