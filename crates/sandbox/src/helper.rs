//! The helper: one thread that forks sandboxes and waits for them.
//!
//! It is this program, executed once more, so its memory is small and a fork of it cheap. It never
//! reads a specification: that is for the new process, so no run's secrets are in the memory that
//! the next run is forked from.
//!
//! It obeys nobody but the builder. It is in a session of its own, since Ctrl-C on the terminal
//! reaches the whole foreground group, and stopping the steps is the builder's decision; signals
//! from elsewhere are held back. It ends when the control socket does, which the kernel sees to
//! however the builder ends. (A parent-death signal would not do: it comes when the *thread* that
//! started the helper ends.) The sandboxes in turn get a parent-death signal from the helper, which
//! has one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Pid, Signal};

use crate::cgroup::Group;
use crate::init::{self, Job};
use crate::network::{self, Connected};
use crate::rungs::{self, chroot, forbidden};
use crate::supervisor::{self, Supervisor};
use crate::sys::{self, Fork};
use crate::wire::{self, Answer, Gone, Outside, Request, Stop};
use crate::world::World;
use crate::{Limits, OsError, SandboxError, Stage, probe};

/// Serves requests from standard input until its other end is closed; then kills everything.
pub(crate) fn serve() -> ! {
    sys::hold_signals();
    let _ = rustix::process::setsid();
    // Nothing of the builder's is for a sandbox to look at or to keep in use: not the memory, which
    // it would see as that of its process 1, not the keys of the user's session, not the working
    // directory and the umask.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = sys::new_session_keyring();
    let _ = rustix::process::chdir("/");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let code = Helper::new().map_or(1, |mut helper| helper.serve());
    sys::exit(code)
}

struct Helper {
    control: OwnedFd,
    /// Made for the first run; the error is the answer to every run.
    world: Option<Result<World, SandboxError>>,
    runs: Vec<Run>,
}

impl Helper {
    /// Takes the control socket from standard input, so that the first three descriptors are free
    /// for use; `None` when somebody else than the builder started this.
    fn new() -> Option<Self> {
        let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).ok()?;
        rustix::net::sockopt::socket_type(&control).ok()?;
        rustix::stdio::dup2_stdin(wire::null().ok()?).ok()?;
        Some(Self { control, world: None, runs: Vec::new() })
    }

    /// Serves; returns the code to exit with.
    fn serve(&mut self) -> i32 {
        loop {
            let Ok(ready) = self.wait() else { return 1 };
            let mut events = ready[1..].chunks(2).map(|event| (event[0], event[1]));
            let first = self.first_processes();
            self.runs.retain_mut(|run| {
                let (ended, asked) = events.next().unwrap_or_default();
                run.attend(ended, asked, &first)
            });
            if ready[0] && !self.accept() {
                return self.end_all();
            }
        }
    }

    /// Waits until there is something to do. Tells of the control socket first, then of each run
    /// whether its first process has ended and whether its channel has something to say.
    fn wait(&self) -> rustix::io::Result<Vec<bool>> {
        let runs = self.runs.iter().flat_map(|run| {
            [run.process.as_fd(), run.channel.as_ref().unwrap_or(&run.process).as_fd()]
        });
        let mut polled: Vec<PollFd<'_>> = [self.control.as_fd()]
            .into_iter()
            .chain(runs)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let deadline = self.runs.iter().filter_map(|run| run.deadline).min();
        let timeout = deadline.map(wire::until);
        wire::retry(|| rustix::event::poll(&mut polled, timeout.as_ref()))?;
        Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    /// Does what the builder asks for; `false` when it is gone.
    fn accept(&mut self) -> bool {
        match wire::receive_request(self.control.as_fd()) {
            Ok(None) => return false,
            Ok(Some((Request::Run(outside), descriptors))) => self.run(&outside, descriptors),
            Ok(Some((Request::Probe, descriptors))) => {
                if let Some(channel) = descriptors.first() {
                    let _ = wire::send(channel.as_fd(), &Answer::Probe(probe::look()));
                }
            }
            Ok(Some((Request::Show, descriptors))) => {
                if let Some(channel) = descriptors.first() {
                    let tried = supervisor::kernel::trial::run();
                    let tried = tried.map_err(OsError::from);
                    let _ = wire::send(channel.as_fd(), &Answer::Show(tried));
                }
            }
            // The descriptors are gone, and with them the channel: the builder's thread sees that.
            Err(_) => {}
        }
        true
    }

    fn run(&mut self, outside: &Outside, descriptors: Vec<OwnedFd>) {
        let Some(job) = Job::new(descriptors) else { return };
        let started = match outside.in_place {
            true => rungs::start_in_place(&job, outside.traced).map(|(pid, process)| Started {
                pid,
                process,
                provided: Provided::default(),
                end: chroot::END,
            }),
            false => self.start(outside, &job),
        };
        match started {
            Ok(started) => self.runs.push(Run::new(started, job.channel)),
            Err(error) => {
                let _ = wire::send(job.channel.as_fd(), &Answer::Outcome(Err(error)));
                let _ = wire::send(job.channel.as_fd(), &Answer::Gone(Gone::default()));
            }
        }
    }

    fn start(&mut self, outside: &Outside, job: &Job) -> Result<Started, SandboxError> {
        let world = self.world.get_or_insert_with(World::prepare).as_mut();
        world.map_err(|error| error.clone()).and_then(|world| start(world, outside, job))
    }

    /// Kills all sandboxes and waits until nothing of them is left.
    fn end_all(&mut self) -> i32 {
        let first = self.first_processes();
        self.runs.iter_mut().for_each(Run::kill);
        self.runs.iter_mut().for_each(|run| run.report_end(&first));
        0
    }

    fn first_processes(&self) -> Vec<Pid> {
        self.runs.iter().map(|run| run.pid).collect()
    }
}

