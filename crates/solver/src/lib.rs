//! Works through a build graph.
//!
//! [`execute`] brings the ops that some targets need into an order, runs independent ones side by
//! side, and asks the cache before it runs anything. What an op *is*, is the business of an
//! [`OpRunner`]; the solver knows no container, no layer and no Dockerfile, and can be tested, and
//! is, with ops that are numbers.
//!
//! For each op whose inputs are there:
//!
//! 1. its definition key is looked up;
//! 2. else the runner examines what the op uses of its inputs, and the content key is looked up;
//! 3. else the op is claimed, so that it runs once however many processes want it, looked up once
//!    more, and run; the result is recorded under both keys.
//!
//! The first op that fails stops the others. [`plan`] goes the same way as far as it is possible
//! without running anything.

mod cancel;
mod error;
mod execute;
mod explain;
mod notes;
mod permits;
mod plan;
mod runner;
mod schedule;

pub use cancel::Cancel;
pub use error::SolveError;
pub use execute::{Settings, execute, step_id};
pub use plan::{Forecast, PlannedStep, plan};
pub use runner::{Done, Examined, OpInputs, OpRunner, Task};
