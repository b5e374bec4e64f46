//! A group of processes and its collective operations.

use crate::{
    Environment, Error, Result,
    backend::{Gloo, Reducer, Store},
    local::ThreadLock,
    monitor::{Blame, Monitor},
};
use mm_core::{DType, Device, Tensor, no_grad};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// How a reduction combines the values of all ranks; the numbers are those of `c10d::ReduceOp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum = 0,
    /// The least.
    Min = 3,
    /// The greatest.
    Max = 4,
}

/// Time that libtorch has to notice a timeout by itself.
const GRACE: Duration = Duration::from_secs(4);

/// Processes that train together.
///
/// All ranks have to call the same operations in the same order. An operation that fails because a process ended, or
/// does not come within the timeout, names that process; the group cannot be used after that.
///
/// ```
/// use mm_core::{Device, Tensor};
/// use mm_dist::{Group, ReduceOp};
///
/// // Two ranks in two threads; usually `Group::from_env` joins what torchrun, srun or mpirun started.
/// let sums = mm_dist::spawn_local(2, |group| {
///     let own = Tensor::new([group.rank() as f32 + 1.0], Device::Cpu)?;
///     Ok(group.all_reduce(&own, ReduceOp::Sum)?.to_f64()?)
/// })?;
/// assert_eq!(sums, [3.0, 3.0]);
/// # Ok::<(), mm_dist::Error>(())
/// ```
pub struct Group {
    rank: usize,
    world_size: usize,
    // Dropped in this order: the connections, so that the others notice; the monitor, which waits until they have read
    // why; the store.
    /// For gradients, whose operations run while the backward pass does.
    pub(crate) gradients: Gloo,
    pub(crate) gloo: Gloo,
    monitor: Monitor,
    pub(crate) store: Store,
    /// The GPU whose tensors travel through NCCL.
    pub(crate) gpu: Option<Device>,
    _lock: Option<ThreadLock>,
}

/// Connects to the store in a thread of its own: libtorch waits without end for a program that takes the connection and
/// says nothing.
fn connect_store(host: &str, port: u16, is_server: bool, timeout: Duration) -> Result<Store, String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let name = host.to_owned();
    let connect = move || drop(sender.send(Store::connect(&name, port, is_server, timeout)));
    std::thread::Builder::new().spawn(connect).map_err(|e| e.to_string())?;
    let silent =
        |_| format!("what listens there did not answer within {} s, and may be another program", timeout.as_secs());
    receiver.recv_timeout(timeout + GRACE).map_err(silent)?
}

impl Group {
    /// Joins the processes that a launcher started ([`Environment::read`]); `None` where there is one process only.
    ///
    /// # Errors
    /// When the environment cannot be used, or the processes do not find each other within the timeout.
    pub fn from_env() -> Result<Option<Self>> {
        let environment = Environment::read()?.filter(|e| e.world_size > 1);
        environment.map(|environment| Self::join(&environment)).transpose()
    }

    /// Joins a group.
    ///
    /// # Errors
    /// When the processes do not find each other within the timeout; when another thread of this process has a group.
    pub fn join(environment: &Environment) -> Result<Self> {
        Self::connect(environment, Some(ThreadLock::acquire()?))
    }

    /// Without a lock the caller makes sure that threads do not race; see [`crate::local`].
    pub(crate) fn connect(environment: &Environment, lock: Option<ThreadLock>) -> Result<Self> {
        let Environment { rank, world_size, master_address: host, master_port, agent_store, timeout, .. } = environment;
        let (rank, world_size, timeout) = (*rank, *world_size, *timeout);
        let failed = |reason: String| Error::Join {
            rank,
            world_size,
            address: environment.address(),
            reason: advice(&reason, *agent_store, rank),
        };
        let is_server = rank == 0 && !agent_store;
        let store = connect_store(host, *master_port, is_server, timeout).map_err(&failed)?;
        let prefix = Self::prefix(environment);
        let connect = || {
            let store = connect_store(host, *master_port, false, timeout).map_err(&failed)?;
            store.prefixed(&prefix).map_err(&failed)
        };
        let monitor = Monitor::start(rank, world_size, connect()?, connect()?).map_err(|e| failed(e.to_string()))?;
        let address = interface(host);
        let gloo = |name: &str| {
            let store = store.prefixed(&format!("{prefix}{name}")).map_err(&failed)?;
            Gloo::connect(&store, rank, world_size, timeout, &address).map_err(&failed)
        };
        let (gradients, gloo) = (gloo("gradients")?, gloo("default")?);
        tracing::info!("rank {rank} of {world_size} joined at {}", environment.address());
        Ok(Self { rank, world_size, gradients, gloo, monitor, store, gpu: None, _lock: lock })
    }

