//! The trace of some steps of a run.

use crate::{Error, Result, Run, distributed::Ranks};
use mm_dist::Profiler;
use std::fs;

/// Steps before the first one that is recorded: the first ones allocate memory and choose kernels.
const WARM_UP: u64 = 5;

/// Records some steps with PyTorch's profiler, once ([`TrainConfig::profile_steps`](crate::TrainConfig)).
pub(crate) struct StepProfile {
    /// Number of steps to go before recording begins.
    until: u64,
    /// Number of steps to record that are left.
    left: u64,
    recording: Option<Profiler>,
}

impl StepProfile {
    /// Records `steps` of the next `expected` steps.
    pub(crate) fn new(steps: u64, expected: u64) -> Self {
        Self { until: WARM_UP.min(expected.saturating_sub(steps)), left: steps, recording: None }
    }

    pub(crate) fn before_step(&mut self) -> Result<()> {
        if self.left > 0 && self.until == 0 && self.recording.is_none() {
            self.recording = Some(Profiler::start()?);
        }
        Ok(())
    }

    pub(crate) fn after_step(&mut self, run: &Run, ranks: &Ranks) -> Result<()> {
        if self.until > 0 {
            self.until -= 1;
            return Ok(());
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { self.finish(run, ranks) } else { Ok(()) }
    }

    /// Writes what is recorded so far: `profile/rank-N.pt.trace.json` for each process.
    pub(crate) fn finish(&mut self, run: &Run, ranks: &Ranks) -> Result<()> {
        let Some(recording) = self.recording.take() else { return Ok(()) };
        self.left = 0;
        let folder = run.folder().join("profile");
        let path = |rank: usize| folder.join(format!("rank-{rank}.pt.trace.json"));
        let failed = |e: std::io::Error| Error::Run { path: folder.clone(), source: e.into() };
        fs::create_dir_all(&folder).map_err(failed)?;
        let own = path(ranks.rank());
        recording.save(&own)?;
        if ranks.world_size() > 1 {
            // The folders of the other processes are not kept.
            let traces = ranks.gather_bytes(&fs::read(&own).map_err(failed)?)?;
            let others = traces.iter().enumerate().skip(1).filter(|_| ranks.is_writer());
            for (rank, trace) in others {
                fs::write(path(rank), trace).map_err(failed)?;
            }
        }
        Ok(())
    }
}
