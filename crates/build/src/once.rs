//! What the user is told once, not by every build.

use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_fs::AtomicFile;

use crate::Host;

/// Tells that cache mounts are locked although nothing says so, if nobody has been told yet.
pub(crate) fn tell_of_locked_caches(host: &Host, targets: &[String], events: &Arc<dyn EventSink>) {
    let Some(target) = targets.first() else { return };
    // Beside the runs of steps, with which it goes after a long time.
    let told = host.layout.runs().join("told-locked-caches");
    if told.exists() {
        return;
    }
    let message = format!("steps that share the cache mount `{target}` wait for each other");
    let note = Diagnostic::note("locked-cache", message)
        .with_note(
            "apt and dnf fail where two of them use one directory at once; this is told once",
        )
        .with_help("`sharing=shared` on the mount lets them run at the same time all the same");
    events.emit(Event::Message(Box::new(note)));
    // Where it cannot be written down, it is told again.
    let _ = AtomicFile::write(told, b"");
}
