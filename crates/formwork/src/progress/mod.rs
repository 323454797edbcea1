//! Shows a build as it happens.
//!
//! Three views of the same events: [`Plain`] writes lines as they come, in the form that users of
//! `docker build` know from their CI logs; [`Tty`] keeps what is under way at the bottom of the
//! terminal; [`Json`] writes one object an event for programs. [`Quiet`] shows nothing but
//! diagnostics and the end of what a step that fails has written.
//!
//! Views write to standard error: standard output belongs to results.

mod json;
mod lines;
mod plain;
mod quiet;
mod step;
mod tty;

use std::io::IsTerminal;
use std::sync::Arc;

use formwork_diagnostics::EventSink;

use json::Json;
pub(crate) use json::tell_failure;
use plain::Plain;
use quiet::Quiet;
use tty::Tty;

/// Which view to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A live view on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// A live view.
    Tty,
    /// Nothing but diagnostics.
    Quiet,
    /// One JSON object an event.
    Json,
}

/// A view, which has to be told when there is nothing more to show.
pub(crate) trait View: EventSink {
    /// Takes away what was only for the time of the build.
    fn close(&self);
}

/// The view for a mode.
pub(crate) fn view(mode: Mode) -> Arc<dyn View> {
    match mode {
        Mode::Quiet => Arc::new(Quiet::default()),
        Mode::Json => Arc::new(Json::default()),
        Mode::Tty => Tty::start(),
        Mode::Auto if std::io::stderr().is_terminal() && !is_dumb() => Tty::start(),
        Mode::Plain | Mode::Auto => Arc::new(Plain::default()),
    }
}

/// Whether the terminal cannot move its cursor.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}
