//! The client against servers: one that misbehaves as told, and Debian's `docker-registry`.

mod content;
mod faults;
mod server;
