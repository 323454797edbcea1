//! What a view remembers about a step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::lines::{Lines, fit};
use crate::render;

/// How many of a step's last lines are kept, to be shown again if the step fails.
const KEPT_LINES: usize = 30;

/// What a step has to take to have it told, in bytes: less is no matter.
const MUCH_MEMORY: u64 = 50_000_000;

/// How many columns a reason may have.
const LONGEST_REASON: usize = 70;

/// A step between its announcement and its end.
#[derive(Debug)]
pub(super) struct StepState {
    pub(super) name: Arc<str>,
    pub(super) started: Option<Instant>,
    /// Why it had to work, shortly.
    pub(super) reason: Option<String>,
    /// The most memory that it took, where that is much.
    pub(super) memory: Option<u64>,
    pub(super) lines: Lines,
    pub(super) last_lines: VecDeque<String>,
    /// What is being counted, and how far it is: done, and of how much.
    pub(super) transfers: Vec<(Arc<str>, u64, Option<u64>)>,
}

impl StepState {
    pub(super) fn new(name: Arc<str>) -> Self {
        // Nothing that a Dockerfile says may move the cursor.
        let is_safe = !name.contains(char::is_control);
        let name = if is_safe { name } else { name.replace(char::is_control, "\u{fffd}").into() };
        Self {
            name,
            started: None,
            reason: None,
            memory: None,
            lines: Lines::default(),
            last_lines: VecDeque::new(),
            transfers: Vec::new(),
        }
    }

    /// Takes the reasons why it has to work.
    pub(super) fn explain(&mut self, reasons: &[String]) {
        self.reason = shortly(reasons);
    }

    /// Takes the most memory that it took.
    pub(super) fn used(&mut self, peak_memory: u64) {
        self.memory = Some(peak_memory).filter(|peak| *peak >= MUCH_MEMORY);
    }

    /// The most memory that it took, in words, where that is much.
    pub(super) fn peak(&self) -> Option<String> {
        self.memory.map(|peak| format!("peak memory {}", render::bytes(peak)))
    }

    /// Remembers lines for the case that the step fails.
    pub(super) fn keep(&mut self, lines: &[String]) {
        self.last_lines.extend(lines.iter().cloned());
        let excess = self.last_lines.len().saturating_sub(KEPT_LINES);
        self.last_lines.drain(..excess);
    }

    /// Takes the news of something that is counted.
    pub(super) fn count(&mut self, label: Arc<str>, current: u64, total: Option<u64>) {
        match self.transfers.iter_mut().find(|(known, ..)| *known == label) {
            Some(transfer) => *transfer = (label, current, total),
            None => self.transfers.push((label, current, total)),
        }
    }

    /// The sum of all that is counted, in words: done, and of how much if that is known for all of
    /// it.
    pub(super) fn counted(&self) -> Option<String> {
        let current = self.transfers.iter().map(|(_, current, _)| current).sum();
        let total = self.transfers.iter().map(|(_, _, total)| *total).sum();
        match (current, total) {
            (0, None | Some(0)) => None,
            (current, Some(total)) => {
                Some(format!("{} / {}", render::bytes(current), render::bytes(total)))
            }
            (current, None) => Some(render::bytes(current)),
        }
    }
}

/// The first of several reasons, and how many more there are.
pub(super) fn shortly(reasons: &[String]) -> Option<String> {
    let (first, others) = reasons.split_first()?;
    let first = fit(first, LONGEST_REASON);
    Some(match others.len() {
        0 => first,
        more => format!("{first}, and {more} more"),
    })
}
