//! Lets test programs be their own helper.
//!
//! The main function of a test program is not the test's to write, so
//! [`init_if_child`](crate::init_if_child) cannot be called first in it. With the feature
//! `test-harness`, for dev-dependencies only, the loader calls it before `main`.

#![expect(unsafe_code, reason = "a function pointer where the loader looks for such")]

#[used]
// SAFETY: the section holds pointers to functions that the loader calls with C's calling
// convention before `main`; the C library is initialised by then, and glibc has passed the
// arguments on to Rust's standard library.
#[unsafe(link_section = ".init_array")]
static SERVE: extern "C" fn() = serve;

extern "C" fn serve() {
    crate::init_if_child();
}
