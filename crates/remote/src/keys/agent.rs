//! An SSH agent for keys in files (draft-miller-ssh-agent).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use formwork_fs::{FsError, RootDir};
use rustix::fs::{AtFlags, Mode};

use super::PrivateKey;
use super::wire::{Reader, put_string};

/// The longest message, as in OpenSSH.
const LONGEST: usize = 256 << 10;
/// `SSH_AGENTC_REQUEST_IDENTITIES` and its answer.
const LIST: (u8, u8) = (11, 12);
/// `SSH_AGENTC_SIGN_REQUEST` and its answer.
const SIGN: (u8, u8) = (13, 14);
/// `SSH_AGENT_FAILURE`
const FAILURE: u8 = 5;

/// A socket at which some keys can be used, as long as this is held.
#[derive(Debug)]
pub struct KeyAgent {
    directory: RootDir,
    name: String,
    ended: Arc<AtomicBool>,
}

impl KeyAgent {
    /// Makes a socket in a directory, which nobody but the caller's user can use, and a thread that
    /// answers there.
    ///
    /// # Errors
    ///
    /// Fails where either cannot be made.
    pub fn serve(directory: &Path, keys: Vec<PrivateKey>) -> Result<Self, FsError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("keys-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = RootDir::open(directory)?;
        let failed =
            |error: io::Error| FsError::new("make the socket", directory.path().join(&name), error);
        let listener = UnixListener::bind(short_path(&directory, &name)).map_err(failed)?;
        let private = Mode::from_raw_mode(0o600);
        rustix::fs::chmodat(&directory, &name, private, AtFlags::empty())
            .map_err(|errno| failed(errno.into()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        std::thread::Builder::new()
            .spawn(move || accept(&listener, &keys.into(), &is_over))
            .map_err(failed)?;
        Ok(Self { directory, name, ended })
    }

    /// Where the socket is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread up, which then ends.
        let _ = UnixStream::connect(short_path(&self.directory, &self.name));
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// A path that fits into the address of a socket, however long the directory's own path is.
fn short_path(directory: &RootDir, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd())
}

/// Serves each client on a thread of its own.
fn accept(listener: &UnixListener, keys: &Arc<[PrivateKey]>, is_over: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let keys = Arc::clone(keys);
        // A client that breaks off ends its conversation and nothing else.
        let converse = move || drop(converse(client, &keys));
        if std::thread::Builder::new().spawn(converse).is_err() {
            return;
        }
    }
}

fn converse(mut client: impl Read + Write, keys: &[PrivateKey]) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        match client.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut question = vec![0; length];
        client.read_exact(&mut question)?;
        let mut message = Vec::new();
        put_string(&mut message, &answer(&question, keys).unwrap_or_else(|| vec![FAILURE]));
        client.write_all(&message)?;
    }
}

/// The answer to a question; `None` for what cannot be answered.
fn answer(question: &[u8], keys: &[PrivateKey]) -> Option<Vec<u8>> {
    let (kind, rest) = question.split_first()?;
    match *kind {
        kind if kind == LIST.0 => {
            let mut answer = vec![LIST.1];
            answer.extend_from_slice(&u32::try_from(keys.len()).ok()?.to_be_bytes());
            for key in keys {
                put_string(&mut answer, &key.public);
                put_string(&mut answer, &key.comment);
            }
            Some(answer)
        }
        kind if kind == SIGN.0 => {
            let mut fields = Reader(rest);
            let (public, data, flags) = (fields.string()?, fields.string()?, fields.number()?);
            let key = keys.iter().find(|key| key.public == public)?;
            let mut answer = vec![SIGN.1];
            put_string(&mut answer, &key.signer.sign(data, flags)?);
            Some(answer)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_without_an_answer_fail() {
        assert_eq!(answer(&[11], &[]), Some(vec![12, 0, 0, 0, 0]));
        for question in [&[][..], &[13], &[13, 0, 0, 0, 9], &[17, 0], &[27, 1], &[255]] {
            assert_eq!(answer(question, &[]), None);
        }
    }
}
