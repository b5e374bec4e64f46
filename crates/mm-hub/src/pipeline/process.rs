//! The program of a step.

use super::step::{Action, Step};
use crate::{
    error::{At, Context, Error, Result, bail},
    report::line,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// Where what a program prints goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Output {
    /// Where this program's own output goes.
    Inherit,
    /// To standard error: standard output is for this program alone.
    Stderr,
    /// To standard error, each line with the name of its step, since several steps run at a time.
    Labelled,
}

/// Runs the program of a step, with `mm` as the program mm.
pub(super) fn run(step: &Step, mm: Option<&Path>, output: Output, threads: Option<usize>) -> Result<()> {
    let (program, arguments) = match (&step.action, mm) {
        (Action::Mm(arguments), Some(mm)) => (mm.to_owned(), arguments.as_slice()),
        (Action::Run(words), _) => {
            let (program, arguments) = words.split_first().context("run: an empty list")?;
            // Paths are relative to the step's folder; names are looked up on the PATH.
            let is_path = program.contains('/');
            (if is_path { step.cwd.join(program) } else { PathBuf::from(program) }, arguments)
        }
        _ => bail!("nothing to run"),
    };
    if !step.cwd.is_dir() {
        bail!("cwd {}: no such folder", step.cwd.display());
    }
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(&step.cwd);
    // Programs at the same time share the cores.
    if let Some(threads) = threads.filter(|_| std::env::var_os("MM_THREADS").is_none()) {
        command.env("MM_THREADS", threads.to_string());
    }
    command.envs(&step.env);
    let status = match output {
        Output::Inherit => command.status().at(&program, "run")?,
        Output::Stderr => command.stdout(std::io::stderr()).status().at(&program, "run")?,
        Output::Labelled => labelled(command, &program, &step.name)?,
    };
    check(step, status)
}

fn check(step: &Step, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    // Ctrl-C reaches both programs; mm ends with 130 after saving.
    if status.code() == Some(130) || signal == Some(2) {
        return Err(Error::Interrupted { step: step.name.clone() });
    }
    bail!("it ended with {status}");
}

/// Runs a program and prints its lines with a label.
fn labelled(mut command: Command, program: &Path, name: &str) -> Result<ExitStatus> {
    // Several programs cannot share a terminal's input.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().at(program, "run")?;
    let streams = [child.stdout.take().map(boxed), child.stderr.take().map(boxed)];
    std::thread::scope(|scope| {
        for stream in streams.into_iter().flatten() {
            scope.spawn(move || print_lines(stream, name));
        }
        child.wait().at(program, "run")
    })
}

fn boxed(stream: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(stream)
}

fn print_lines(stream: Box<dyn Read + Send>, name: &str) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        line(format!("[{name}] {}", String::from_utf8_lossy(&bytes).trim_end()));
        bytes.clear();
    }
    let _ = std::io::stderr().flush();
}
