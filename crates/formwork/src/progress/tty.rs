//! A live view on a terminal.
//!
//! Finished steps become lines that stay; what is under way is drawn below them again and again:
//! each running step with its time and its last lines of output. Nothing is drawn more often than
//! ten times a second.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};

use super::View;
use super::lines::fit;
use super::step::StepState;
use crate::render;

/// The time between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// How many lines of a running step's output are shown.
const SHOWN_LINES: usize = 4;

/// Draws what is under way.
pub(super) struct Tty {
    state: Mutex<State>,
    closed: Condvar,
}

struct State {
    begin: Instant,
    steps: BTreeMap<StepId, StepState>,
    total: usize,
    finished: usize,
    /// How many lines of the last drawing are on the screen.
    drawn: usize,
    is_closed: bool,
}

/// The size of the terminal in characters.
#[derive(Clone, Copy)]
struct Screen {
    columns: usize,
    rows: usize,
}

impl Tty {
    /// A view that draws from a thread of its own until it is closed.
    pub(super) fn start() -> Arc<Self> {
        let view = Arc::new(Self { state: Mutex::new(State::new()), closed: Condvar::new() });
        let weak = Arc::downgrade(&view);
        // Without a thread to draw, there is nothing to be seen until the end.
        let _ = std::thread::Builder::new().spawn(move || draw_until_closed(&weak));
        view
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw_until_closed(view: &Weak<Tty>) {
    while let Some(view) = view.upgrade() {
        let state = view.lock();
        let wait = view.closed.wait_timeout_while(state, FRAME, |state| !state.is_closed);
        let mut state = wait.unwrap_or_else(PoisonError::into_inner).0;
        if state.is_closed {
            return;
        }
        let text = state.redraw("", screen(), Instant::now());
        write(&text);
    }
}

impl EventSink for Tty {
    fn emit(&self, event: Event) {
        let mut state = self.lock();
        if let Event::Message(diagnostic) = event {
            let text = state.clear();
            write(&text);
            render::diagnostic(&diagnostic);
            return;
        }
        let stays = state.take(event, screen(), Instant::now());
        if !stays.is_empty() {
            let text = state.redraw(&stays, screen(), Instant::now());
            write(&text);
        }
    }
}

impl View for Tty {
    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let text = state.clear();
        write(&text);
        self.closed.notify_all();
    }
}

fn write(text: &str) {
    // A closed terminal must not fail the build.
    let _ = anstream::stderr().write_all(text.as_bytes());
}

fn screen() -> Screen {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let size = size.filter(|size| size.ws_col > 20 && size.ws_row > 3);
    size.map_or(Screen { columns: 80, rows: 24 }, |size| Screen {
        columns: usize::from(size.ws_col),
        rows: usize::from(size.ws_row),
    })
}

impl State {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            steps: BTreeMap::new(),
            total: 0,
            finished: 0,
            drawn: 0,
            is_closed: false,
        }
    }

    /// Takes an event; returns the lines that stay on the screen because of it.
    fn take(&mut self, event: Event, screen: Screen, now: Instant) -> String {
        match event {
            Event::StepAdded { step, name } => {
                self.total += 1;
                self.steps.insert(step, StepState::new(name));
            }
            Event::StepStarted { step } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    state.started = Some(now);
                }
            }
            Event::StepWaiting { step, why } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    state.keep(&[format!("waiting: {why}")]);
                }
            }
            Event::StepReason { step, reasons } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    state.explain(&reasons);
                }
            }
            Event::StepLog { step, stream, data } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    let lines = state.lines.push(stream, &data);
                    state.keep(&lines);
                }
            }
            Event::StepProgress { step, label, current, total } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    state.count(label, current, total);
                }
            }
            Event::StepUsage { step, peak_memory, .. } => {
                if let Some(state) = self.steps.get_mut(&step) {
                    state.used(peak_memory);
                }
            }
            Event::StepFinished { step, outcome, duration } => {
                return self.finish(step, &outcome, duration, screen);
            }
            Event::Message(_) => {}
        }
        String::new()
    }

    fn finish(
        &mut self,
        step: StepId,
        outcome: &Outcome,
        duration: Duration,
        screen: Screen,
    ) -> String {
        self.finished += 1;
        let Some(mut state) = self.steps.remove(&step) else { return String::new() };
        let rest = state.lines.finish();
        state.keep(&rest);
        let mark = match outcome {
            Outcome::Cached => "\u{1b}[36mCACHED\u{1b}[0m ",
            Outcome::Unchanged => "\u{1b}[36mUNCHANGED\u{1b}[0m ",
            Outcome::Done => "",
            Outcome::Failed(_) => "\u{1b}[31mERROR\u{1b}[0m ",
            Outcome::Canceled => return String::new(),
        };
        let mut text = step_line(mark, &state.name, duration, screen.columns);
        if matches!(outcome, Outcome::Done | Outcome::Unchanged) {
            for remark in state.reason.iter().chain(&state.peak()) {
                let remark = fit(remark, screen.columns.saturating_sub(3));
                let _ = writeln!(text, "   \u{1b}[2m{remark}\u{1b}[0m");
            }
        }
        if let Outcome::Failed(_) = outcome {
            for line in &state.last_lines {
                let _ = writeln!(text, " | {}", fit(line, screen.columns.saturating_sub(3)));
            }
        }
        text
    }

    /// What to write so that the lines that stay come above what is under way.
    fn redraw(&mut self, stays: &str, screen: Screen, now: Instant) -> String {
        let mut text = self.clear();
        text.push_str(stays);
        let live = self.live(screen, now);
        self.drawn = live.lines().count();
        text.push_str(&live);
        text
    }

    /// What to write so that what was drawn is gone.
    fn clear(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            // To the first drawn line, and everything from there on cleared.
            lines => format!("\u{1b}[{lines}A\r\u{1b}[J"),
        }
    }

    fn live(&self, screen: Screen, now: Instant) -> String {
        let running: Vec<&StepState> =
            self.steps.values().filter(|step| step.started.is_some()).collect();
        let mut text = String::new();
        let _ = writeln!(
            text,
            "[+] Building {:.1}s ({}/{})",
            now.duration_since(self.begin).as_secs_f64(),
            self.finished,
            self.total
        );
        // One line for the head, one for each step, the rest shared by their output.
        let free = screen.rows.saturating_sub(2 + running.len());
        let shown = (free / running.len().max(1)).min(SHOWN_LINES);
        for step in running.iter().take(screen.rows.saturating_sub(2)) {
            let start = step.started.unwrap_or(now);
            let name = match step.counted() {
                None => step.name.to_string(),
                Some(counted) => format!("{} {counted}", step.name),
            };
            text.push_str(&step_line("", &name, now.duration_since(start), screen.columns));
            let skip = step.last_lines.len().saturating_sub(shown);
            for line in step.last_lines.iter().skip(skip) {
                let line = fit(line, screen.columns.saturating_sub(8));
                let _ = writeln!(text, " => => \u{1b}[2m{line}\u{1b}[0m");
            }
        }
        text
    }
}

