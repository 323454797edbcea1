//! The command line.
mod args;
mod progress;
mod render;
fn main() {
    let v = progress::view(progress::Mode::Auto);
    v.close();
}
