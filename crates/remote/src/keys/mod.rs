//! Private keys in files, and an SSH agent that answers for them.
//!
//! Whoever has no agent may name files with keys instead: `--ssh default=$HOME/.ssh/id_ed25519`. The
//! agent shows the public halves and signs; it never gives a key away, and takes none.

mod agent;
mod file;
mod signer;
mod socket;
mod wire;

pub use agent::KeyAgent;
pub use file::{KeyError, PrivateKey};
pub use socket::{AGENT_FAILURE, AgentSocket, SocketOwner, answer_questions, ask_agent};
