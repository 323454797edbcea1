//! Sockets at which clients of an SSH agent find one (draft-miller-ssh-agent).
//!
//! What is behind a socket is the caller's: keys of its own, or another agent. Here are only the
//! socket, its owner, and how questions and answers are cut apart.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use formwork_fs::{FsError, RootDir};
use rustix::fs::{AtFlags, Mode};

/// The longest message, as in OpenSSH.
const LONGEST: usize = 256 << 10;

/// The answer to a question that is not answered: `SSH_AGENT_FAILURE`.
pub const AGENT_FAILURE: [u8; 1] = [5];

/// Who owns a socket, and who may use it.
#[derive(Clone, Copy, Debug)]
pub struct SocketOwner {
    /// The permission bits.
    pub mode: u32,
    /// The owner; nobody else than the caller if there is none.
    pub owner: Option<(u32, u32)>,
}

/// A socket that leads to an agent as long as this is held.
#[derive(Debug)]
pub struct AgentSocket {
    directory: RootDir,
    name: String,
    ended: Arc<AtomicBool>,
}

impl AgentSocket {
    /// Makes a socket in a directory, and a thread that holds a conversation with each client on a
    /// thread of its own.
    ///
    /// # Errors
    ///
    /// Fails where the socket or the thread cannot be made.
    pub fn serve(
        directory: &Path,
        owner: SocketOwner,
        converse: impl Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, FsError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("agent-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = RootDir::open(directory)?;
        let failed =
            |error: io::Error| FsError::new("make the socket", directory.path().join(&name), error);
        let listener = UnixListener::bind(short_path(&directory, &name)).map_err(failed)?;
        set_owner(&directory, &name, owner).map_err(|errno| failed(errno.into()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        std::thread::Builder::new()
            .spawn(move || accept(&listener, &Arc::new(converse), &is_over))
            .map_err(failed)?;
        Ok(Self { directory, name, ended })
    }

    /// Where the socket is.
    pub fn path(&self) -> PathBuf {
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

/// Answers a client's questions until it has no more.
///
/// # Errors
///
/// Fails where the client breaks off or writes nonsense, and where `answer` fails.
pub fn answer_questions(
    mut client: impl Read + Write,
    mut answer: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    while let Some(question) = read_message(&mut client)? {
        write_message(&mut client, &answer(&question)?)?;
    }
    Ok(())
}

/// Asks an agent one question.
///
/// # Errors
///
/// Fails where the agent breaks off or writes nonsense.
pub fn ask_agent(agent: &mut (impl Read + Write), question: &[u8]) -> io::Result<Vec<u8>> {
    write_message(agent, question)?;
    Ok(read_message(agent)?.ok_or(io::ErrorKind::UnexpectedEof)?)
}

/// A path of a file in a directory that fits into the address of a socket, however long the
/// directory's own path is.
fn short_path(directory: &RootDir, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd())
}

fn set_owner(directory: &RootDir, name: &str, owner: SocketOwner) -> rustix::io::Result<()> {
    let SocketOwner { mode, owner } = owner;
    if let Some((uid, gid)) = owner {
        formwork_fs::give(directory.as_fd(), name.as_bytes(), uid, gid)?;
    }
    rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode & 0o777), AtFlags::empty())
}

fn accept<C>(listener: &UnixListener, converse: &Arc<C>, is_over: &AtomicBool)
where
    C: Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static,
{
    while let Ok((client, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let converse = Arc::clone(converse);
        // A client that breaks off ends its conversation and nothing else.
        if std::thread::Builder::new().spawn(move || drop(converse(client))).is_err() {
            return;
        }
    }
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

    /// Sends bytes through a conversation in which every question is its own answer.
    fn converse_with(bytes: &[u8]) -> Vec<u8> {
        let (mut near, client) = UnixStream::pair().unwrap();
        let echo = |question: &[u8]| Ok(question.to_vec());
        let conversation = std::thread::spawn(move || drop(answer_questions(client, echo)));
        near.write_all(bytes).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).unwrap();
        conversation.join().unwrap();
        answers
    }

    #[test]
    fn each_question_has_its_answer() {
        let sent = [&[11][..], &[], &[13, 1, 2]].map(message).concat();
        assert_eq!(converse_with(&sent), sent);
    }

    #[test]
    fn nonsense_ends_the_conversation() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0", b"\0\0\0\x09\x0b", b""] {
            assert_eq!(converse_with(bytes), b"");
        }
    }
}
