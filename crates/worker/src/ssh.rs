//! SSH agents for RUN.
//!
//! A step does not get the agent's own socket but one that is made for it, with the owner and the
//! permissions that the step asks for. Only questions that change nothing pass through it: which
//! keys there are, and to sign something with one of them. So a step can use the keys as long as it
//! runs, and can neither add nor remove nor lock any.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use formwork_fs::{FsError, RootDir};
use rustix::fs::{AtFlags, Gid, Mode, Uid};

use crate::WorkerError;

/// The longest message, as in OpenSSH.
const LONGEST: usize = 256 << 10;
/// The questions that pass (draft-miller-ssh-agent §6.1): the list of keys, and a signature.
const PASSED: [u8; 2] = [11, 13];
/// The answer to all others: `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 1] = [5];

/// Who owns a socket, and who may use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOwner {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A socket that leads to an agent as long as this is held.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    directory: RootDir,
    name: String,
    ended: Arc<AtomicBool>,
}

impl AgentSocket {
    /// Makes a socket in a directory and starts a thread that serves it.
    pub(crate) fn serve(
        directory: &Path,
        agent: &Path,
        owner: SocketOwner,
    ) -> Result<Self, WorkerError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("agent-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = RootDir::open(directory)?;
        let failed =
            |error: io::Error| FsError::new("make the socket", directory.path().join(&name), error);
        let listener = UnixListener::bind(short_path(&directory, &name)).map_err(failed)?;
        set_owner(&directory, &name, owner).map_err(|errno| failed(errno.into()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (agent, is_over) = (agent.to_owned(), Arc::clone(&ended));
        std::thread::Builder::new()
            .spawn(move || accept(&listener, &agent, &is_over))
            .map_err(failed)?;
        Ok(Self { directory, name, ended })
    }

    /// Where the socket is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread up, which then ends. Where it has ended by itself, there is nobody.
        let _ = UnixStream::connect(short_path(&self.directory, &self.name));
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// A path of a file in a directory that fits into the address of a socket, however long the
/// directory's own path is.
fn short_path(directory: &RootDir, name: &str) -> String {
    use std::os::fd::AsFd;
    format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd())
}

fn set_owner(directory: &RootDir, name: &str, owner: SocketOwner) -> rustix::io::Result<()> {
    let SocketOwner { mode, uid, gid } = owner;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(directory, name, uid, gid, AtFlags::empty())?;
    rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode & 0o777), AtFlags::empty())
}

/// Serves each client on a thread of its own until the step has ended.
fn accept(listener: &UnixListener, agent: &Path, is_over: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let agent = agent.to_owned();
        // A client that breaks off, or an agent that does, ends the conversation and nothing else.
        let serve =
            move || drop(UnixStream::connect(agent).and_then(|agent| converse(client, agent)));
        if std::thread::Builder::new().spawn(serve).is_err() {
            return;
        }
    }
}

/// Hands questions and answers on until the client has no more.
fn converse(mut client: impl Read + Write, mut agent: impl Read + Write) -> io::Result<()> {
    while let Some(question) = read_message(&mut client)? {
        let answer = match question.first() {
            Some(kind) if PASSED.contains(kind) => {
                write_message(&mut agent, &question)?;
                read_message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => FAILURE.to_vec(),
        };
        write_message(&mut client, &answer)?;
    }
    Ok(())
}

/// A message, which its length goes before; `None` at the end.
fn read_message(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        write_message(&mut message, bytes).unwrap();
        message
    }

    /// Sends bytes through a conversation with an agent that answers every question with itself;
    /// returns what came back.
    fn converse_with(bytes: &[u8]) -> Vec<u8> {
        let (mut near, client) = UnixStream::pair().unwrap();
        let (agent, mut far) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            while let Ok(Some(question)) = read_message(&mut far) {
                write_message(&mut far, &question).unwrap();
            }
        });
        let conversation = std::thread::spawn(move || drop(converse(client, agent)));
        near.write_all(bytes).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).unwrap();
        conversation.join().unwrap();
        answers
    }

    #[test]
    fn only_questions_that_change_nothing_reach_the_agent() {
        let questions: [&[u8]; 6] = [&[11], &[13, 1, 2], &[17, 0], &[19], &[27, 9], &[]];
        let sent = questions.map(message).concat();
        let answers: [&[u8]; 6] = [&[11], &[13, 1, 2], &[5], &[5], &[5], &[5]];
        assert_eq!(converse_with(&sent), answers.map(message).concat());
    }

    #[test]
    fn nonsense_ends_the_conversation() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0", b"\0\0\0\x09\x0b", b""] {
            assert_eq!(converse_with(bytes), b"");
        }
    }
}
