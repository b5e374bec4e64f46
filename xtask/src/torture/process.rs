//! Processes that are stopped from outside, and the random instants.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The programs under test.
pub struct Programs {
    pub mm: PathBuf,
    pub xtask: PathBuf,
}

/// Random numbers from a seed and a name.
pub struct Rng {
    key: String,
    count: u64,
}

impl Rng {
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: format!("{seed}/{name}"), count: 0 }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        let digest = Sha256::digest(format!("{}/{}", self.key, self.count));
        digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A number from 0 to 1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A process with a process group of its own; what it prints goes into a file.
pub struct Running {
    child: Child,
    log: PathBuf,
    begun: Instant,
}

/// No run takes longer undisturbed.
const LIMIT: Duration = Duration::from_secs(600);

/// Time that processes may take to notice that the one that started them was killed, and to save.
const ORPHANS: Duration = Duration::from_secs(30);

/// Whether there is a process of this number that has not ended.
fn is_running(id: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

impl Running {
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned(), begun: Instant::now() })
    }

    /// Kills the process and its children after this time, or one of the children alone, after which the process must
    /// end by itself; the exit status where it ended before.
    pub fn kill_after(mut self, time: Duration, child: Option<usize>) -> Result<Option<Finished>> {
        while self.begun.elapsed() < time {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(self.finished(status)));
            }
            let left = time.saturating_sub(self.begun.elapsed());
            std::thread::sleep(left.min(Duration::from_millis(2)));
        }
        let children = self.children();
        let Some(child) = child.filter(|_| !children.is_empty()) else {
            self.kill()?;
            return Ok(None);
        };
        Command::new("kill")
            .args(["-KILL", children[child % children.len()].as_str()])
            .stderr(Stdio::null())
            .status()?;
        let finished = self.wait()?;
        // It may have done its work before.
        Ok(finished.status.success().then_some(finished))
    }

    /// The processes that it has started.
    fn children(&self) -> Vec<String> {
        let id = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    fn kill(&mut self) -> Result<()> {
        let children = self.children();
        // The group: mm's own children (ffmpeg), and the mm that xtask started.
        Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status()?;
        self.child.wait()?;
        // Children with groups of their own end by themselves.
        let begun = Instant::now();
        while children.iter().any(|id| is_running(id)) {
            if begun.elapsed() > ORPHANS {
                bail!("its processes {} still run {} s after it was killed", children.join(", "), ORPHANS.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Result<Finished> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(self.finished(status));
            }
            if self.begun.elapsed() > LIMIT {
                self.kill()?;
                bail!("not finished after {} s: {}", LIMIT.as_secs(), tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a successful end.
    pub fn finish(self) -> Result<()> {
        let finished = self.wait()?;
        if !finished.status.success() {
            bail!("it ended with {}: {}", finished.status, finished.log);
        }
        Ok(())
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished { status, log: tail(&self.log) }
    }
}

/// A process that ended by itself.
pub struct Finished {
    pub status: ExitStatus,
    /// The end of what it printed.
    pub log: String,
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\r', "\n");
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}
