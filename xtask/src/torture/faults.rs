//! The disturbances: kills, full disks, two processes at once.

use super::{
    process::{Finished, Programs, Rng, Running},
    scenarios::Scenario,
};
use anyhow::{Result, bail};
use std::{path::Path, time::Duration};

/// Kills a run at up to `limit` random instants, starting it again each time, then lets it end; the number of kills.
pub fn kill_and_resume(
    scenario: &Scenario,
    case: &Path,
    programs: &Programs,
    seconds: f64,
    limit: usize,
    rng: &mut Rng,
) -> Result<usize> {
    (scenario.prepare)(case)?;
    let mut kills = 0;
    loop {
        let running = scenario.start(programs, case, kills > 0, &[])?;
        let ended = if kills == limit {
            Some(running.wait()?)
        } else {
            let time = Duration::from_secs_f64(rng.uniform() * seconds);
            let child = scenario.kills_children().then(|| rng.below(4)).filter(|child| *child < 3);
            running.kill_after(time, child)?
        };
        match ended {
            None => kills += 1,
            Some(finished) if finished.status.success() => return Ok(kills),
            Some(finished) if kills > 0 && is_complete(scenario, &finished) => return Ok(kills),
            Some(finished) => bail!("after {kills} kills it ended with {}: {}", finished.status, finished.log),
        }
    }
}

/// Whether a command refused to run because its outputs are complete. Whether they are is compared afterwards.
fn is_complete(scenario: &Scenario, finished: &Finished) -> bool {
    finished.status.code() == Some(1) && scenario.complete.is_some_and(|text| finished.log.contains(text))
}

/// Runs on a disk that takes only so many bytes of a file (`ulimit -f`: writes beyond them fail as on a full disk),
/// then without the limit. Whether the limit was met.
///
/// The failed run must end with an error, not with success and not by a signal.
pub fn fill_disk_and_resume(scenario: &Scenario, case: &Path, programs: &Programs, rng: &mut Rng) -> Result<bool> {
    (scenario.prepare)(case)?;
    // Blocks of 512 bytes; the outputs have some 1 kB to 2 MB, and small limits meet the most kinds of files.
    let blocks = 1 << rng.below(11);
    let limit = ["sh", "-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"];
    let finished = scenario.start(programs, case, false, &limit)?.wait()?;
    match finished.status.code() {
        Some(0) => Ok(false),
        Some(1) if finished.log.contains("error") || finished.log.contains("xtask:") => {
            let again = scenario.start(programs, case, true, &[])?.wait()?;
            if !again.status.success() && !is_complete(scenario, &again) {
                bail!("after a full disk it ended with {}: {}", again.status, again.log);
            }
            Ok(true)
        }
        _ => bail!("with files of at most {blocks} blocks it ended with {}: {}", finished.status, finished.log),
    }
}

/// Two processes with one output: one does the work; the other does the same, waits, or is refused with the reason.
pub fn run_two(scenario: &Scenario, case: &Path, programs: &Programs) -> Result<()> {
    (scenario.prepare)(case)?;
    let first = scenario.start(programs, case, false, &[])?;
    let second = scenario.start_as("second", programs, case, false, &[], &[])?;
    let ends = [first.wait()?, second.wait()?];
    if !ends.iter().any(|e| e.status.success()) {
        bail!("both failed: {} | {}", ends[0].log, ends[1].log);
    }
    for end in ends.iter().filter(|e| !e.status.success()) {
        let is_refused = ["in use", "another process", "already", "exists"].iter().any(|w| end.log.contains(w));
        if end.status.code() != Some(1) || !is_refused {
            bail!("the refused process ended with {}: {}", end.status, end.log);
        }
    }
    Ok(())
}

/// Two processes with outputs of their own and one cache.
pub fn share_cache(scenario: &Scenario, case: &Path, programs: &Programs, extra: &[&str]) -> Result<()> {
    (scenario.prepare)(case)?;
    let first: Running = scenario.start(programs, case, false, &[])?;
    let second = scenario.start_as("second", programs, case, false, &[], extra)?;
    first.finish()?;
    second.finish()
}
