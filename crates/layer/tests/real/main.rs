//! Tests against real directories and real tools. What needs root or a tool that is missing says
//! so on stderr, as `skipped: …`.

#[cfg(test)]
mod devices;
#[cfg(test)]
mod materialize;
#[cfg(test)]
mod rootless;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tools;