/// The first process of a sandbox, and what goes with it.
struct Started {
    pid: Pid,
    process: OwnedFd,
    provided: Provided,
    /// The signal that ends it with all its processes.
    end: Signal,
}

/// What a sandbox has outside.
#[derive(Default)]
struct Provided {
    /// What answers its questions, if it asks any.
    _supervisor: Option<Supervisor>,
    /// The way out of its network, if it has one of its own.
    _connected: Option<Connected>,
    /// The control group, if it has limits.
    group: Option<Group>,
}

/// Forks the first process of a sandbox, and gives its user namespace its ids. A process may map
/// only its own id by itself; more takes power over the namespace outside, which is here.
fn start(world: &mut World, outside: &Outside, job: &Job) -> Result<Started, SandboxError> {
    let messages = |errno| SandboxError::setup(Stage::Messages, "the sandbox", errno);
    let channel = match world.ids.is_single() || outside.keeps_devices {
        true => Some(wire::channel().map_err(messages)?),
        false => None,
    };
    let (supervisors, supervised) = channel.unzip();
    let (go, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(messages)?;
    let network = if outside.uplink.is_some() { libc::CLONE_NEWNET } else { 0 };
    let group = match outside.limits == Limits::default() {
        true => None,
        false => Some(world.cgroups.make(&outside.limits)?),
    };
    let fork = forbidden::fork(world, network)
        .map_err(|errno| SandboxError::setup(Stage::Namespaces, "the sandbox", errno))?;
    let (pid, process) = match fork {
        Fork::Child => {
            drop(tell);
            init::main(world, job, go, supervised)
        }
        Fork::Parent(pid, process) => (pid, process),
    };
    drop((go, supervised));
    let supervisor = supervisors.map(|channel| supervisor::start(pid, channel)).transpose();
    let provided = supervisor.map_err(messages).and_then(|_supervisor| {
        Ok(Provided { _supervisor, ..provide(world, outside, group, pid, tell)? })
    });
    match provided {
        Ok(provided) => Ok(Started { pid, process, provided, end: Signal::KILL }),
        Err(error) => {
            // Without the word it ends by itself.
            let _ = sys::wait(Some(pid), true);
            Err(error)
        }
    }
}

/// Does for a first process what only somebody outside can do, and tells it so.
fn provide(
    world: &mut World,
    outside: &Outside,
    group: Option<Group>,
    pid: Pid,
    tell: OwnedFd,
) -> Result<Provided, SandboxError> {
    world
        .give_ids(pid)
        .map_err(|error| SandboxError::setup(Stage::IdMaps, "the sandbox", error))?;
    outside.resource_limits.iter().for_each(|limit| limit.permit(pid));
    if let Some(group) = &group {
        group.take(&outside.limits, pid)?;
    }
    let _connected = match &outside.uplink {
        Some(uplink) => Some(network::connect(uplink, pid, tell)?),
        None => {
            let _ = rustix::io::write(&tell, &[network::GO]);
            None
        }
    };
    Ok(Provided { _supervisor: None, _connected, group })
}

/// A sandbox that is running.
struct Run {
    /// Its first process.
    pid: Pid,
    process: OwnedFd,
    /// What it has outside.
    provided: Provided,
    /// To the builder's thread that waits; `None` when that thread is gone.
    channel: Option<OwnedFd>,
    /// When it will be killed.
    deadline: Option<Instant>,
    /// Whether it was killed here.
    killed: bool,
    /// The signal that ends it with all its processes.
    end: Signal,
}

impl Run {
    fn new(started: Started, channel: OwnedFd) -> Self {
        let Started { pid, process, provided, end } = started;
        Self { pid, process, provided, channel: Some(channel), deadline: None, killed: false, end }
    }

    /// Does what is to be done for a sandbox; `false` when it is over.
    fn attend(&mut self, ended: bool, asked: bool, first: &[Pid]) -> bool {
        if ended {
            self.report_end(first);
            return false;
        }
        if asked {
            self.obey();
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.kill();
        }
        true
    }

    /// Stops the sandbox as the builder's thread asks, or since it is gone.
    fn obey(&mut self) {
        let Some(channel) = &self.channel else { return };
        match wire::receive(channel.as_fd()) {
            Ok(Some(Stop { grace_ms })) => {
                // The first process passes it on to the one that was asked for.
                let _ = rustix::process::pidfd_send_signal(&self.process, Signal::TERM);
                self.deadline = Instant::now().checked_add(Duration::from_millis(grace_ms));
            }
            Ok(None) | Err(_) => {
                self.channel = None;
                self.kill();
            }
        }
    }

    /// Kills the first process, and with it all others in its PID namespace; or has it kill them.
    fn kill(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, self.end);
        self.deadline = None;
        self.killed = true;
    }

    /// Waits for the end of the first process, and tells the builder. The end comes after that of
    /// all other processes and, since its namespaces go with it, of all mounts.
    fn report_end(&mut self, first: &[Pid]) {
        let Ok(Some(waited)) = sys::wait(Some(self.pid), true) else { return };
        let signal = libc::WIFSIGNALED(waited.status).then(|| libc::WTERMSIG(waited.status));
        if signal.is_some() && self.end == chroot::END {
            chroot::end_left(first);
        }
        let provided = std::mem::take(&mut self.provided);
        let group = provided.group.as_ref().map(Group::usage);
        drop(provided);
        let Some(channel) = &self.channel else { return };
        let gone = Gone {
            signal,
            by_request: self.killed,
            user_time: waited.user,
            system_time: waited.system,
            peak_memory: waited.peak_memory,
            group,
        };
        let _ = wire::send(channel.as_fd(), &Answer::Gone(gone));
    }
}
