//! Follows all processes of a step, and changes those calls that the kernel alone can carry out but
//! whose paths mean something else to it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use rustix::io::{Errno, Result};

use super::program::Plan;
use super::{Inside, Program, image, paths};
use crate::seccomp::{self, ARCHITECTURES};
use crate::supervisor::Session;
use crate::supervisor::calls::{Call, Meaning, Place};
use crate::supervisor::process::Caller;
use crate::sys::notify::{self, Notification};
use crate::sys::trace::{self, Registers, Resume};

/// What lies below a stack's end and may be in use all the same, on x86.
const RED_ZONE: u64 = 128;
/// The longest path that the kernel takes, with its end.
const LONGEST: usize = 4096;

pub(super) struct Tracer {
    session: &'static OnceLock<Session>,
    processes: BTreeMap<i32, State>,
    calls: Numbers,
}

/// Where a process is.
enum State {
    Free,
    /// In a call that was changed.
    Changed(Box<Change>),
}

/// What is put back when a call returns.
struct Change {
    registers: Registers,
    address: u64,
    covered: Vec<u8>,
    /// The program that the process becomes if the call succeeds.
    plan: Option<Plan>,
}

struct Numbers {
    execute: u32,
    execute_at: u32,
    enter: u32,
    send: [u32; 2],
}

impl Numbers {
    fn new() -> Self {
        let number = |name| seccomp::number(name, ARCHITECTURES[0].1).unwrap_or(u32::MAX);
        Self {
            execute: number("execve"),
            execute_at: number("execveat"),
            enter: number("chdir"),
            send: [number("sendmsg"), number("sendmmsg")],
        }
    }
}

impl Tracer {
    pub(super) fn new(session: &'static OnceLock<Session>, first: i32) -> Self {
        let processes = BTreeMap::from([(first, State::Free)]);
        Self { session, processes, calls: Numbers::new() }
    }

    pub(super) fn remove_shared(&self) {
        if let Some(inside) = self.inside() {
            inside.shared().remove_all();
        }
    }

    pub(super) fn kill_all(&self) {
        for process in self.processes.keys() {
            if let Some(process) = rustix::process::Pid::from_raw(*process) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
    }

    /// Does what is to be done for a process that has stopped or ended. Who is gone meanwhile is
    /// told of once more.
    pub(super) fn attend(&mut self, process: i32, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.processes.remove(&process);
            if let Some(inside) = self.inside() {
                inside.programs().remove(&process.unsigned_abs());
            }
            return;
        }
        self.processes.entry(process).or_insert(State::Free);
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let _ = match event {
            libc::PTRACE_EVENT_SECCOMP => self.change(process),
            libc::PTRACE_EVENT_EXEC => self.begin(process),
            libc::PTRACE_EVENT_STOP if is_stop(signal) => {
                trace::resume(process, Resume::Stopped, 0)
            }
            event if trace::FORKED.contains(&event) => self.note_new(process),
            0 if signal == libc::SIGTRAP | 0x80 => self.restore(process),
            0 => trace::resume(process, self.pace(process), signal),
            _ => trace::resume(process, self.pace(process), 0),
        };
    }

    fn inside(&self) -> Option<&'static Inside> {
        self.session.get()?.inside.as_ref()
    }

    /// How a process goes on: one whose call was changed, up to its end.
    fn pace(&self, process: i32) -> Resume {
        match self.processes.get(&process) {
            Some(State::Changed(_)) => Resume::ToReturn,
            _ => Resume::Freely,
        }
    }

    fn note_new(&mut self, process: i32) -> Result<()> {
        let new = trace::message(process)? as u32;
        if let Some(inside) = self.inside() {
            let mut programs = inside.programs();
            if let Some(program) = programs.get(&group_of(process)).cloned() {
                // A thread is no process of its own, and harms nobody here.
                programs.entry(new).or_insert(program);
            }
        }
        trace::resume(process, self.pace(process), 0)
    }

    /// At the beginning of a call.
    fn change(&mut self, process: i32) -> Result<()> {
        let (Some(session), Some(inside)) = (self.session.get(), self.inside()) else {
            return trace::resume(process, Resume::Freely, 0);
        };
        let registers = Registers::of(process)?;
        let call = Changed { session, inside, process, registers };
        let number = registers.number();
        let result = match number {
            number if number == self.calls.execute => call.execute(Place::Path(0), 1),
            number if number == self.calls.execute_at => call.execute(Place::AtWith(0, 1, 4), 2),
            number if number == self.calls.enter => call.enter(),
            number if self.calls.send.contains(&number) => match call.caller().goes_to_path() {
                Ok(true) => Err(Errno::PERM),
                _ => return trace::resume(process, Resume::Freely, 0),
            },
            _ => return trace::resume(process, Resume::Freely, 0),
        };
        match result {
            Ok(change) => {
                self.processes.insert(process, State::Changed(Box::new(change)));
                trace::resume(process, Resume::ToReturn, 0)
            }
            Err(errno) => {
                registers.refused(errno).set(process)?;
                trace::resume(process, Resume::Freely, 0)
            }
        }
    }

    /// At the end of a call that was changed.
    fn restore(&mut self, process: i32) -> Result<()> {
        if let Some(State::Changed(change)) = self.processes.insert(process, State::Free) {
            let result = Registers::of(process)?.result();
            let _ = notify::write_memory(process.unsigned_abs(), change.address, &change.covered);
            change.registers.with_result(result).set(process)?;
        }
        trace::resume(process, Resume::Freely, 0)
    }

    /// When a process has become a starter.
    fn begin(&mut self, process: i32) -> Result<()> {
        let former = trace::message(process)? as i32;
        let state = self.processes.remove(&former);
        self.processes.insert(process, State::Free);
        let plan = match state {
            Some(State::Changed(change)) => change.plan,
            _ => None,
        };
        let begun = match (plan, self.session.get(), self.inside()) {
            (Some(plan), Some(session), Some(inside)) => start(session, inside, process, plan),
            _ => Err(Errno::NOEXEC),
        };
        if begun.is_err() {
            // Its old program is gone already, as in the kernel past the point of no return.
            let process = rustix::process::Pid::from_raw(process).ok_or(Errno::SRCH)?;
            rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
        }
        trace::resume(process, Resume::Freely, 0)
    }
}