    /// What the names in the store begin with.
    pub(crate) fn prefix(environment: &Environment) -> String {
        format!("mm/{}/", environment.attempt)
    }

    /// The first operation of both groups of connections.
    pub(crate) fn warm_up(&self) -> Result<()> {
        let own = Tensor::zeros(&[1], DType::F32, Device::Cpu)?;
        self.together("joining", || {
            self.gradients.all_reduce(&own, ReduceOp::Sum as i32)?;
            self.gloo.all_reduce(&own, ReduceOp::Sum as i32)
        })
    }

    /// Index of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// The reduction of the ranks' tensors, which have the same shape; the result has no gradient.
    ///
    /// # Errors
    /// When a process ended or does not come.
    pub fn all_reduce(&self, tensor: &Tensor, operation: ReduceOp) -> Result<Tensor> {
        let own = no_grad(|| tensor.detach()?.to_device(self.transport(tensor))?.copy())?;
        self.together("all_reduce", || self.gloo.all_reduce(&own, operation as i32))?;
        Ok(own.to_device(tensor.device())?)
    }

    /// Batch normalization of `[rows, channels, …]` by the statistics of the rows of all ranks, as PyTorch's
    /// `SyncBatchNorm`; all ranks have to run its backward pass. Returns the output, and the mean and the unbiased
    /// variance of each channel.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn batch_norm(&self, input: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
        // On a GPU its sums and those of the gradients are in one backward pass, and operations of two communicators at the
        // same time can block each other.
        let connections = if input.device() == Device::Cpu { &self.gloo } else { &self.gradients };
        self.together("batch_norm", || connections.batch_norm(input, weight, bias, eps))
    }

    /// The reduction of numbers.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn all_reduce_numbers(&self, values: &[f64], operation: ReduceOp) -> Result<Vec<f64>> {
        Ok(self.all_reduce(&Tensor::from_slice(values)?, operation)?.to_vec()?)
    }

    /// The tensor of rank `root`, in all ranks; it has the same shape in all.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Tensor> {
        let own = no_grad(|| tensor.detach()?.to_device(self.transport(tensor))?.copy())?;
        self.together("broadcast", || self.gloo.broadcast(&own, root))?;
        Ok(own.to_device(tensor.device())?)
    }

    /// The bytes of rank `root`, in all ranks.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn broadcast_bytes(&self, bytes: &[u8], root: usize) -> Result<Vec<u8>> {
        let own = if self.rank == root { bytes } else { &[] };
        let length = self.broadcast(&Tensor::from_slice(&[own.len() as i64])?, root)?.to_f64()? as usize;
        if length == 0 {
            return Ok(Vec::new());
        }
        let empty = || Tensor::zeros(&[length as i64], DType::U8, Device::Cpu);
        let tensor = if self.rank == root { Tensor::from_slice(own)? } else { empty()? };
        Ok(self.broadcast(&tensor, root)?.to_vec()?)
    }

    /// The ranks' tensors, in their order; they have the same shape, and no gradient.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let device = self.transport(tensor);
        let own = no_grad(|| tensor.detach()?.to_device(device)?.contiguous())?;
        let (shape, dtype) = (own.shape(), own.dtype()?);
        let empty = || Tensor::zeros(&shape, dtype, device);
        let all = (0..self.world_size).map(|_| empty()).collect::<mm_core::Result<Vec<Tensor>>>()?;
        self.together("all_gather", || self.gloo.all_gather(&all, &own))?;
        Ok(all.into_iter().map(|t| t.to_device(tensor.device())).collect::<mm_core::Result<_>>()?)
    }

    /// The ranks' bytes, in their order.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let length = Tensor::from_slice(&[bytes.len() as i64])?;
        let lengths = self.all_gather(&length)?;
        let lengths = lengths.iter().map(|t| Ok(t.to_f64()? as usize)).collect::<Result<Vec<usize>>>()?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); self.world_size]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let all = self.all_gather(&Tensor::from_slice(&padded)?)?;
        let cut = |(tensor, length): (&Tensor, &usize)| -> Result<Vec<u8>> {
            let mut bytes = tensor.to_vec::<u8>()?;
            bytes.truncate(*length);
            Ok(bytes)
        };
        all.iter().zip(&lengths).map(cut).collect()
    }

    /// The ranks' values, in their order, sent as JSON.
    ///
    /// # Errors
    /// As [`Group::all_reduce`]; when a value cannot be read.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let own = serde_json::to_vec(value).map_err(|source| Error::Message { rank: self.rank, source })?;
        let all = self.gather_bytes(&own)?;
        let read = |(rank, bytes): (usize, &Vec<u8>)| {
            serde_json::from_slice(bytes).map_err(|source| Error::Message { rank, source })
        };
        all.iter().enumerate().map(read).collect()
    }

    /// Waits for all processes.
    ///
    /// # Errors
    /// When one does not come within the timeout.
    pub fn barrier(&self) -> Result<()> {
        self.together("barrier", || self.gloo.barrier())
    }

    /// Checks that all ranks have the same value of something, for instance of a config.
    ///
    /// # Errors
    /// [`Error::Disagreement`], the same in all ranks.
    pub fn agree(&self, what: &str, value: &str) -> Result<()> {
        let values: Vec<String> = self.gather(&value.to_owned())?;
        let Some(rank) = values.iter().position(|v| *v != values[0]) else { return Ok(()) };
        let (expected, found) = first_difference(&values[0], &values[rank]);
        Err(Error::Disagreement { what: what.into(), rank, found, expected })
    }

    /// Averages gradients of parameters in the backward pass; see [`GradientReducer`](crate::GradientReducer).
    pub(crate) fn reducer(&self, parameters: &[&Tensor], bucket_bytes: usize) -> Result<Reducer> {
        self.together("comparing the parameters", || Reducer::new(&self.gradients, parameters, bucket_bytes))
    }

    /// Tells the other ranks why this one ends before the work is done: their next operation fails with
    /// [`Error::Ended`] and this reason. Does nothing where an operation failed, of which all know.
    pub fn report_failure(&self, reason: &str) {
        self.monitor.report(reason);
    }

    /// An operation of all ranks; a failure names those to blame, and the group cannot be used after it.
    pub(crate) fn together<T>(&self, operation: &'static str, run: impl FnOnce() -> Result<T, String>) -> Result<T> {
        self.monitor.count();
        run().map_err(|reason| match self.monitor.blame() {
            Blame::Reported { rank: peer, reason } => Error::Ended { rank: self.rank, peer, reason },
            Blame::Observed { peers, .. } => {
                let reason = reason.lines().next().unwrap_or_default().to_owned();
                Error::Peer { rank: self.rank, operation, peers, reason }
            }
        })
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("rank", &self.rank).field("world_size", &self.world_size).finish_non_exhaustive()
    }
}

