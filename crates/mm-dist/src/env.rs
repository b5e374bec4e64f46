//! Which of several processes this one is, as its launcher says: torchrun, Slurm or Open MPI.

use crate::{Error, Result};
use std::time::Duration;

const LOCALHOST: &str = "127.0.0.1";
/// The port of rank 0's store where the launcher names none; torch.distributed's.
const DEFAULT_PORT: u16 = 29500;
/// How long a collective operation waits for the other processes, unless `MM_DIST_TIMEOUT_SECONDS` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// This process among those that a launcher started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Index of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Index of this process on its host.
    pub local_rank: usize,
    /// Number of processes on this host, where the launcher says.
    pub local_world_size: Option<usize>,
    /// Host of the store through which the processes find each other: that of rank 0, unless the launcher keeps one.
    pub master_address: String,
    /// Port of the store.
    pub master_port: u16,
    /// Whether the launcher keeps the store (torchrun does), so that every rank is a client of it.
    pub agent_store: bool,
    /// How often the launcher has restarted the processes; a restarted group ignores what the one before it stored.
    pub attempt: u64,
    /// How long a collective operation waits for the other processes.
    pub timeout: Duration,
}

impl Environment {
    /// Reads the variables that torchrun (`RANK`, `WORLD_SIZE`, `MASTER_ADDR` …), `srun` (`SLURM_PROCID` …) or
    /// `mpirun` (`OMPI_COMM_WORLD_RANK` …) set; `None` where no launcher started this process.
    ///
    /// # Errors
    /// When a variable is missing or out of range.
    pub fn read() -> Result<Option<Self>> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variables = Variables(variable);
        let found = if variables.number("WORLD_SIZE")?.is_some() {
            Some(variables.torchrun()?)
        } else if variables.number("SLURM_STEP_NUM_TASKS")?.is_some_and(|tasks| tasks > 1) {
            Some(variables.slurm()?)
        } else if variables.number("OMPI_COMM_WORLD_SIZE")?.is_some() {
            Some(variables.open_mpi()?)
        } else if variables.number("RANK")?.is_some() {
            // Without the number of processes each would train alone, into the same folder.
            Some(variables.torchrun()?)
        } else {
            None
        };
        found.map(Self::check).transpose()
    }

    fn check(self) -> Result<Self> {
        let Self { rank, world_size, .. } = &self;
        if rank >= world_size {
            let expected = format!("less than the number of processes, {world_size}");
            return Err(Error::Environment { name: "RANK", found: rank.to_string(), expected });
        }
        Ok(self)
    }

    /// One of `world_size` processes (or threads) on this host, whose rank 0 listens at a port of the loopback
    /// interface.
    pub fn local(rank: usize, world_size: usize, master_port: u16) -> Self {
        Self {
            rank,
            world_size,
            local_rank: rank,
            local_world_size: Some(world_size),
            master_address: LOCALHOST.into(),
            master_port,
            agent_store: false,
            attempt: 0,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Where the store listens, `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.master_address, self.master_port)
    }
}

/// Variables of the environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let bad = |_| Error::Environment { name, found: format!("`{text}`"), expected: "a whole number".into() };
        text.trim().parse().map(Some).map_err(bad)
    }

    fn required(&self, name: &'static str, launcher: &str) -> Result<u64> {
        self.number(name)?.ok_or_else(|| Error::Environment {
            name,
            found: "nothing".into(),
            expected: format!("the number that {launcher} sets; start the processes with it"),
        })
    }

    fn port(&self) -> Result<Option<u16>> {
        let Some(port) = self.number("MASTER_PORT")? else { return Ok(None) };
        let bad = |_| Error::Environment {
            name: "MASTER_PORT",
            found: port.to_string(),
            expected: "a port, at most 65535".into(),
        };
        u16::try_from(port).map(Some).map_err(bad)
    }

    fn timeout(&self) -> Result<Duration> {
        Ok(self.number("MM_DIST_TIMEOUT_SECONDS")?.map_or(DEFAULT_TIMEOUT, |s| Duration::from_secs(s.max(1))))
    }

    fn torchrun(&self) -> Result<Environment> {
        let rank = self.required("RANK", "torchrun")? as usize;
        Ok(Environment {
            rank,
            world_size: self.required("WORLD_SIZE", "torchrun")? as usize,
            local_rank: self.number("LOCAL_RANK")?.unwrap_or(0) as usize,
            local_world_size: self.number("LOCAL_WORLD_SIZE")?.map(|n| n as usize),
            master_address: self.text("MASTER_ADDR").unwrap_or_else(|| LOCALHOST.into()),
            master_port: self.port()?.unwrap_or(DEFAULT_PORT),
            agent_store: self.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v.eq_ignore_ascii_case("true")),
            attempt: self.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
            timeout: self.timeout()?,
        })
    }

    fn slurm(&self) -> Result<Environment> {
        let nodes = self.text("SLURM_STEP_NODELIST").or_else(|| self.text("SLURM_JOB_NODELIST")).unwrap_or_default();
        let master = self.text("MASTER_ADDR").or_else(|| first_host(&nodes)).ok_or_else(|| Error::Environment {
            name: "SLURM_STEP_NODELIST",
            found: format!("`{nodes}`"),
            expected: "a list of hosts; set MASTER_ADDR to the host of rank 0".into(),
        })?;
        // A port that two jobs on one host rarely share.
        let job = self.number("SLURM_JOB_ID")?.unwrap_or(0);
        Ok(Environment {
            rank: self.required("SLURM_PROCID", "srun")? as usize,
            world_size: self.required("SLURM_STEP_NUM_TASKS", "srun")? as usize,
            local_rank: self.number("SLURM_LOCALID")?.unwrap_or(0) as usize,
            local_world_size: self.number("SLURM_NTASKS_PER_NODE")?.map(|n| n as usize),
            master_address: master,
            master_port: self.port()?.unwrap_or(15_000 + (job % 10_000) as u16),
            agent_store: false,
            attempt: self.number("SLURM_RESTART_COUNT")?.unwrap_or(0),
            timeout: self.timeout()?,
        })
    }

    fn open_mpi(&self) -> Result<Environment> {
        let world_size = self.required("OMPI_COMM_WORLD_SIZE", "mpirun")? as usize;
        let local = self.number("OMPI_COMM_WORLD_LOCAL_SIZE")?.map(|n| n as usize);
        let one_host = (local == Some(world_size)).then(|| LOCALHOST.to_owned());
        let master = self.text("MASTER_ADDR").or(one_host).ok_or_else(|| Error::Environment {
            name: "MASTER_ADDR",
            found: "nothing".into(),
            expected: "the host of rank 0, since mpirun started processes on several hosts; pass it with `mpirun -x MASTER_ADDR`"
                .into(),
        })?;
        Ok(Environment {
            rank: self.required("OMPI_COMM_WORLD_RANK", "mpirun")? as usize,
            world_size,
            local_rank: self.number("OMPI_COMM_WORLD_LOCAL_RANK")?.unwrap_or(0) as usize,
            local_world_size: local,
            master_address: master,
            master_port: self.port()?.unwrap_or(DEFAULT_PORT),
            agent_store: false,
            attempt: 0,
            timeout: self.timeout()?,
        })
    }
}

/// The first host of Slurm's list: `gpu[03-05,9],login` → `gpu03`.
fn first_host(nodes: &str) -> Option<String> {
    let first = nodes.split_once(',').map_or(nodes, |(first, _)| first);
    let Some((prefix, ranges)) = nodes.split_once('[').filter(|(prefix, _)| !prefix.contains(',')) else {
        return Some(first.to_owned()).filter(|host| !host.is_empty());
    };
    let (ranges, suffix) = ranges.split_once(']')?;
    let number = ranges.split([',', '-']).next()?;
    let suffix = suffix.split(',').next().unwrap_or("");
    Some(format!("{prefix}{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Environment>> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Environment::from_variables(&find)
    }

    #[test]
    fn launchers_are_recognized() {
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None, "a batch script is no step");
        let torchrun = read(&[
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "1234"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ]);
        let found = torchrun.unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank, found.attempt), (3, 4, 1, 2));
        assert_eq!((found.address().as_str(), found.agent_store), ("node1:1234", true));
        let alone = read(&[("RANK", "1")]).unwrap_err().to_string();
        assert!(alone.contains("WORLD_SIZE") && alone.contains("found nothing"), "{alone}");
        let slurm = read(&[
            ("SLURM_PROCID", "1"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_STEP_NODELIST", "n[07-08]"),
            ("SLURM_JOB_ID", "123456"),
            ("MM_DIST_TIMEOUT_SECONDS", "5"),
        ]);
        let found = slurm.unwrap().unwrap();
        assert_eq!((found.rank, found.address().as_str(), found.timeout.as_secs()), (1, "n07:18456", 5));
        let mpi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
        assert_eq!(read(&mpi).unwrap().unwrap().master_address, "127.0.0.1");
    }

    #[test]
    fn hosts_of_slurm() {
        for (list, host) in
            [("a", "a"), ("a,b", "a"), ("gpu[03-05,9],x", "gpu03"), ("n[1,3]-ib", "n1-ib"), ("l,n[1-2]", "l")]
        {
            assert_eq!(first_host(list).as_deref(), Some(host), "{list}");
        }
        assert_eq!(first_host(""), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        assert_eq!(
            error(&[("WORLD_SIZE", "2"), ("RANK", "2")]),
            "RANK: found 2, expected less than the number of processes, 2"
        );
        assert!(
            error(&[("WORLD_SIZE", "2")]).starts_with("RANK: found nothing, expected the number that torchrun sets")
        );
        assert!(error(&[("WORLD_SIZE", "two")]).contains("WORLD_SIZE: found `two`"));
        assert!(error(&[("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_PORT", "70000")]).contains("MASTER_PORT"));
        let hosts = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "1")];
        assert!(error(&hosts).contains("mpirun -x MASTER_ADDR"));
    }
}
