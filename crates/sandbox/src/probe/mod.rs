//! What the machine can do, for `formwork doctor`.
//!
//! Whatever can be tried is tried, in processes and namespaces that are thrown away; nothing of
//! the machine is changed. Tried in the helper, since trying means forking.

mod emulators;
mod features;
mod limits;
mod network;
mod trial;

use std::os::fd::AsFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::launcher::Helper;
use crate::wire::{self, Answer, Request};
use crate::{Rung, SandboxError, Stage};

/// What the machine can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The rung that [`enter`](crate::enter()) takes here, or why it fails.
    pub rung: Result<Rung, SandboxError>,
    /// Why that is none with namespaces.
    pub lack: Option<SandboxError>,
    /// What was looked at, the most important first.
    pub features: Vec<Feature>,
}

impl Probe {
    /// Whether builds that run anything will work: there is a rung, and everything required.
    pub fn is_sufficient(&self) -> bool {
        self.rung.is_ok()
            && self.features.iter().all(|feature| feature.available || !feature.required)
    }
}

/// One thing that a machine has or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// A short name.
    pub name: String,
    /// Whether it is there.
    pub available: bool,
    /// Whether nothing can be run without it, by this user.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What it is for, or what its lack costs.
    pub purpose: String,
    /// What to do where it is missing.
    pub remedy: Option<String>,
}

/// Looks at the machine as the user who calls. Before [`enter`](crate::enter()): inside, much looks
/// different.
///
/// # Errors
///
/// Fails where the helper cannot be started.
pub fn probe() -> Result<Probe, SandboxError> {
    let program = Path::new("/proc/self/exe");
    let helper = Helper::start_program(program)
        .map_err(|error| SandboxError::Helper(format!("cannot start it: {error}")))?;
    let channel = helper.request(&Request::Probe, &[])?;
    match wire::receive(channel.as_fd()) {
        Ok(Some(Answer::Probe(probe))) => Ok(probe),
        Ok(_) => Err(SandboxError::Helper("it ended while it looked at the machine".to_owned())),
        Err(errno) => Err(SandboxError::setup(Stage::Messages, "the machine", errno)),
    }
}

/// The helper's part.
pub(crate) fn look() -> Probe {
    let trial = trial::run();
    let features = features::list(&trial);
    Probe { rung: trial.rung, lack: trial.lack, features }
}
