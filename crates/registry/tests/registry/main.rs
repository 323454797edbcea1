//! The client against servers: one that misbehaves as told, and Debian's `docker-registry`.

// Clippy takes what is not marked so for code that must not panic.
#![cfg(test)]

mod auth;
mod bucket;
mod content;
mod docker;
mod faults;
mod push;
mod routes;
mod server;

/// The error's message must have all the words.
fn assert_says(error: &formwork_registry::RegistryError, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}
