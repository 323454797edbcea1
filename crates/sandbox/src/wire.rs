//! What passes between the builder and its helper, and how.
//!
//! Every message is one datagram of a Unix `SOCK_SEQPACKET` pair, so the kernel keeps their borders
//! and a message is there whole or not at all. Each run has a pair of its own, so no message needs
//! to say whom it is for. A specification may be larger than a
//! datagram; it travels as a descriptor of a file in memory. The two sides are always the same
//! binary, so the format needs no version.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::GroupUsage;
use crate::{ExitReport, Limits, OsError, Probe, ResourceLimit, SandboxError, Uplink};

/// From the builder to the helper, on the helper's standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a process. Comes with five descriptors: the run's own channel, the specification,
    /// standard input, output and error.
    Run(Outside),
    /// Look at the machine. Comes with one descriptor: the channel for the answer.
    Probe,
    /// Try whether a process can be shown what cannot be mounted for it. Comes with one descriptor,
    /// as above.
    Show,
}

/// What the helper does for a run from outside of its sandbox. Nothing of it is secret, since the
/// helper remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outside {
    /// Limits that the process will set itself, as far as it may.
    pub(crate) resource_limits: Vec<ResourceLimit>,
    /// Limits of all processes together.
    pub(crate) limits: Limits,
    /// Whether it runs without namespaces, in a chroot.
    pub(crate) in_place: bool,
    /// Whether it is traced there.
    pub(crate) traced: bool,
    /// Whether a supervisor keeps the devices that it makes.
    pub(crate) keeps_devices: bool,
    /// The way out of a network namespace that the sandbox gets, if it gets one.
    pub(crate) uplink: Option<Uplink>,
}

/// The longest request: one with all limits that there are.
const LONGEST_REQUEST: usize = 1024;
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
    /// Whether it could be shown something.
    Show(Result<(), OsError>),
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
    /// What its control group has used, if it had one.
    pub(crate) group: Option<GroupUsage>,
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
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let bytes = encode(request)?;
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
    let mut bytes = [0; LONGEST_REQUEST];
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

/// Waits until one of the descriptors is readable or at its end, or until the deadline; tells for
/// each whether it is.
pub(crate) fn wait_readable<const N: usize>(
    sockets: [BorrowedFd<'_>; N],
    deadline: Option<Instant>,
) -> rustix::io::Result<[bool; N]> {
    use rustix::event::{PollFd, PollFlags};
    let mut polled = sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN));
    retry(|| rustix::event::poll(&mut polled, deadline.map(until).as_ref()))?;
    Ok(polled.map(|socket| !socket.revents().is_empty()))
}

/// How long it is until a deadline.
pub(crate) fn until(deadline: Instant) -> Timespec {
    let time = deadline.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// A descriptor of `/dev/null`, for standard input that has nothing to say.
pub(crate) fn null() -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{
        ExitStatus, FileData, MountKind, MountPoint, OsError, ProcessSpec, ProgramProblem, RootFs,
        Stage, Stub,
    };

    fn odd() -> std::ffi::OsString {
        std::os::unix::ffi::OsStringExt::from_vec(b"/no\xff utf-8\n".to_vec())
    }

    #[test]
    fn specifications_arrive_as_they_were() {
        let rel = |path: &[u8]| formwork_fs::RelPath::new(path).unwrap();
        let data = FileData((0..=255).cycle().take(3_000_000).collect());
        let file = MountKind::File { data, mode: 0o400, uid: 1, gid: 2, read_only: true };
        let tree = RootFs::writable([odd(), "/b".into()], odd(), "/work");
        let overlay =
            MountKind::Overlay { tree: tree.clone(), subpath: rel(b"x/\xfe"), stub: Stub::File };
        let mut spec = ProcessSpec::new(tree, [odd(), "".into()]);
        spec.env = vec![("NAME".into(), odd())];
        spec.cwd = rel(b"\xff/a");
        spec.mounts = vec![
            MountPoint { target: rel(b"f"), kind: file },
            MountPoint { target: rel(b"o"), kind: overlay },
        ];
        let document = document(&spec).unwrap();
        assert_eq!(read_document::<ProcessSpec>(document.as_fd()).unwrap(), spec);
        // Reading it does not use it up.
        assert_eq!(read_document::<ProcessSpec>(document.as_fd()).unwrap(), spec);
    }

    #[test]
    fn answers_arrive_one_by_one_and_then_the_end() {
        let report = ExitReport {
            status: ExitStatus::Signaled(9),
            timed_out: true,
            halted: None,
            out_of_memory: Some(crate::OutOfMemory { peak: 1, limit: None }),
            wall_time: Duration::MAX,
            user_time: Duration::from_nanos(1),
            system_time: Duration::ZERO,
            peak_memory: u64::MAX,
            created: vec![formwork_fs::RelPath::new(b"a/\xff").unwrap()],
        };
        let program = SandboxError::Program {
            program: odd(),
            problem: ProgramProblem::InterpreterMissing(odd()),
        };
        let answers = [
            Answer::Outcome(Ok(report)),
            Answer::Outcome(Err(program)),
            Answer::Outcome(Err(SandboxError::setup(Stage::Mount, odd(), OsError(5)))),
            Answer::Gone(Gone { signal: Some(15), ..Gone::default() }),
        ];
        let (ours, theirs) = channel().unwrap();
        for answer in &answers {
            send(theirs.as_fd(), answer).unwrap();
        }
        drop(theirs);
        for answer in answers {
            assert_eq!(receive(ours.as_fd()).unwrap(), Some(answer));
        }
        assert_eq!(receive::<Answer>(ours.as_fd()).unwrap(), None);
    }

    #[test]
    fn requests_arrive_with_their_descriptors() {
        let (ours, theirs) = channel().unwrap();
        let document = document(&7_u64).unwrap();
        let descriptors = [document.as_fd(), ours.as_fd()];
        let most = Some(u64::MAX - 1);
        let limits = crate::Resource::ALL.into_iter();
        let resource_limits = limits
            .map(|(_, resource)| ResourceLimit { resource, soft: most, hard: most })
            .collect();
        let request = Request::Run(Outside { resource_limits, ..Outside::default() });
        send_request(ours.as_fd(), &request, &descriptors).unwrap();
        let (arrived, received) = receive_request(theirs.as_fd()).unwrap().unwrap();
        assert_eq!((arrived, received.len()), (request, 2));
        assert_eq!(read_document::<u64>(received[0].as_fd()).unwrap(), 7);
        drop((ours, received));
        assert!(receive_request(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (ours, theirs) = channel().unwrap();
        rustix::net::send(&ours, b"\xff\xff\xff\xff\xff", SendFlags::empty()).unwrap();
        assert_eq!(receive::<Answer>(theirs.as_fd()), Err(Errno::BADMSG));
    }
}
