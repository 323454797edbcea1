//! SSH agents for RUN.
//!
//! A step does not get the agent's own socket but one that is made for it, with the owner and the
//! permissions that the step asks for. Only questions that change nothing pass through it: which
//! keys there are, and to sign something with one of them. So a step can use the keys as long as it
//! runs, and can neither add nor remove nor lock any.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use formwork_fs::FsError;
use formwork_remote::{AGENT_FAILURE, AgentSocket, SocketOwner, answer_questions, ask_agent};

/// The questions that pass (draft-miller-ssh-agent §6.1): the list of keys, and a signature.
const PASSED: [u8; 2] = [11, 13];

/// Makes a socket in a directory that leads to an agent as long as it is held.
pub(crate) fn forward(
    directory: &Path,
    agent: &Path,
    owner: SocketOwner,
) -> Result<AgentSocket, FsError> {
    let agent = agent.to_owned();
    AgentSocket::serve(directory, owner, move |client| {
        converse(client, UnixStream::connect(&agent)?)
    })
}

/// Hands questions and answers on until the client has no more.
fn converse(client: impl Read + Write, mut agent: impl Read + Write) -> io::Result<()> {
    answer_questions(client, |question| match question.first() {
        Some(kind) if PASSED.contains(kind) => ask_agent(&mut agent, question),
        _ => Ok(AGENT_FAILURE.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_that_change_nothing_reach_the_agent() {
        let (mut near, client) = UnixStream::pair().unwrap();
        let (agent, far) = UnixStream::pair().unwrap();
        // It answers every question with itself.
        std::thread::spawn(|| answer_questions(far, |question| Ok(question.to_vec())));
        std::thread::spawn(|| converse(client, agent));
        for (question, answer) in [
            (&[11][..], &[11][..]),
            (&[13, 1, 2], &[13, 1, 2]),
            (&[17, 0], &[5]),
            (&[19], &[5]),
            (&[27, 9], &[5]),
            (&[], &[5]),
        ] {
            assert_eq!(ask_agent(&mut near, question).unwrap(), answer, "{question:?}");
        }
    }
}
