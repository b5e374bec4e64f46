//! `mm launch`: starts several processes on this host that train together.

use crate::{
    context::Context,
    exit::{Interrupted, interrupted},
    output,
};
use anyhow::{Context as _, Result, bail};
use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getppid, kill_process, set_parent_process_death_signal, test_kill_process,
        waitid,
    },
};
use std::{
    ffi::OsString,
    net::TcpListener,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Polling interval of the processes.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long the others may take to notice that one has failed, before they are asked to end. They notice at once where
/// they exchange gradients, and not before the timeout where they wait for the one that failed to come.
const NOTICE: Duration = Duration::from_secs(5);
/// How long after a failure the others are killed. There is nothing to save: they had to wait for the one that failed.
const GRACE: Duration = Duration::from_secs(15);

/// Tells a process which one started it, in which namespace of process numbers.
const LAUNCHER: &str = "MM_LAUNCHER_PID";

/// Lets a process that `mm launch` started save and end once that is gone (killed by `SIGKILL`), instead of going on
/// unseen with the run folder in use.
///
/// # Errors
/// When it is gone already: this process would wait for others that nobody starts.
pub(crate) fn follow_launcher() -> Result<()> {
    let Some(value) = std::env::var(LAUNCHER).ok() else { return Ok(()) };
    let (number, namespace) = value.split_once(' ').unwrap_or((&value, ""));
    let launcher = number.parse().ok().and_then(Pid::from_raw);
    // In a container of its own a process cannot see which one started it, and ends with its peers or its work.
    let Some(launcher) = launcher.filter(|_| namespace == process_namespace()) else { return Ok(()) };
    if getppid() == Some(launcher) {
        // Where the system has no such signal the process ends with its peers or its work.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    // After that, since it may end at any time.
    if test_kill_process(launcher) == Err(Errno::SRCH) {
        bail!("`mm launch`, process {number}, which started this one, has ended");
    }
    Ok(())
}

/// Name of the namespace of this process's number; empty where the system has none.
fn process_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

/// Start several processes on this host that train together
///
/// Each gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as from torchrun, and an equal part of
/// the processor's threads (OMP_NUM_THREADS, unless it is set). Ctrl-C and SIGTERM are passed on; when one process fails, the
/// others are ended. Several hosts: torchrun --no-python, srun or mpirun.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm launch --nproc 2 -- mm train retrieval.toml --out runs/first\n  mm launch --nproc 4 -- mm train retrieval.toml --out runs/first --resume\n\n`mm` in the command is this program."
)]
pub(crate) struct Arguments {
    /// Number of processes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    nproc: u32,
    /// Port of 127.0.0.1 at which the processes find each other [default: a free one].
    #[arg(long, value_name = "PORT")]
    master_port: Option<u16>,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let signals = Arc::new(AtomicUsize::new(0));
    let counter = signals.clone();
    ctrlc::set_handler(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .context("cannot install a Ctrl-C handler")?;
    let world_size = arguments.nproc as usize;
    let port = match arguments.master_port {
        Some(port) => port,
        None => TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).context("no free port")?.port(),
    };
    let threads = (context.threads / world_size).max(1);
    let mut ranks = Ranks::default();
    for rank in 0..world_size {
        ranks.0.push(Rank::start(&arguments.command, rank, world_size, port, threads)?);
    }
    ranks.wait(&signals)
}

/// A process, and how it ended.
struct Rank {
    child: Child,
    status: Option<ExitStatus>,
}

impl Rank {
    fn start(command: &[OsString], rank: usize, world_size: usize, port: u16, threads: usize) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let program = if program == "mm" { std::env::current_exe()?.into_os_string() } else { program.clone() };
        let mut process = Command::new(&program);
        process.args(arguments).stdin(Stdio::null());
        // Ctrl-C reaches this program alone, which passes it on once.
        process.process_group(0);
        for (name, value) in [
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", world_size.to_string()),
            ("LOCAL_WORLD_SIZE", world_size.to_string()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", port.to_string()),
            (LAUNCHER, format!("{} {}", std::process::id(), process_namespace())),
        ] {
            process.env(name, value);
        }
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            process.env("OMP_NUM_THREADS", threads.to_string());
        }
        let child = process.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child, status: None })
    }

    /// Its number, unless it has ended.
    fn pid(&self) -> Option<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.filter(|_| self.status.is_none())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may just have ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it is stopped (by `SIGSTOP`), so that it notices nothing and takes no signal but `SIGKILL`.
    fn is_stopped(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.pid().is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }
}

/// The processes, which are ended when this is dropped.
#[derive(Default)]
struct Ranks(Vec<Rank>);

impl Drop for Ranks {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        for rank in &mut self.0 {
            let _ = rank.child.wait();
        }
    }
}

impl Ranks {
    fn signal(&self, signal: Signal) {
        self.0.iter().for_each(|rank| rank.signal(signal));
    }

    /// Waits until all have ended, and reports the first that failed.
    fn wait(&mut self, signals: &AtomicUsize) -> Result<()> {
        let (mut seen, mut first_failure): (usize, Option<(usize, ExitStatus, Instant)>) = (0, None);
        let mut asked = false;
        loop {
            for (number, rank) in self.0.iter_mut().enumerate().filter(|(_, rank)| rank.status.is_none()) {
                rank.status = rank.child.try_wait()?;
                if let (Some(status), None) = (rank.status.filter(|s| !s.success()), first_failure) {
                    first_failure = Some((number, status, Instant::now()));
                }
            }
            if self.0.iter().all(|rank| rank.status.is_some()) {
                break;
            }
            let received = signals.load(Ordering::Relaxed);
            if received > seen {
                self.signal(if received == 1 { Signal::TERM } else { Signal::KILL });
                seen = received;
            }
            if let Some((number, status, since)) = first_failure {
                for (stopped, rank) in self.0.iter_mut().enumerate().filter(|(_, rank)| rank.is_stopped()) {
                    output::warning(format!(
                        "rank {stopped} is stopped (SIGSTOP); ending it, since rank {number} {}",
                        described(status)
                    ));
                    rank.signal(Signal::KILL);
                    rank.status = Some(rank.child.wait()?);
                }
                if since.elapsed() > NOTICE && !asked {
                    output::warning(format!("rank {number} {}; ending the others", described(status)));
                    self.signal(Signal::TERM);
                    asked = true;
                } else if since.elapsed() > GRACE {
                    self.signal(Signal::KILL);
                }
            }
            std::thread::sleep(INTERVAL);
        }
        let Some((number, status, _)) = first_failure else { return Ok(()) };
        let is_interrupted = status.code() == Some(i32::from(Interrupted::EXIT_CODE));
        if is_interrupted || seen > 0 {
            interrupted!("rank {number} {}; it says above how to continue", described(status));
        }
        bail!("rank {number} of {} {}", self.0.len(), described(status));
    }
}

/// How a process ended, in words.
fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
