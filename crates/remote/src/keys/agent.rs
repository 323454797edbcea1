//! An SSH agent for keys in files (draft-miller-ssh-agent).

use std::path::{Path, PathBuf};

use formwork_fs::FsError;

use super::PrivateKey;
use super::socket::{AGENT_FAILURE, AgentSocket, SocketOwner, answer_questions};
use super::wire::{Reader, put_string};

/// `SSH_AGENTC_REQUEST_IDENTITIES` and its answer.
const LIST: (u8, u8) = (11, 12);
/// `SSH_AGENTC_SIGN_REQUEST` and its answer.
const SIGN: (u8, u8) = (13, 14);

/// A socket at which some keys can be used, as long as this is held.
#[derive(Debug)]
pub struct KeyAgent(AgentSocket);

impl KeyAgent {
    /// Makes a socket in a directory, which nobody but the caller's user can use, and a thread that
    /// answers there.
    ///
    /// # Errors
    ///
    /// Fails where either cannot be made.
    pub fn serve(directory: &Path, keys: Vec<PrivateKey>) -> Result<Self, FsError> {
        let private = SocketOwner { mode: 0o600, owner: None };
        let socket = AgentSocket::serve(directory, private, move |client| {
            answer_questions(client, |question| {
                Ok(answer(question, &keys).unwrap_or_else(|| AGENT_FAILURE.to_vec()))
            })
        });
        socket.map(Self)
    }

    /// Where the socket is.
    pub fn path(&self) -> PathBuf {
        self.0.path()
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
