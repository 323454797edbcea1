//! Drives the real program with bad input and through bad times: each failure has a message that
//! names the place, the cause and the way out, and a documented exit code; no process, mount or
//! temporary file stays; and the next build uses the store as if nothing had been.

// Clippy takes what is not marked so for code that must not panic.
#![cfg(test)]

mod arena;
mod full;
mod images;
mod input;
mod kill;
#[expect(dead_code, reason = "machines refuse more than these tests ask for")]
#[path = "../cli/support/refusal.rs"]
mod refusal;
mod registry;
mod signals;
mod steps;
mod store;
mod traces;
