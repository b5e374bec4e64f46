//! Settings of the process: threads, memory allocator, cache folder.

/// Makes glibc retain freed memory instead of returning it to the system after each large tensor, which would page
/// every activation in again (+18 % images per second on ResNet-50). Call it once at the start of a program.
pub fn retain_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 << 20);
        // Batches are allocated in worker threads and freed in another: with glibc's heap per thread, each heap would
        // retain its own largest batch.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Starts this program again, once, with `GOMP_SPINCOUNT=1000` in its environment, unless `GOMP_SPINCOUNT` or
/// `OMP_WAIT_POLICY` is set. Call it first in `main`, before any thread is started; where the program cannot be started
/// again, it goes on as it is.
///
/// libtorch's threads belong to OpenMP (libgomp), which lets a thread that waits compute for milliseconds before it
/// sleeps. Two programs that share the cores then keep each other from working and take up to ten times as long.
/// libgomp reads the variable while libtorch is loaded, which is before `main`, so a program cannot set it for itself.
///
/// ```no_run
/// mm_core::limit_spinning();
/// // …
/// ```
pub fn limit_spinning() {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut command = std::process::Command::new(program);
        let mut arguments = std::env::args_os();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Returns only where it failed.
        let _ = command.args(arguments).env("GOMP_SPINCOUNT", "1000").exec();
    }
}

/// Ends the process with an exit code while threads of it compute. At a usual end these would use what the libraries of
/// the process, libtorch's among them, have freed already. Nothing else is done: no destructor runs, and what is not
/// written yet is lost.
pub fn exit_at_once(code: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process, and runs nothing of it.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

/// Lets a thread of its own take SIGINT, SIGTERM and SIGHUP, and keeps them from the calling thread and from those that it
/// starts. Call it in the main thread of a program that handles these signals, before anything is computed. Programs that
/// it starts get the signals as usual.
///
/// oneDNN's matrix products for AVX-512 do not bear a signal: where a handler runs in a thread that computes one, the heap
/// is damaged, whatever the handler does (libtorch 2.11: half of the interrupted programs ended with SIGABRT).
pub fn handle_signals_elsewhere() {
    #[cfg(unix)]
    {
        let wait = || loop {
            std::thread::park();
        };
        if std::thread::Builder::new().name("signals".into()).spawn(wait).is_err() {
            return;
        }
        // SAFETY: the set is initialized before it is used; the mask of this thread alone changes.
        unsafe {
            let mut signals = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&raw mut signals, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        }
    }
}

/// The number of threads for a program that has the machine for itself: `OMP_NUM_THREADS` where it is set, else what
/// the system allows this process (its cores, and a container's quota of processor time).
///
/// libtorch by itself starts a thread for each core of the machine; pass this number to [`set_num_threads`].
pub fn available_threads() -> usize {
    let text = std::env::var("OMP_NUM_THREADS").unwrap_or_default();
    let set = text.split(',').next().and_then(|number| number.trim().parse().ok()).filter(|n| *n > 0);
    set.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Sets the number of threads that libtorch uses within one operation (at least one).
pub fn set_num_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
}

/// Number of threads that libtorch uses within one operation.
pub fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// The folder of files that can be computed or downloaded again: `$XDG_CACHE_HOME/mm`, else `~/.cache/mm`.
pub fn cache_dir() -> std::path::PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(std::path::PathBuf::from);
    let base =
        from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|h| h.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    base.join("mm")
}
