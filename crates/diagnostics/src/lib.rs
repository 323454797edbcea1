//! All that the user is told.
//!
//! A [`Diagnostic`] is one thing worth saying about an input: an error, a warning or a note, with
//! the place in the source ([`SourceFile`], [`Span`]), the cause, the way out and, where one is
//! known, a [`Fix`]. An [`Event`] is one thing that happened during a build; whoever wants to know
//! implements [`EventSink`].
//!
//! This crate never prints: [`render`] turns diagnostics into text and JSON, and the CLI decides
//! where they go. It knows nothing of Dockerfiles, images or the file system.

mod diagnostic;
mod event;
pub mod render;
mod source;
mod suggest;

pub use diagnostic::{Applicability, Diagnostic, Edit, Fix, Label, Severity};
pub use event::{Event, EventSink, LogStream, NoEvents, Outcome, StepId};
pub use source::{Position, SourceFile, Span};
pub use suggest::nearest;
