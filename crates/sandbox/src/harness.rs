//! Lets test programs be their own helper.
//!
//! The main function of a test program is not the test's to write, so
//! [`init_if_child`](crate::init_if_child) cannot be called first in it. With the feature
//! `test-harness`, for dev-dependencies only, the loader calls it before `main`.

#![expect(unsafe_code, reason = "a function pointer where the loader looks for such")]

#[used]
// SAFETY: the section holds pointers to functions that the loader calls with C's calling
// convention before `main`, when the C library is initialised.
#[unsafe(link_section = ".init_array")]
static SERVE: extern "C" fn() = serve;

extern "C" fn serve() {
    // Not every C library has passed the arguments on to Rust's standard library by now.
    let arguments = fs_err::read("/proc/self/cmdline").unwrap_or_default();
    if arguments.split(|byte| *byte == 0).next() == Some(crate::HELPER_NAME.as_bytes()) {
        crate::helper::serve();
    }
}
