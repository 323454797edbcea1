//! Files that lie elsewhere: fetched, verified and kept in the store.
//!
//! Whatever is fetched counts by its content: a [`Tree`](formwork_layer::Tree) of it is all that
//! the rest of the program sees, so a copy of something that has not changed stays cached.
//!
//! This crate reads no environment and knows no step; credentials come with each request.

mod commit;
mod error;
mod git;
mod http;
mod keys;
mod material;

pub use commit::{Commit, commit_of};
pub use error::RemoteError;
pub use git::{CheckedOut, GitConfig, Repository, Watch};
pub use http::{Downloads, Fetch};
pub use keys::{
    AGENT_FAILURE, AgentSocket, KeyAgent, KeyError, PrivateKey, SocketOwner, answer_questions,
    ask_agent,
};
pub use material::{Material, digest_set};
