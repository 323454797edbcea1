//! Makes ops real.
mod accounts;
mod trust;
