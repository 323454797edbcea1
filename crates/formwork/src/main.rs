//! The command line.
mod progress;
mod render;
fn main() {
    let v = progress::view(progress::Mode::Auto);
    v.close();
}
