//! Everything that is done with formwork's sources: set up, test, demo, bench, check.
fn main() {}
