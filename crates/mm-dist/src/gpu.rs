//! Groups whose tensors on GPUs travel through NCCL.

use crate::{Environment, Error, Group, ReduceOp, Result, nccl::Nccl};
use mm_core::{DType, Device, Tensor};

impl Environment {
    /// The GPU of this process: that of its number on the host (`LOCAL_RANK`), as programs under torchrun choose it.
    ///
    /// # Errors
    /// When there are fewer GPUs than processes on this host.
    pub fn gpu(&self) -> Result<Device> {
        gpu_of(self.local_rank, self.local_world_size, Device::cuda_device_count()).map(Device::Cuda)
    }
}

fn gpu_of(local_rank: usize, local_world_size: Option<usize>, gpus: usize) -> Result<usize> {
    let processes = local_world_size.unwrap_or(0).max(local_rank + 1);
    if processes <= gpus {
        return Ok(local_rank);
    }
    let seen = match gpus {
        0 => "no GPU".to_owned(),
        1 => "one GPU".to_owned(),
        gpus => format!("{gpus} GPUs"),
    };
    Err(Error::Environment {
        name: "LOCAL_RANK",
        found: format!("process {local_rank} of {processes} on this host, where libtorch sees {seen}"),
        expected:
            "a GPU for each process of a host; start fewer, let each see all GPUs of its host (srun --gpus-per-node \
                   instead of --gpus-per-task, CUDA_VISIBLE_DEVICES), or train with --device cpu"
                .into(),
    })
}

impl Group {
    /// Joins a group whose tensors on the GPU `device` travel through NCCL; those in the memory of the processor, numbers and
    /// texts travel through gloo, as with torch.distributed's `cpu:gloo,cuda:nccl`. With [`Device::Cpu`] as
    /// [`Group::join`]. A process has one GPU, its own: [`Environment::gpu`].
    ///
    /// NCCL is in a library of its own, `libmm_nccl.so`, which `cargo xtask nccl` makes: the file that `MM_NCCL_LIBRARY` names,
    /// else next to the program.
    ///
    /// **It was never run with several GPUs**: the library was compiled and opened, and refused for want of a GPU.
    ///
    /// # Errors
    /// As [`Group::join`]; in all ranks, when one of them lacks the library or has another kind of device.
    pub fn join_on(environment: &Environment, device: Device) -> Result<Self> {
        let mut group = Self::join(environment)?;
        group.agree("the kind of device", if device == Device::Cpu { "cpu" } else { "cuda" })?;
        if let Device::Cuda(index) = device {
            group.use_nccl(environment, index)?;
        }
        Ok(group)
    }

    fn use_nccl(&mut self, environment: &Environment, index: usize) -> Result<()> {
        let nccl = self.all_could(Nccl::open())?;
        let connect = |name: &str, connections: &crate::backend::Gloo| {
            let store = self.store.prefixed(&format!("{}nccl/{name}", Self::prefix(environment)))?;
            connections.add_nccl(&store, nccl.create, environment.timeout, index, name)
        };
        let added = connect("gradients", &self.gradients).and_then(|()| connect("default", &self.gloo));
        let refused =
            |found| Error::Nccl { found, expected: "a GPU that NCCL can use; or train with --device cpu".into() };
        self.all_could(added.map_err(refused))?;
        let device = Device::Cuda(index);
        self.gpu = Some(device);
        if self.rank() == 0 {
            tracing::warn!(
                "{} processes exchange gradients through NCCL, which mm was never run with on several GPUs; compare a short \
                 run with one on a single GPU",
                self.world_size()
            );
        }
        self.check_sums(device)
    }

    /// The first operation of both groups of connections, when the ranks connect.
    fn check_sums(&self, device: Device) -> Result<()> {
        for connections in [&self.gradients, &self.gloo] {
            let ones = Tensor::full(&[1], 1.0, DType::F32, device)?;
            self.together("joining with NCCL", || connections.all_reduce(&ones, ReduceOp::Sum as i32))?;
            let (sum, expected) = (ones.to_f64()?, self.world_size() as f64);
            if sum != expected {
                let expected = format!("{expected}; NCCL_DEBUG=INFO prints what NCCL does; or train with --device cpu");
                return Err(Error::Nccl { found: format!("a sum of {sum} over ones of all ranks"), expected });
            }
        }
        Ok(())
    }

