//! A control group from the user's service manager, for sessions that have none to divide.
//!
//! A session over SSH or `su` is in a group of root's, while the user's own service manager has one
//! that it may divide. Only that manager can move a process there. It is asked over its own socket,
//! by the one call that `systemd-run --scope` makes, too (`StartTransientUnit`, see
//! org.freedesktop.systemd1(5)); the crates for D-Bus bring an asynchronous runtime along for it.
//!
//! This process moves itself alone, and never stops, changes or asks for any other unit.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::Mode;

use super::{open, own_group, v2, write};

/// How long the service manager may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The group in the new one where this process stays: one with processes gives no limits to others.
const OWN: &str = "helper";
/// The longest answer that is read.
const LONGEST: usize = 64 << 10;

/// Moves this process into a group that the user may divide; returns it with those above. `None`
/// where there is no service manager of the user's, or where it refuses.
pub(super) fn enter() -> Option<v2::Ancestors> {
    let user = host_user(&fs_err::read_to_string("/proc/self/uid_map").ok()?)?;
    let before = own_group()?;
    ask(user).ok()?;
    let end = Instant::now() + PATIENCE;
    while own_group()? == before {
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let ancestors = v2::Ancestors::of_this_process();
    let scope = ancestors.nearest()?;
    rustix::fs::mkdirat(scope, OWN, Mode::from_raw_mode(0o755)).ok()?;
    let own = open(scope, OWN.as_ref()).ok()?;
    write(&own, "cgroup.procs", &std::process::id().to_string()).ok()?;
    Some(ancestors)
}

/// The number that this process's user has outside of its user namespace, given the map of that.
fn host_user(map: &str) -> Option<u32> {
    let user = rustix::process::geteuid().as_raw();
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = user.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Asks the service manager of a user for a group with this process in it.
fn ask(user: u32) -> std::io::Result<()> {
    let socket = PathBuf::from(format!("/run/user/{user}/systemd/private"));
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let name: String = user.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {name}\r\n").as_bytes())?;
    read_line(&mut stream)?
        .starts_with("OK ")
        .then_some(())
        .ok_or(std::io::ErrorKind::PermissionDenied)?;
    let process = std::process::id();
    let call = message::start_scope(&format!("formwork-{process}.scope"), process);
    stream.write_all(&[&b"BEGIN\r\n"[..], &call].concat())?;
    is_done(&mut stream)?.then_some(()).ok_or_else(|| std::io::ErrorKind::PermissionDenied.into())
}

/// A line of the greeting.
fn read_line(stream: &mut impl Read) -> std::io::Result<String> {
    let mut line = Vec::new();
    while line.len() < 200 && !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Reads up to the answer; whether it is no error.
fn is_done(stream: &mut impl Read) -> std::io::Result<bool> {
    const ANSWER: u8 = 2;
    const ERROR: u8 = 3;
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            let number = if head[0] == b'l' { u32::from_le_bytes } else { u32::from_be_bytes };
            usize::try_from(number(bytes)).unwrap_or(usize::MAX)
        };
        let (body, fields) = (number(4), number(12));
        if body > LONGEST || fields > LONGEST {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        stream.read_exact(&mut vec![0; fields.next_multiple_of(8) + body])?;
        match head[1] {
            ANSWER => return Ok(true),
            ERROR => return Ok(false),
            _ => {}
        }
    }
}

/// The one message that is sent, in the form of the D-Bus specification: little-endian numbers,
/// everything at a multiple of its own size.
mod message {
    /// Asks for a transient scope that the user may divide, with a process in it.
    pub(super) fn start_scope(name: &str, process: u32) -> Vec<u8> {
        let mut body = Bytes::default();
        body.string(name).string("fail");
        body.array(8, |properties| {
            properties.property("Description", "s").string("formwork");
            properties.property("Delegate", "b").number(1);
            properties.property("CollectMode", "s").string("inactive-or-failed");
            properties.property("PIDs", "au").number(4).number(process);
        });
        body.array(8, |_| {});
        let mut message = Bytes(vec![b'l', 1, 0, 1]);
        message.number(body.length()).number(1);
        message.array(8, |fields| {
            for (kind, signature, value) in [
                (1, "o", "/org/freedesktop/systemd1"),
                (2, "s", "org.freedesktop.systemd1.Manager"),
                (3, "s", "StartTransientUnit"),
                (6, "s", "org.freedesktop.systemd1"),
            ] {
                fields.align(8).byte(kind).signature(signature).string(value);
            }
            fields.align(8).byte(8).signature("g").signature("ssa(sv)a(sa(sv))");
        });
        message.align(8);
        message.0.extend(body.0);
        message.0
    }

    #[derive(Default)]
    struct Bytes(Vec<u8>);

    impl Bytes {
        fn length(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap_or(u32::MAX)
        }

        fn align(&mut self, to: usize) -> &mut Self {
            self.0.resize(self.0.len().next_multiple_of(to), 0);
            self
        }

        fn byte(&mut self, byte: u8) -> &mut Self {
            self.0.push(byte);
            self
        }

        fn number(&mut self, number: u32) -> &mut Self {
            self.align(4).0.extend(number.to_le_bytes());
            self
        }

        fn string(&mut self, text: &str) -> &mut Self {
            self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
            self.0.extend(text.as_bytes());
            self.byte(0)
        }

        fn signature(&mut self, text: &str) -> &mut Self {
            self.byte(u8::try_from(text.len()).unwrap_or(u8::MAX));
            self.0.extend(text.as_bytes());
            self.byte(0)
        }

        /// A property: a structure of a name and a value with its type, which has to follow.
        fn property(&mut self, name: &str, signature: &str) -> &mut Self {
            self.align(8).string(name).signature(signature)
        }

        /// An array, whose length leaves out what aligns its first element.
        fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
            self.number(0);
            let at = self.0.len();
            self.align(alignment);
            let start = self.0.len();
            elements(self);
            let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
            self.0[at - 4..at].copy_from_slice(&length.to_le_bytes());
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_outside_is_found_in_the_map() {
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(host_user("0 0 4294967295\n"), Some(own));
        assert_eq!(host_user(&format!("{own} 1000 1\n{} 100000 65536\n", own + 1)), Some(1000));
        assert_eq!(host_user(&format!("{} 1000 10\n", own + 1)), None);
        assert_eq!(host_user("nonsense\n"), None);
    }

    #[test]
    fn the_message_has_the_form_of_the_specification() {
        let message = message::start_scope("a.scope", 7);
        let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!(message[..4], [b'l', 1, 0, 1]);
        let fields = usize::try_from(number(12)).unwrap();
        let body = (16 + fields).next_multiple_of(8);
        assert_eq!(usize::try_from(number(4)).unwrap(), message.len() - body);
        assert_eq!(message[16..20], [1, 1, b'o', 0]);
        let start = [&7_u32.to_le_bytes()[..], b"a.scope\0", &4_u32.to_le_bytes(), b"fail\0"];
        assert!(message[body..].starts_with(&start.concat()));
        // The process's number ends the properties; then come no units, aligned as some would be.
        let end = [7_u32.to_le_bytes(), [0; 4], [0; 4]].concat();
        assert!(message.ends_with(&end), "{message:?}");
    }

    #[test]
    fn answers_are_told_from_errors_and_other_messages() {
        let message = |kind: u8| {
            let mut bytes = vec![b'l', kind, 0, 1, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0];
            bytes.extend([0; 8 + 3]);
            bytes
        };
        let read = |kinds: &[u8]| {
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| message(*kind)).collect();
            is_done(&mut &bytes[..]).ok()
        };
        assert_eq!(read(&[2]), Some(true));
        assert_eq!(read(&[4, 4, 3]), Some(false));
        assert_eq!(read(&[4]), None);
        assert!(is_done(&mut &[0xff; 64][..]).is_err());
    }
}
