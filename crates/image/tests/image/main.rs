//! Images among other processes and other tools.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod processes;
mod registries;
#[path = "../../src/testing.rs"]
mod testing;
mod tools;