    /// What this rank could do, where all could; else its own error, or that of the first rank that could not.
    fn all_could<T>(&self, own: Result<T>) -> Result<T> {
        let reasons: Vec<Option<String>> = self.gather(&own.as_ref().err().map(ToString::to_string))?;
        let value = own?;
        match reasons.into_iter().enumerate().find_map(|(rank, reason)| Some((rank, reason?))) {
            Some((rank, reason)) => Err(Error::Gpu { rank, reason }),
            None => Ok(value),
        }
    }

    /// The device on which a tensor travels: its own GPU through NCCL, else the processor's memory through gloo.
    pub(crate) fn transport(&self, tensor: &Tensor) -> Device {
        self.gpu.filter(|gpu| *gpu == tensor.device()).unwrap_or(Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_of_a_host_needs_a_gpu() {
        assert_eq!(gpu_of(1, Some(2), 2).unwrap(), 1);
        assert_eq!(gpu_of(0, None, 1).unwrap(), 0);
        let text = |rank, processes, gpus| gpu_of(rank, processes, gpus).unwrap_err().to_string();
        let none = text(0, Some(2), 0);
        assert!(
            none.starts_with("LOCAL_RANK: found process 0 of 2 on this host, where libtorch sees no GPU, expected"),
            "{none}"
        );
        assert!(none.contains("--device cpu"), "{none}");
        assert!(text(0, Some(4), 2).contains("process 0 of 4 on this host, where libtorch sees 2 GPUs"));
        assert!(text(3, None, 1).contains("process 3 of 4 on this host, where libtorch sees one GPU"));
    }

    #[cfg(feature = "c10d")]
    #[test]
    fn a_rank_without_the_library_is_named_by_the_others() {
        let found = crate::spawn_local(2, |group| {
            let missing = || Error::Nccl { found: "nothing".into(), expected: "a library".into() };
            let own = if group.rank() == 1 { Err(missing()) } else { Ok(()) };
            let text = group.all_could(own).unwrap_err().to_string();
            Ok((text, group.all_could(Ok(3))?))
        });
        let expected = [
            "rank 1 cannot use its GPU: NCCL: found nothing, expected a library",
            "NCCL: found nothing, expected a library",
        ];
        assert_eq!(found.unwrap(), expected.map(|text| (text.to_owned(), 3)));
    }

    #[cfg(feature = "c10d")]
    fn joined_alone() -> Result<Group> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Group::join_on(&Environment::local(0, 1, port), Device::Cuda(0))
    }

    #[cfg(feature = "c10d")]
    #[test]
    fn a_missing_library_is_an_error_that_says_how_to_build_it() {
        if Nccl::open().is_ok() {
            println!("skipped: there is a library (cargo xtask nccl)");
            return;
        }
        let text = joined_alone().unwrap_err().to_string();
        assert!(text.starts_with("NCCL: found") && text.contains("libmm_nccl.so"), "{text}");
        assert!(
            text.contains("build it with `cargo xtask nccl` in a clone of mm, or train with --device cpu"),
            "{text}"
        );
    }

    /// With `MM_NCCL_LIBRARY` and libtorch's CUDA libraries on `LD_LIBRARY_PATH`, on a machine without a GPU.
    #[cfg(feature = "c10d")]
    #[test]
    fn the_library_refuses_where_there_is_no_gpu() {
        if std::env::var_os("MM_NCCL_LIBRARY").is_none() || Device::cuda_device_count() > 0 {
            println!("skipped: MM_NCCL_LIBRARY names no library (cargo xtask nccl), or there is a GPU");
            return;
        }
        let found = crate::spawn_local(2, |group| {
            let nccl = Nccl::open()?;
            let store = group.store.prefixed("nccl/default").unwrap();
            let timeout = std::time::Duration::from_secs(10);
            Ok(group.gloo.add_nccl(&store, nccl.create, timeout, group.rank(), "default").unwrap_err())
        });
        for text in found.unwrap() {
            assert!(text.contains("no GPUs found"), "{text}");
        }
        let text = joined_alone().unwrap_err().to_string();
        assert!(text.starts_with("NCCL: found ProcessGroupNCCL is only supported with GPUs"), "{text}");
    }
}