/// ` => MARK name      1.2s`, with the time at the right border.
fn step_line(mark: &str, name: &str, duration: Duration, columns: usize) -> String {
    let time = format!("{:.1}s", duration.as_secs_f64());
    let mark_width = fit(mark, columns).chars().count();
    let room = columns.saturating_sub(4 + mark_width + 1 + time.len());
    let name = fit(name, room);
    let width = unicode_width::UnicodeWidthStr::width(name.as_str());
    let gap = " ".repeat(room.saturating_sub(width) + 1);
    format!(" => {mark}{name}{gap}{time}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: Screen = Screen { columns: 40, rows: 10 };

    fn play(events: Vec<Event>) -> (State, String) {
        let mut state = State::new();
        let now = state.begin;
        let stays =
            events.into_iter().map(|event| state.take(event, SCREEN, now)).collect::<String>();
        (state, stays)
    }

    fn added(step: u32, name: &str) -> Event {
        Event::StepAdded { step: StepId(step), name: name.into() }
    }

    fn started(step: u32) -> Event {
        Event::StepStarted { step: StepId(step) }
    }

    fn log(step: u32, data: &str) -> Event {
        let stream = formwork_diagnostics::LogStream::Stderr;
        Event::StepLog { step: StepId(step), stream, data: data.as_bytes().to_vec() }
    }

    fn finished(step: u32, outcome: Outcome) -> Event {
        Event::StepFinished { step: StepId(step), outcome, duration: Duration::from_secs(2) }
    }

    #[test]
    fn finished_steps_stay_and_running_ones_are_drawn() {
        let (mut state, stays) = play(vec![
            added(1, "[1/3] FROM x"),
            added(2, "[2/3] RUN make"),
            added(3, "[3/3] RUN later"),
            started(1),
            started(2),
            log(2, "a\nb\nc\nd\ne\nf"),
            finished(1, Outcome::Done),
        ]);
        assert_eq!(stays, " => [1/3] FROM x                    2.0s\n");
        let now = state.begin + Duration::from_secs(1);
        let text = state.redraw(&stays, SCREEN, now);
        assert!(text.contains("[+] Building 1.0s (1/3)\n"), "{text}");
        assert!(text.contains(" => [2/3] RUN make                  1.0s\n"), "{text}");
        assert!(!text.contains("later") && !text.contains("ma\u{1b}"), "{text}");
        assert_eq!(state.drawn, 2 + SHOWN_LINES);
        assert!(state.clear().starts_with("\u{1b}[6A"));
        assert_eq!(state.clear(), "");
    }

    #[test]
    fn a_failed_step_shows_its_last_lines() {
        let failure = Outcome::Failed("exit code 1".to_owned());
        let (_, stays) =
            play(vec![added(1, "RUN x"), started(1), log(1, "why"), finished(1, failure)]);
        assert!(stays.contains("ERROR") && stays.contains(" | why\n"), "{stays}");
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_screen() {
        let many: Vec<Event> = (0..50)
            .flat_map(|n| {
                [added(n, &"x".repeat(100)), started(n), log(n, &format!("{}\n", "y".repeat(90)))]
            })
            .collect();
        let (state, _) = play(many);
        let text = state.live(SCREEN, state.begin);
        assert!(text.lines().count() < SCREEN.rows);
        assert!(text.lines().all(|line| fit(line, 1000).chars().count() <= SCREEN.columns));
    }
}