/// What gloo binds to: the interface that `GLOO_SOCKET_IFNAME` names, the loopback interface where rank 0 is there, and
/// the address of the host's name elsewhere.
fn interface(master: &str) -> String {
    match std::env::var("GLOO_SOCKET_IFNAME") {
        Ok(name) if !name.is_empty() => format!("if:{name}"),
        _ if matches!(master, "127.0.0.1" | "localhost" | "::1") => "127.0.0.1".into(),
        _ => String::new(),
    }
}

/// The transport's message, and what to do about it.
fn advice(reason: &str, agent_store: bool, rank: usize) -> String {
    let first = reason.lines().next().unwrap_or_default();
    let hint = if reason.contains("EADDRINUSE") || reason.contains("address already in use") {
        "; another program uses the port, set MASTER_PORT to a free one in all processes"
    } else if rank != 0 && !agent_store {
        "; start rank 0 as well, and check MASTER_ADDR and MASTER_PORT"
    } else {
        "; start all ranks, and check that their hosts reach each other (GLOO_SOCKET_IFNAME chooses the interface)"
    };
    format!("{first}{hint}")
}

/// The first lines in which two texts differ.
fn first_difference(a: &str, b: &str) -> (String, String) {
    let lines = |n: usize| (a.lines().nth(n), b.lines().nth(n));
    let differing = (0..a.lines().count().max(b.lines().count())).map(lines).find(|(x, y)| x != y);
    let shown = |line: Option<&str>| line.map_or_else(|| "no such line".to_owned(), |l| format!("`{}`", l.trim()));
    differing.map_or_else(|| ("other line ends".into(), "other line ends".into()), |(x, y)| (shown(x), shown(y)))
}
