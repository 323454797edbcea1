//! What passes between the builder and its helper, and how.
//!
//! Three kinds of messages, each one datagram of a Unix `SOCK_SEQPACKET` pair, so the kernel keeps
//! their borders and a message is there whole or not at all. A specification may be larger than a
//! datagram; it travels as a descriptor of a file in memory. The two sides are always the same
//! binary, so the format needs no version.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ExitReport, Probe, SandboxError};

/// From the builder to the helper, on the helper's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a process. Comes with five descriptors: the specification, the run's own channel,
    /// standard input, output and error.
    Run,
    /// Look at the machine. Comes with one descriptor: the channel for the answer.
    Probe,
}

/// The most descriptors that a request has.
const MAX_DESCRIPTORS: usize = 5;

/// From the builder to the helper, on a run's channel: stop the process, killing it after so many
/// milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) grace_ms: u64,
}

/// From the helper or a sandbox's first process to the builder, on a run's channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// How the run ended; from the sandbox's first process.
    Outcome(Result<ExitReport, SandboxError>),
    /// Nothing is left of the sandbox; from the helper, always the last message.
    Gone(Gone),
    /// What the machine can do.
    Probe(Probe),
}

/// How the first process of a sandbox ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    /// The signal that killed it, if one did.
    pub(crate) signal: Option<i32>,
    /// Whether the helper killed it because the process did not stop in time.
    pub(crate) by_request: bool,
    pub(crate) user_time: Duration,
    pub(crate) system_time: Duration,
    pub(crate) peak_memory: u64,
}

/// Two connected sockets.
pub(crate) fn channel() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A message as bytes.
fn encode(message: &impl Serialize) -> rustix::io::Result<Vec<u8>> {
    postcard::to_allocvec(message).map_err(|_| Errno::INVAL)
}

/// Bytes as a message; fails for anything but a message of the same binary.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> rustix::io::Result<T> {
    postcard::from_bytes(bytes).map_err(|_| Errno::BADMSG)
}

/// Sends a message.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &impl Serialize) -> rustix::io::Result<()> {
    let bytes = encode(message)?;
    retry(|| rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL)).map(drop)
}

/// Sends a request with its descriptors.
pub(crate) fn send_request(
    socket: BorrowedFd<'_>,
    request: Request,
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let bytes = encode(&request)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let slices = [IoSlice::new(&bytes)];
    retry(|| rustix::net::sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Receives a message; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> rustix::io::Result<Option<T>> {
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, size) = retry(|| rustix::net::recv(socket, &mut [0; 0], peek))?;
    let mut bytes = vec![0; size];
    let (length, _) = retry(|| rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty()))?;
    if length == 0 { Ok(None) } else { decode(&bytes[..length]).map(Some) }
}

/// Receives a request with its descriptors; `None` when the builder is gone.
pub(crate) fn receive_request(
    socket: BorrowedFd<'_>,
) -> rustix::io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = retry(|| {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?
    .bytes;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if length == 0 { Ok(None) } else { Ok(Some((decode(&bytes[..length])?, descriptors))) }
}

/// A message as a file in memory.
pub(crate) fn document(message: &impl Serialize) -> std::io::Result<OwnedFd> {
    let create = |flags| rustix::fs::memfd_create("formwork", MemfdFlags::CLOEXEC | flags);
    // Where the sysctl vm.memfd_noexec is 2, the flag is required; before Linux 6.3, unknown.
    let fd = create(MemfdFlags::NOEXEC_SEAL).or_else(|_| create(MemfdFlags::empty()))?;
    let mut file = File::from(fd);
    file.write_all(&encode(message)?)?;
    Ok(file.into())
}

/// Reads a message that was sent as a file in memory.
pub(crate) fn read_document<T: DeserializeOwned>(file: BorrowedFd<'_>) -> rustix::io::Result<T> {
    let length = usize::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match retry(|| rustix::io::pread(file, &mut bytes[filled..], filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    decode(&bytes)
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Waits until one of the sockets has something to say, or the time is over; `None` waits for
/// ever. Tells for each whether it has.
pub(crate) fn wait_readable<const N: usize>(
    sockets: [BorrowedFd<'_>; N],
) -> rustix::io::Result<[bool; N]> {
    use rustix::event::{PollFd, PollFlags};
    let mut polled = sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN));
    retry(|| rustix::event::poll(&mut polled, None))?;
    Ok(polled.map(|socket| !socket.revents().is_empty()))
}

/// A descriptor of `/dev/null`, for standard input that has nothing to say.
pub(crate) fn null() -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Bytes, whatever they are.
pub(crate) mod bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// Paths: serde has only those that are UTF-8.
pub(crate) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::de::Deserializer;
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_os_str().as_bytes(), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        super::bytes::deserialize(from).map(OsString::from_vec).map(PathBuf::from)
    }
}

/// Paths inside.
pub(crate) mod rel_path {
    use formwork_fs::RelPath;
    use serde::de::{Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(path: &RelPath, to: S) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_bytes(), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RelPath, D::Error> {
        RelPath::new(super::bytes::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Declares a serde module for a list of what another module of this file is for one.
macro_rules! list_of {
    ($(#[$doc:meta])* $name:ident, $item:ident, $type:ty, $ty_text:literal) => {
        $(#[$doc])*
        pub(crate) mod $name {
            use serde::de::Deserializer;
            use serde::ser::Serializer;
            use serde::{Deserialize, Serialize};

            #[derive(Serialize)]
            struct Borrowed<'a>(#[serde(with = $ty_text)] &'a $type);

            #[derive(Deserialize)]
            struct Owned(#[serde(with = $ty_text)] $type);

            pub(crate) fn serialize<S: Serializer>(
                list: &[$type],
                to: S,
            ) -> Result<S::Ok, S::Error> {
                to.collect_seq(list.iter().map(Borrowed))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<Vec<$type>, D::Error> {
                Ok(Vec::<Owned>::deserialize(from)?.into_iter().map(|owned| owned.0).collect())
            }
        }
    };
}

list_of! {
    /// Lists of paths.
    paths, path, std::path::PathBuf, "crate::wire::path"
}
list_of! {
    /// Lists of paths inside.
    rel_paths, rel_path, formwork_fs::RelPath, "crate::wire::rel_path"
}