/// Makes a starter what it shall be.
fn start(session: &'static Session, inside: &Inside, process: i32, plan: Plan) -> Result<()> {
    let thread = process.unsigned_abs();
    let registers = Registers::of(process)?;
    image::fill(thread, registers.stack(), &plan)?;
    let caller = caller(session, thread, 0, [0; 6]);
    if *caller.credentials()? != plan.credentials {
        caller.become_other(&plan.credentials)?;
    }
    let (path, identity) = (plan.path, plan.identity);
    inside.programs().insert(thread, Program { path, identity });
    let interpreter = plan.interpreter.map(|elf| elf.file);
    inside.beginning().insert(thread, [Some(plan.program.file), interpreter]);
    Ok(())
}

fn caller(
    session: &'static Session,
    thread: u32,
    number: u32,
    arguments: [u64; 6],
) -> Caller<'static> {
    let notification = Notification::of_stopped(thread, number, ARCHITECTURES[0].0, arguments);
    let call = Call::Execute(Place::Path(0));
    let meaning = Meaning { call, is_32_bit: false, has_short_ids: false };
    Caller { session, notification, meaning }
}

/// A call that stands still at its beginning.
struct Changed {
    session: &'static Session,
    inside: &'static Inside,
    process: i32,
    registers: Registers,
}

impl Changed {
    fn caller(&self) -> Caller<'static> {
        let Self { registers, .. } = self;
        let thread = self.process.unsigned_abs();
        caller(self.session, thread, registers.number(), registers.arguments())
    }

    /// The kernel executes the starter.
    fn execute(&self, place: Place, arguments: usize) -> Result<Change> {
        let caller = self.caller();
        let found = caller.find(place)?;
        let name = match place {
            Place::AtWith(base, path, _) => {
                let path = caller.name_at(path)?;
                let base = caller.int(base) as i32;
                match path.to_bytes() {
                    [b'/', ..] => path,
                    _ if base == libc::AT_FDCWD => path,
                    b"" => paths::text(format!("/dev/fd/{base}").as_bytes())?,
                    rest => paths::text(&[format!("/dev/fd/{base}/").as_bytes(), rest].concat())?,
                }
            }
            _ => caller.name_at(0)?,
        };
        let plan = caller.plan(self.inside, found, name)?;
        let words = self.registers.arguments();
        let given = [words[arguments], words[arguments + 1]];
        let number = seccomp::number("execve", ARCHITECTURES[0].1).ok_or(Errno::NOSYS)?;
        let starter = self.inside.starter.clone();
        self.replace(&starter, number, given, Some(plan))
    }

    /// The kernel goes to a directory by its path on the machine.
    fn enter(&self) -> Result<Change> {
        let directory = self.caller().enter(Place::Path(0))?;
        let place = format!("self/fd/{}", directory.as_fd().as_raw_fd());
        let path = match paths::read_link(&place) {
            Ok(path) if self.inside.strip(&path).is_none() && !path.starts_with(b"/proc/") => {
                return Err(Errno::NOENT);
            }
            Ok(path) if path.len() < LONGEST => paths::text(&path)?,
            // From where it is, the way is short; and wherever that leads to, no path leads on.
            Ok(_) | Err(Errno::NAMETOOLONG) => {
                let path = self.caller().name_at(0)?;
                match path.to_bytes().first() {
                    Some(b'/') | None => return Err(Errno::NAMETOOLONG),
                    Some(_) => path,
                }
            }
            Err(errno) => return Err(errno),
        };
        let words = self.registers.arguments();
        self.replace(&path, self.registers.number(), [words[1], words[2]], None)
    }

    /// Another call, whose path is written below the stack.
    fn replace(
        &self,
        path: &CString,
        number: u32,
        rest: [u64; 2],
        plan: Option<Plan>,
    ) -> Result<Change> {
        let thread = self.process.unsigned_abs();
        let bytes = path.as_bytes_with_nul();
        let below = self.registers.stack().checked_sub(RED_ZONE + bytes.len() as u64);
        let address = below.ok_or(Errno::FAULT)? & !15;
        let mut covered = vec![0; bytes.len()];
        notify::read_memory(thread, address, &mut covered)?;
        notify::write_memory(thread, address, bytes)?;
        let [second, third] = rest;
        self.registers.with_call(number, [address, second, third]).set(self.process)?;
        Ok(Change { registers: self.registers, address, covered, plan })
    }
}

fn is_stop(signal: i32) -> bool {
    matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// The process that a thread is of.
pub(super) fn group_of(thread: i32) -> u32 {
    let status = fs_err::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group.and_then(|group| group.trim().parse().ok()).unwrap_or(thread.unsigned_abs())
}
